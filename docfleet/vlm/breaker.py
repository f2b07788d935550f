"""When a server gets nothing any more, and how it comes back. Pure; the caller brings the clock.

new --healthy--> closed --failures--> open --healthy, after a pause--> half-open --one request--> closed or open
"""

from __future__ import annotations

from enum import StrEnum

#: Failures in a row, of requests or of health checks, after which a server counts as down.
FAILURES = 3
#: Seconds for which it then gets nothing at least; doubled each time that it fails its trial.
_PAUSE = 1.0
_LONGEST_PAUSE = 30.0


class Circuit(StrEnum):
    """Whether requests flow."""

    #: It was never asked.
    NEW = "new"
    CLOSED = "closed"
    OPEN = "open"
    #: One request at a time, on trial.
    HALF_OPEN = "half_open"


class Breaker:
    """The breaker of one server."""

    def __init__(self) -> None:
        """Begin with a server that nobody knows."""
        self.circuit = Circuit.NEW
        #: Why it is open; empty otherwise.
        self.reason = ""
        self._failures = 0
        self._unhealthy = 0
        self._open_until = 0.0
        self._pause = _PAUSE

    def may_send(self, in_flight: int) -> bool:
        """Return whether one more request may be sent, with so many under way."""
        return self.circuit is Circuit.CLOSED or (self.circuit is Circuit.HALF_OPEN and in_flight == 0)

    @property
    def lost(self) -> bool:
        """Whether no answer can be hoped for at present."""
        return self.circuit in (Circuit.NEW, Circuit.OPEN)

    def succeeded(self) -> None:
        """Note an answered request."""
        self._failures = self._unhealthy = 0
        if self.circuit is not Circuit.OPEN:
            # What was sent before it was given up does not bring it back: that is the trial's to say.
            self.circuit = Circuit.CLOSED
            self.reason = ""
            self._pause = _PAUSE

    def failed(self, now: float, reason: str, *, final: bool = False) -> None:
        """Note a request that the server did not answer as it should; `final`: one is enough (a key it refuses)."""
        self._failures += 1
        if self.circuit is Circuit.HALF_OPEN or final or self._failures >= FAILURES:
            self._open(now, reason)

    def healthy(self, now: float) -> None:
        """Note a health check that was answered."""
        self._unhealthy = 0
        if self.circuit is Circuit.NEW:
            self.circuit = Circuit.CLOSED
            self.reason = ""
        elif self.circuit is Circuit.OPEN and now >= self._open_until:
            self.circuit = Circuit.HALF_OPEN
            self._failures = 0

    def unhealthy(self, now: float, reason: str) -> None:
        """Note a health check that was not."""
        self._unhealthy += 1
        if self.circuit is Circuit.NEW or self.circuit is Circuit.HALF_OPEN or self._unhealthy >= FAILURES:
            self._open(now, reason)

    def _open(self, now: float, reason: str) -> None:
        if self.circuit is not Circuit.OPEN:
            self._open_until = now + self._pause
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        self.circuit = Circuit.OPEN
        self.reason = reason
        self._failures = 0
