"""How many requests one server gets at once: found by trying, never told. Pure; the caller brings the clock.

Additive increase, multiplicative decrease (D.-M. Chiu, R. Jain, "Analysis of the increase and decrease algorithms for
congestion avoidance in computer networks", 1989), with a slow start. What counts as congestion:

- the server says so (429, 503): half of the limit, at most once a round;
- *latency grows as fast as the limit does*. By Little's law throughput is limit / latency: where a limit 1.3 times as
  large brings less than a tenth more throughput, the server only queues. A server that batches gets slower with each
  request too, but gains on the whole, so that a bound on latency alone would starve it.
"""

from __future__ import annotations

import math

#: Where a server begins; 1.3 times as much has to be worth it.
_START = 2.0
_STEP = 1.3
#: Gain of throughput below which more requests at once are only a queue.
_WORTH = 1.1
_BACK_OFF = 0.5
#: Rounds after which a point of comparison is too old: the server's other users come and go.
_STALE_ROUNDS = 10


class AdaptiveLimit:
    """The limit of one server."""

    def __init__(self, most: int) -> None:
        """Begin at 2 requests at once, or `most` if that is less."""
        self._most = float(most)
        self.restart()

    def restart(self) -> None:
        """Begin anew: the server was away, and what was learnt may not hold."""
        self._value = min(_START, self._most)
        self._fast = True
        self._punished_until = 0.0
        self._point: tuple[float, float] | None = None
        self._rounds = 0
        self._clear_round()

    @property
    def value(self) -> int:
        """Requests at once, at least 1."""
        return max(1, int(self._value))

    def succeeded(self, seconds: float, in_flight: int) -> None:
        """Note a request that was answered.

        Args:
            seconds: what it took.
            in_flight: requests at the server when it was sent, itself included. Below the limit nothing is learnt:
                a limit that nobody reached did not limit.
        """
        if in_flight < self.value:
            return
        self._seconds += seconds
        self._load += in_flight
        self._count += 1
        self._value = min(self._most, self._value + (1.0 if self._fast else 1.0 / self._value))
        if self._count >= max(3, math.ceil(self._load / self._count)):
            self._judge()

    def congested(self, now: float, seconds: float) -> None:
        """Note that the server said it has too much to do; `seconds` is what a request takes: one round."""
        if now < self._punished_until:
            return
        self._punished_until = now + seconds
        self._value = max(1.0, self._value * _BACK_OFF)
        self._fast = False
        self._point = None
        self._clear_round()

    def _judge(self) -> None:
        load, seconds = self._load / self._count, self._seconds / self._count
        self._clear_round()
        self._rounds += 1
        if self._point is None or self._rounds > _STALE_ROUNDS or load < self._point[0]:
            self._set_point(load, seconds)
            return
        then_load, then_seconds = self._point
        if load < then_load * _STEP and load - then_load < 1.0:
            return
        gain = (load / max(seconds, 1e-9)) / (then_load / max(then_seconds, 1e-9))
        if gain < _WORTH:
            self._fast = False
            self._value = max(1.0, then_load)
            self._point = None
        else:
            self._set_point(load, seconds)

    def _set_point(self, load: float, seconds: float) -> None:
        self._point = (load, seconds)
        self._rounds = 0

    def _clear_round(self) -> None:
        self._seconds = 0.0
        self._load = 0.0
        self._count = 0
