"""Which process serves which slot: what is asked of a store where slots change hands.

The plan has slots 0, 1, ...; one process serves a slot at a time. Spare processes have slots beyond the plan, where no
work is given out. A process enters a free slot with `Claims.announce`; nobody is put out of a slot while it lives.
"""

from __future__ import annotations

from typing import Protocol

from docfleet.records import ProcessIdentity, WorkerReport
from docfleet.store.claims import Claims

#: Seconds before a slot is tried again whose process died before it was ready: doubled with each death, bounded.
_FIRST_DELAY = 1.0
_LONGEST_DELAY = 300.0


class Slots(Claims, Protocol):
    """The side of a process that looks for a slot. Each method is one transaction."""

    def workers(self) -> list[WorkerReport]:
        """Return the newest report of every slot, in order."""
        ...

    def retire(self, slot: int, identity: ProcessIdentity, detail: str) -> None:
        """Mark the slot's worker as gone, unless a newer process has taken the slot."""
        ...

    def take_over(self, spare: int, report: WorkerReport) -> bool:
        """Move the process of `report` from slot `spare` to the free slot `report.slot`.

        Returns:
            False: the slot is not free (any more), or the process was moved already; nothing was changed.
        """
        ...

    def hand_over(self, slot: int, owner: ProcessIdentity, spare: WorkerReport) -> bool:
        """Exchange the places of a worker that leaves and a spare one: `spare` is ready in `slot` from now on.

        Returns:
            False: one of them is not where it was; nothing was changed.
        """
        ...

    def record_exit(self, pid: int, status: int) -> None:
        """Record how the process ended that has a slot, for people to see. Negative: by that signal.

        Call it once for each end: it is counted, whether or not the process had a slot.
        """
        ...

    def forgive(self) -> None:
        """Forget what went wrong at the start of workers: a new run of the server begins."""
        ...


def start_delay(crashes: int) -> float:
    """Return the seconds before the next try in a slot where so many processes in a row died before they were ready."""
    return float(min(_FIRST_DELAY * 2 ** min(crashes - 1, 10), _LONGEST_DELAY))
