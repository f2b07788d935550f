"""When a worker leaves so that a fresh process takes its slot: parsers and their libraries grow with what they read.

It leaves between two shards, with none in hand, and only if it is its turn: one worker of the fleet at a time, the
next one once the last one's replacement is ready. Where spares are planned it waits for a warm one, which takes its
slot over before it leaves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from loguru import logger

from docfleet.records import ProcessIdentity, WorkerReport, WorkerState
from docfleet.store.reuse import Recycling
from docfleet.worker.heart import Heart
from docfleet.worker.seat import Seat

#: Seconds between two requests for the turn.
_ASK_AGAIN = 1.0
#: A worker whose engines alone fill its share would be replaced after each document: it may grow by this factor.
_GROWTH = 1.25
#: Seconds that a worker that has to leave waits for a warm spare: its engines may never load.
_SPARE_PATIENCE = 120.0
#: Seconds for which a worker reads without what found too little memory when it was loaded. Whoever never has enough
#: pays for a new start each time.
SHORT_SECONDS = 900.0


@dataclass(frozen=True, kw_only=True)
class RecyclingLimits:
    """How long a worker may live. 0 is for ever."""

    documents: int = 0
    seconds: float = 0
    #: Resident memory in bytes, children included.
    rss: int = 0


class Shortage:
    """Whether an engine of this process did without a part of its models, for want of memory, and since when."""

    def __init__(self) -> None:
        """Begin with none."""
        self._since: float | None = None

    def note(self) -> None:
        """Call when an engine does."""
        self._since = time.monotonic()

    def due(self) -> bool:
        """Return whether a fresh process should try again now."""
        return self._since is not None and time.monotonic() - self._since >= SHORT_SECONDS


@dataclass(frozen=True)
class _Reason:
    #: For the counts: documents, hours, memory, weights.
    kind: str
    #: For people.
    told: str


class Recycler:
    """Tells one worker when to leave."""

    def __init__(
        self,
        limits: RecyclingLimits,
        turns: Recycling,
        heart: Heart,
        seat: Seat,
        *,
        owner: ProcessIdentity,
        arrived: Callable[[], bool] = lambda: False,
        short: Callable[[], bool] = lambda: False,
    ) -> None:
        """Make the recycler of a worker whose engines are loaded: its memory now is what it cannot do without.

        `arrived` tells that weights came after the engines were loaded, `short` that a part which found too little
        memory should be tried again (`Shortage`); both must cost microseconds.
        """
        self._arrived = arrived
        self._short = short
        self._limits = limits
        self._turns = turns
        self._heart = heart
        self._seat = seat
        self._owner = owner
        self._highest = max(limits.rss, int(heart.report.rss * _GROWTH)) if limits.rss else 0
        self._ask_at = 0.0
        self._due_since = 0.0

    def must_leave(self) -> bool:
        """Return whether the worker has to leave now, and if so say so. Ask between shards; costs microseconds."""
        reason = self._reason(self._heart.report)
        if reason is None or time.monotonic() < self._ask_at:
            return False
        self._ask_at = time.monotonic() + _ASK_AGAIN
        slot = self._heart.report.slot
        if self._waits_for_spare(slot) or not self._turns.may_recycle(self._owner, slot, reason.kind):
            return False
        logger.info("this worker is replaced: {}", reason.told)
        if not self._seat.hand_over(slot):
            self._heart.tell(WorkerState.RECYCLING, reason.told)
        return True

    def _waits_for_spare(self, slot: int) -> bool:
        now = time.monotonic()
        self._due_since = self._due_since or now
        patient = self._seat.spares > 0 and now - self._due_since < _SPARE_PATIENCE
        return patient and self._seat.warm_spare(slot) is None

    def _reason(self, report: WorkerReport) -> _Reason | None:
        limits, age = self._limits, time.time() - report.started_at
        if self._arrived():
            return _Reason("weights", "weights have come since it was loaded")
        if self._short():
            return _Reason("memory", "some models found too little memory when it was loaded; a new one tries again")
        if not report.documents_done:
            return None
        if limits.documents and report.documents_done >= limits.documents:
            return _Reason("documents", f"it has read {report.documents_done} documents")
        if limits.seconds and age >= limits.seconds:
            return _Reason("hours", f"it has run for {age / 3600:.1f} hours")
        if self._highest and report.rss > self._highest:
            return _Reason("memory", f"it holds {report.rss / 2**20:.0f} MB")
        return None
