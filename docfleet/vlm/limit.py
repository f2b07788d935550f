"""How many requests one server gets at once: found by trying, never told. Pure; the caller brings the clock.

Additive increase, multiplicative decrease (D.-M. Chiu, R. Jain, "Analysis of the increase and decrease algorithms for
congestion avoidance in computer networks", 1989). Two things count as congestion, and each has its limit:

- the server says so (429, 503), of all that it has: the ceiling falls to half of what it took, at most once a round;
- *latency grows as fast as the limit does*, of requests of one kind. By Little's law throughput is limit / latency:
  where a limit 1.3 times as large brings less than a tenth more throughput, the server only queues. A server that
  batches gets slower with each request too, but gains on the whole, so that a bound on latency alone would starve it.
"""

from __future__ import annotations

import math

#: Where a kind begins; 1.3 times as much has to be worth it.
_START = 2.0
_STEP = 1.3
#: Gain of throughput below which more requests at once are only a queue.
_WORTH = 1.1
#: Part of the gain that a server without bounds would give, over which the next steps are large ones.
_NEARLY = 0.9
_BACK_OFF = 0.5
#: Rounds after which a point of comparison is too old: the server's other users come and go.
_STALE_ROUNDS = 10
#: Rounds after which more is tried again that was not worth it.
_SOON = 6


class Ceiling:
    """What one server takes of all kinds together, by what it refuses."""

    def __init__(self, most: int) -> None:
        """Begin at `most`: it has refused nothing yet."""
        self._most = float(most)
        self.restart()

    def restart(self) -> None:
        """Begin anew: the server was away."""
        self._value = self._most
        self._punished_until = 0.0
        #: Most that were there when one was answered, since the last refusal.
        self._served = 0

    @property
    def value(self) -> int:
        """Requests at once, at least 1."""
        return max(1, int(self._value))

    def succeeded(self, in_flight: int) -> None:
        """Note an answer while so many requests were there; a ceiling that nobody reaches does not rise."""
        self._served = max(self._served, in_flight)
        if in_flight >= self.value:
            self._value = min(self._most, self._value + 1.0 / self._value)

    def refused(self, in_flight: int, now: float, seconds: float) -> None:
        """Note that the server said it has too much to do, with so many there; `seconds` are one round."""
        if now < self._punished_until:
            return
        self._punished_until = now + seconds
        # Refused in a quiet moment, it is not less than it could a while ago; refused again, it is.
        self._value = max(1.0, min(self._value, max(in_flight, self._served)) * _BACK_OFF)
        self._served = 0


class AdaptiveLimit:
    """What one server takes of one kind, by what it gains from more. With a slow start."""

    def __init__(self, most: int) -> None:
        """Begin at 2 requests at once, or `most` if that is less."""
        self._most = float(most)
        self.restart()

    def restart(self) -> None:
        """Begin anew: the server was away, and what was learnt may not hold."""
        self._value = min(_START, self._most)
        self._fast = True
        #: Load and seconds of a request to compare with, and how many rounds ago that was.
        self._point: tuple[float, float] | None = None
        self._rounds = 0
        #: Answers to come that tell of the limit before.
        self._sent_before = 0
        self._clear_round()

    @property
    def value(self) -> int:
        """Requests at once, at least 1."""
        return max(1, int(self._value))

    def succeeded(self, seconds: float, load: int, in_flight: int) -> None:
        """Note a request that was answered.

        Args:
            seconds: what it took.
            load: requests at the server when it was sent, itself included.
            in_flight: requests there now, itself included. Below the limit nothing is learnt but what one takes alone:
                a limit that nobody reaches does not limit.
        """
        if self._sent_before:
            self._sent_before -= 1
            return
        if in_flight < self.value:
            if load == 1 and self._point is None:
                self._set_point(1.0, seconds)
            return
        self._seconds += seconds
        self._load += load
        self._count += 1
        if self._count >= max(3, math.ceil(self._load / self._count)):
            self._judge(in_flight)

    def _judge(self, in_flight: int) -> None:
        load, seconds = self._load / self._count, self._seconds / self._count
        self._clear_round()
        self._rounds += 1
        if self._point is None or self._rounds > _STALE_ROUNDS or load < self._point[0]:
            self._set_point(load, seconds)
            self._grow(in_flight)
            return
        then_load, then_seconds = self._point
        if load < then_load * _STEP:
            self._grow(in_flight)
            return
        gain = (load / max(seconds, 1e-9)) / (then_load / max(then_seconds, 1e-9))
        self._fast = gain > _NEARLY * load / then_load
        if gain < _WORTH:
            self._value = min(self._most, max(_START, then_load))
            self._sent_before = in_flight - 1
            # Where requests are of any length, a few answers may have misled it: it is tried again soon.
            self._rounds = max(self._rounds, _STALE_ROUNDS - _SOON)
        else:
            self._set_point(load, seconds)
            self._grow(in_flight)

    def _grow(self, in_flight: int) -> None:
        if self._fast:
            self._value = min(self._most, self._value * 2)
        else:
            self._value = min(self._most, self._value + max(1.0, self._value / 10))
            self._sent_before = in_flight - 1

    def _set_point(self, load: float, seconds: float) -> None:
        self._point = (load, seconds)
        self._rounds = 0

    def _clear_round(self) -> None:
        self._seconds = 0.0
        self._load = 0.0
        self._count = 0
