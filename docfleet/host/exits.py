"""How a worker process ended is known to its parent alone: it is told to the store, for `/status` and the log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path

from loguru import logger

from docfleet.process.identity import is_alive
from docfleet.records import ProcessIdentity, WorkerReport, WorkerSlot, WorkerState
from docfleet.store.sqlite import SqliteStore, open_store

#: A process that never told when it began; no living one began then.
_NEVER = 0


class Exits:
    """Tells the store of ends, and says how soon another process may be started. For one thread."""

    def __init__(self, database: Path, slots: Sequence[WorkerSlot]) -> None:
        """Tell of processes that serve these slots, those of spares among them."""
        self._database = database
        self._slots = slots
        self._told: dict[int, int] = {}
        self._not_before: dict[int, float] = {}

    def may_start(self, number: int, process: BaseProcess, *, loaded: bool) -> bool:
        """Return whether another process may be started now in the place of one that ended. Never raises.

        One that could not even take a slot (its interpreter or a library fails as it is loaded) would be started again
        at once, for ever. A slot stands for it then: `failed`, tried later each time, like one that dies as it loads.

        Args:
            number: of the place, among LitServe's.
            process: that ended there.
            loaded: its engines were loaded; such a one had a slot, whoever has it now.
        """
        if process.pid is None or process.exitcode is None:
            return True
        if self._told.get(number) != process.pid:
            self._told[number] = process.pid
            self._not_before[number] = 0.0
            logger.debug("worker process {} ended with {}", process.pid, process.exitcode)
            with logger.catch(message="the end of a worker could not be recorded"):
                self._not_before[number] = time.monotonic() + self._tell(
                    number, process.pid, process.exitcode, loaded=loaded
                )
        return time.monotonic() >= self._not_before[number]

    def _tell(self, number: int, pid: int, status: int, *, loaded: bool) -> float:
        """Record the end. Return the seconds until the next try."""
        with closing(open_store(self._database)) as store:
            seated = loaded or any(worker.identity.pid == pid for worker in store.workers())
            blamed = None if seated else self._blamed_slot(store, number, pid)
            # Once for each end, for it is counted there; after a slot stands for it, for that slot's words.
            store.record_exit(pid, status)
            if blamed is None:
                return 0.0
            row = next(row for row in store.workers() if row.slot == blamed)
            logger.warning("a worker process ended ({}) before it could take a slot: {}", status, row.detail)
            return max(0.0, row.retry_at - time.time())

    def _blamed_slot(self, store: SqliteStore, number: int, pid: int) -> int | None:
        """Put the process that ended into a free slot. None: every slot is served, whoever would come is not needed."""
        identity = ProcessIdentity(pid=pid, started=_NEVER)
        for slot in sorted(self._slots, key=lambda slot: slot.index != number):
            report = WorkerReport(
                slot=slot.index,
                identity=identity,
                device=slot.device,
                state=WorkerState.STARTING,
                started_at=time.time(),
            )
            if store.announce(report):
                store.retire(slot.index, identity, "")
                return slot.index
        return None


def begin_run(database: Path) -> None:
    """Free the slots of the last run's workers: a slot that could not be served then is tried at once now."""
    with closing(open_store(database)) as store:
        for worker in store.workers():
            if not worker.ended and not is_alive(worker.identity):
                store.retire(worker.slot, worker.identity, "the server was started again")
        store.forgive()
