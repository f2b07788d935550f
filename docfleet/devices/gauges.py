"""How the devices were over the last hour: load, memory, temperature, power."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from docfleet.devices.records import Reading
from docfleet.devices.sampling import Probe

#: Seconds that readings are kept.
KEPT_SECONDS = 3600.0
#: Intervals after which the last reading of a device does not stand for now any more; never fewer seconds than that.
_STALE, _LEAST_STALE = 4, 15.0


@dataclass(frozen=True)
class Sample:
    """A reading and when it was taken, in seconds since the epoch."""

    at: float
    reading: Reading

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"at": round(self.at, 3), "device": self.reading.device, **self.reading.to_json()}


class Gauges:
    """Keeps readings in bounded memory. One thread looks, any thread may ask."""

    def __init__(self, probes: Sequence[Probe], *, interval: float, clock: Callable[[], float] = time.time) -> None:
        """Make gauges over `probes`, to be looked at every `interval` seconds."""
        self._probes = probes
        self._interval = interval
        self._clock = clock
        self._lock = Lock()
        self._latest: dict[str, Sample] = {}
        self._most = int(KEPT_SECONDS / interval) + 1
        self._kept: dict[str, deque[Sample]] = {}

    def look(self) -> None:
        """Take what the probes have found."""
        for probe in self._probes:
            found = probe.take()
            now = self._clock()
            with self._lock:
                for reading in found:
                    sample = Sample(now, reading)
                    self._latest[reading.device] = sample
                    self._kept.setdefault(reading.device, deque(maxlen=self._most)).append(sample)

    def stop(self) -> None:
        """End what the probes run."""
        for probe in self._probes:
            probe.stop()

    def latest(self, device: str) -> Sample | None:
        """Return the last reading of a device, unless it is too old to stand for now."""
        with self._lock:
            sample = self._latest.get(device)
        too_old = max(_STALE * self._interval, _LEAST_STALE)
        # abs: a clock that was set back must not make an old one look new.
        return sample if sample is not None and abs(self._clock() - sample.at) <= too_old else None

    def history(self, seconds: float) -> dict[str, list[Sample]]:
        """Return the readings of the last so many seconds by device, oldest first."""
        since = self._clock() - seconds
        with self._lock:
            kept = {device: list(samples) for device, samples in self._kept.items()}
        return {device: [one for one in samples if one.at >= since] for device, samples in kept.items()}

    def failures(self) -> list[str]:
        """Return why devices have no readings, one sentence each."""
        return [probe.failure for probe in self._probes if probe.failure]
