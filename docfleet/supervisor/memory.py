"""Concurrency follows memory: where little of a device's memory is free, its workers take no new work until there is.

What the workers hold themselves is no reason for all of them to rest: it would never be free again. So if that is
known, it counts as free for one worker of the device, which goes on; the others rest. Where it is not known (in a
container drivers tell processes by numbers of another namespace, or list none), all rest, and after a while one tries.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from loguru import logger

from docfleet.devices.gauges import Gauges
from docfleet.devices.records import Kind, Reading
from docfleet.records import WorkerReport, WorkerSlot, WorkerState
from docfleet.store.pressure import Pressure

#: Rest ends when so many times the mark are free: workers must not go on and off with every document.
RECOVERED = 1.5
#: Seconds for which a rest holds without being renewed: nobody rests for ever because this process is gone.
HOLDS = 30.0
#: Seconds of all resting after which one worker tries, where nobody knows who holds the memory.
TRY_AFTER = 60.0
#: Of a device's used memory the listed processes hold at least this share, or some are not listed. What the driver
#: itself takes is listed nowhere.
_EXPLAINED = 0.5
#: Of workers in these states one can go on.
_ABLE = (WorkerState.READY, WorkerState.BUSY, WorkerState.RESTING)
_MB = 1024 * 1024


class Watched(Pressure, Protocol):
    """What is asked of a store."""

    def workers(self) -> list[WorkerReport]:
        """Return the newest report of every slot."""
        ...


@dataclass(frozen=True, kw_only=True)
class Marks:
    """Bytes that must be free before a worker takes new work; 0: never mind."""

    device: int
    host: int


class MemoryWatch:
    """A chore of the supervisor."""

    def __init__(
        self,
        store: Watched,
        slots: Sequence[WorkerSlot],
        gauges: Gauges,
        marks: Marks,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._slots = slots
        self._gauges = gauges
        self._marks = marks
        self._clock = clock
        #: Devices with too little free memory, and since when.
        self._low: dict[str, float] = {}
        self._told: Mapping[int, str] | None = None
        self._told_at = 0.0

    def look(self) -> None:
        """Let workers rest, or go on."""
        now = self._clock()
        reports = {report.slot: report for report in self._store.workers() if not report.ended}
        resting: dict[int, str] = {}
        for device in dict.fromkeys(slot.device for slot in self._slots):
            here = [slot.index for slot in self._slots if slot.device == device]
            resting |= self._device(device, here, reports, now)
        if resting == self._told and (not resting or now - self._told_at < HOLDS / 3):
            return
        if set(resting) != set(self._told or ()):
            logger.warning("workers that rest: {}", ", ".join(map(str, resting)) or "none any more")
        self._store.rest(resting, HOLDS)
        self._told, self._told_at = resting, now

    def _device(
        self, device: str, here: Sequence[int], reports: Mapping[int, WorkerReport], now: float
    ) -> dict[int, str]:
        # A Mac's accelerator works in main memory.
        on_host = device in (Kind.CPU.value, Kind.MPS.value)
        mark = self._marks.host if on_host else self._marks.device
        sample = self._gauges.latest(Kind.CPU.value if on_host else device)
        free = None if sample is None else sample.reading.memory_free
        wanted = mark * RECOVERED if device in self._low else mark
        if sample is None or free is None or free >= wanted:
            self._low.pop(device, None)
            return {}
        since = self._low.setdefault(device, now)
        workers = [report for report in reports.values() if report.device == device]
        own = sum(one.rss for one in workers) if on_host else held_by(sample.reading, workers)
        nobody = free + own < wanted if own is not None else now - since < TRY_AFTER
        # Not one that has yet to load its engines, or fails to: then nobody would.
        goes_on = min((slot for slot in here if slot in reports and reports[slot].state in _ABLE), default=None)
        # In whole pieces: each new text is written to the store and shown.
        place = "main memory" if on_host else f"the memory of {device}"
        reason = f"less than {mark // _MB} MB of {place} are free; goes on when {int(mark * RECOVERED) // _MB} MB are"
        return {slot: reason for slot in here if nobody or slot != goes_on}


def held_by(reading: Reading, workers: Sequence[WorkerReport]) -> int | None:
    """Return the bytes of the device that these workers hold with their children, or None where that is not known.

    It is not known where a list lacks processes, as in a container: none of it is a worker's, or it explains far less
    than is used.
    """
    if reading.holders is None:
        return None
    leaders = {worker.identity.pid for worker in workers}
    ours: list[int | None] = []
    for pid, size in reading.holders:
        try:
            # Each worker leads the group of all that it starts.
            if os.getpgid(pid) in leaders:
                ours.append(size)
        except ProcessLookupError:
            # The driver's number for it is of another namespace: it may be one of ours.
            return None
    if None in ours or (workers and not ours) or _lacks_processes(reading):
        return None
    return sum(size or 0 for size in ours)


def _lacks_processes(reading: Reading) -> bool:
    sizes = [size for _, size in reading.holders or ()]
    if reading.memory_total is None or reading.memory_free is None or None in sizes:
        return False
    used = reading.memory_total - reading.memory_free
    return sum(size or 0 for size in sizes) < used * _EXPLAINED
