"""Which slot of the plan a worker process serves: it looks for one at its start, or is there for the next that is free.

LitServe starts processes by number; slots are taken. A process that finds every slot taken becomes a spare: it loads
its engines and waits until a slot is free, or until a worker that leaves hands its own over. So a slot whose process
was killed, or is replaced, is served again at once, and not when a fresh process has loaded its engines.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from loguru import logger

from docfleet.errors import DocfleetError
from docfleet.process.groups import kill_group
from docfleet.process.identity import is_alive
from docfleet.records import ProcessIdentity, WorkerReport, WorkerSlot, WorkerState
from docfleet.store.slots import Slots
from docfleet.worker.heart import Heart

#: Seconds between two looks of a process without a slot to serve. A look that finds nothing new takes no lock.
_LOOK_INTERVAL = 0.1
#: The same for one that is not loaded, and will not serve at once anyway.
_ENTER_INTERVAL = 0.25
#: Seconds after which the others' processes are looked at even if nobody seems to have written.
_LOOK_ANYWAY = 0.5
#: Seconds of silence after which a spare is not counted on.
_SILENCE = 30.0
#: States of a slot that will not be served sooner for waiting any longer.
_SETTLED = (WorkerState.READY, WorkerState.BUSY, WorkerState.RESTING, WorkerState.FAILED)

_Rows = Mapping[int, WorkerReport]


class Seat:
    """One process's way to a slot."""

    def __init__(
        self, store: Slots, slots: Sequence[WorkerSlot], spares: Sequence[WorkerSlot], owner: ProcessIdentity
    ) -> None:
        """Look for a slot among the plan's `slots`, or else among `spares`, which are numbered from there on."""
        self._store = store
        self._slots = slots
        self._spares = spares
        self._owner = owner
        self._looked_at = 0.0

    def enter(self, number: int) -> WorkerReport:
        """Take a slot, and wait for one if there is none. Call before anything heavy is imported.

        Args:
            number: of this process, among LitServe's; where several slots are free, the one of this number is tried
                first.

        Returns:
            What this process said of itself in that slot.
        """
        choices = sorted(self._slots, key=lambda slot: slot.index != number)
        while True:
            with _tried_again():
                rows = self._rows()
                for slot in (*choices, *self._spares):
                    taken = None if self._awaited(slot, rows) else self._take(slot, rows)
                    if taken is not None:
                        return taken
            time.sleep(_ENTER_INTERVAL)

    def slot(self, index: int) -> WorkerSlot:
        """Return the slot of that number."""
        return next(slot for slot in (*self._slots, *self._spares) if slot.index == index)

    def serves(self, heart: Heart) -> bool:
        """Return whether this process has a slot of the plan, where there is work."""
        return any(slot.index == heart.report.slot for slot in self._slots)

    def before_loading(self, heart: Heart) -> None:
        """Let the workers of the plan be ready first, if this is a spare: it must not take their time."""
        while not self.serves(heart):
            rows = self._rows()
            if all(slot.index in rows and rows[slot.index].state in _SETTLED for slot in self._slots):
                return
            # One that is not served, and not waited for by a loaded spare, is served sooner by this process.
            if not any(self._awaited(slot, rows) for slot in self._slots):
                self._move_to_free(heart, rows, even_blocked=False)
            time.sleep(_LOOK_INTERVAL)

    def await_slot(self, heart: Heart) -> None:
        """Wait, with the engines loaded, until this process has a slot of the plan."""
        if self.serves(heart):
            return
        while not self.serves(heart):
            with _tried_again():
                if self._anything_new():
                    self._look_for_slot(heart)
            if not self.serves(heart):
                time.sleep(_LOOK_INTERVAL)
        logger.info("this spare worker serves slot {} now", heart.report.slot)

    def _look_for_slot(self, heart: Heart) -> None:
        rows = self._rows()
        handed = next((slot for slot in self._slots if self._holds(rows.get(slot.index))), None)
        if handed is not None:
            heart.move(handed.index)
        else:
            self._move_to_free(heart, rows, even_blocked=True)

    def warm_spare(self, index: int) -> WorkerReport | None:
        """Return a spare process that could serve slot `index` at once, or None."""
        return next(iter(self._warm(self.slot(index), self._rows())), None)

    @property
    def spares(self) -> int:
        """How many spare processes there should be."""
        return len(self._spares)

    def hand_over(self, index: int) -> bool:
        """Let a warm spare serve slot `index`, which this process serves. False: there is none (any more)."""
        spare = self.warm_spare(index)
        return spare is not None and self._store.hand_over(index, self._owner, spare)

    def _rows(self) -> _Rows:
        self._looked_at = time.monotonic()
        return {report.slot: report for report in self._store.workers()}

    def _anything_new(self) -> bool:
        return self._store.changed() or time.monotonic() - self._looked_at > _LOOK_ANYWAY

    def _holds(self, row: WorkerReport | None) -> bool:
        return row is not None and row.identity == self._owner and not row.ended

    def _warm(self, slot: WorkerSlot, rows: _Rows) -> Iterable[WorkerReport]:
        """Return the spares that could serve the slot: an environment cannot be changed any more once it is used."""
        for spare in self._spares:
            row = rows.get(spare.index)
            if row is None or row.state is not WorkerState.SPARE or spare.environment != slot.environment:
                continue
            # One that was stopped is not waited for. abs: a clock that was set back must not make it look so.
            if is_alive(row.identity) and abs(time.time() - row.heartbeat_at) < _SILENCE:
                yield row

    def _awaited(self, slot: WorkerSlot, rows: _Rows) -> bool:
        """Return whether a loaded spare is about to take the slot: it serves sooner than whoever must still load."""
        return slot in self._slots and any(self._warm(slot, rows))

    def _take(self, slot: WorkerSlot, rows: _Rows) -> WorkerReport | None:
        if not self._free(rows.get(slot.index), even_blocked=False):
            return None
        report = WorkerReport(
            slot=slot.index,
            identity=self._owner,
            device=slot.device,
            state=WorkerState.STARTING,
            started_at=time.time(),
        )
        return report if self._store.announce(report) else None

    def _move_to_free(self, heart: Heart, rows: _Rows, *, even_blocked: bool) -> None:
        own = self.slot(heart.report.slot)
        for slot in self._slots:
            if slot.environment == own.environment and self._free(rows.get(slot.index), even_blocked=even_blocked):
                report = replace(heart.report, slot=slot.index, device=slot.device)
                if even_blocked:
                    report = replace(report, state=WorkerState.READY, detail="")
                if self._store.take_over(own.index, report):
                    heart.move(slot.index)
                    return

    def _free(self, row: WorkerReport | None, *, even_blocked: bool) -> bool:
        """Return whether nobody is in the slot; one who died there is retired, and what it started is ended."""
        if row is None:
            return True
        if not row.ended:
            if is_alive(row.identity):
                return False
            kill_group(row.identity.pid)
            self._store.retire(row.slot, row.identity, "the process ended; another takes its place")
            # As the store has it now: the death may have been one at the start, which is not tried again at once.
            row = self._rows().get(row.slot, row)
        return even_blocked or row.retry_at <= time.time()


@contextmanager
def _tried_again() -> Iterator[None]:
    """Log that the store could not be used (a full disk); who ended for it would be started again at once."""
    try:
        yield
    except DocfleetError as exc:
        logger.warning("looking for a slot failed and is tried again: {}", exc.message)
        time.sleep(1.0)
