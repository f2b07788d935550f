"""Which process serves which slot, on SQLite."""

from __future__ import annotations

import signal
from contextlib import suppress

from docfleet.records import ProcessIdentity, WorkerReport, WorkerState
from docfleet.store.slots import start_delay
from docfleet.store.sqlite.connection import Database, first
from docfleet.store.sqlite.rows import text, worker_values
from docfleet.store.sqlite.statements import sql
from docfleet.store.sqlite.tallies import count_event
from docfleet.store.tallies import Event

#: States before a worker is ready.
_BEGINNING = (WorkerState.STARTING, WorkerState.LOADING)


class SqliteSlots(Database):
    """Implements `docfleet.store.slots`, and what `Claims` and `Leases` ask of workers.

    Nothing here is forced to the disk: after a power cut no process is left.
    """

    def announce(self, report: WorkerReport) -> bool:
        """Take the slot if it is free, and record what its worker is doing. False: it is another's."""
        with self._writing(durable=False) as connection:
            return first(connection, "announce", **worker_values(report, self._clock())) is not None

    def retire(self, slot: int, identity: ProcessIdentity, detail: str) -> None:
        """Mark the slot's worker as gone; one that was not ready yet is `failed` and tried again later."""
        values: dict[str, object] = {"slot": slot, "pid": identity.pid, "started": identity.started}
        with self._writing(durable=False) as connection:
            row = first(connection, "held_slot", **values)
            if row is None:
                return
            state, crashes, retry_at = WorkerState.GONE, row["crashes"], 0.0
            if row["state"] in _BEGINNING:
                crashes += 1
                delay = start_delay(crashes)
                state, retry_at = WorkerState.FAILED, self._clock() + delay
                times = "" if crashes == 1 else f" ({crashes} times in a row)"
                detail = f"the process died before its engines were loaded{times}; next try after {delay:.0f} s"
            values |= {"state": state.value, "detail": text(detail), "crashes": crashes, "retry_at": retry_at}
            connection.execute(sql("retire"), values)

    def take_over(self, spare: int, report: WorkerReport) -> bool:
        """Move a process from its spare slot to a free one, all or nothing."""
        place = {"slot": spare, "pid": report.identity.pid, "started": report.identity.started}
        with self._writing(durable=False) as connection:
            if first(connection, "held_slot", **place) is None:
                return False
            if first(connection, "announce", **worker_values(report, self._clock())) is None:
                return False
            connection.execute(sql("free_slot"), place)
        return True

    def hand_over(self, slot: int, owner: ProcessIdentity, spare: WorkerReport) -> bool:
        """Exchange the places of a worker that leaves and of a spare one, all or nothing."""
        with self._writing(durable=False) as connection:
            leaving = first(connection, "held_slot", slot=slot, pid=owner.pid, started=owner.started)
            identity = spare.identity
            coming = first(connection, "held_slot", slot=spare.slot, pid=identity.pid, started=identity.started)
            if leaving is None or coming is None or coming["state"] != WorkerState.SPARE:
                return False
            came = {"state": WorkerState.READY.value, "detail": "", "started_at": self._clock()}
            connection.execute(sql("seat"), dict(coming) | came | {"slot": slot})
            went = {"state": WorkerState.RECYCLING.value, "detail": "its slot was taken over", "slot": spare.slot}
            connection.execute(sql("seat"), dict(leaving) | went)
        return True

    def record_exit(self, pid: int, status: int) -> None:
        """Record how the process ended that has a slot, and count it."""
        with self._writing(durable=False) as connection:
            connection.execute(sql("record_exit"), {"pid": pid, "status": status})
            count_event(connection, Event.WORKER_EXIT, _kind_of_exit(status))

    def forgive(self) -> None:
        """Forget what went wrong at the start of workers."""
        with self._writing(durable=False) as connection:
            connection.execute(sql("forgive"), {})


def _kind_of_exit(status: int) -> str:
    if status >= 0:
        return f"status_{status}"
    with suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal_{-status}"
