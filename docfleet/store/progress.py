"""How far the server is: one picture out of the store's counts, for `/status`, the log and `/metrics`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from docfleet.store.admission import Backlog
from docfleet.store.interface import Totals
from docfleet.store.tallies import DeviceTally, Tallies


class Counting(Protocol):
    """What is asked of a store."""

    def totals(self) -> Totals:
        """Return the documents that ended, and how many wait."""
        ...

    def backlog(self) -> Backlog:
        """Return the work that is accepted and not done, and the measured speed."""
        ...

    def tallies(self) -> Tallies:
        """Return what was done where."""
        ...


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Since the data folder was made, and what is left."""

    #: Documents delivered, in whole or in part, stored results included.
    documents_done: int
    documents_failed: int
    documents_waiting: int
    documents_running: int
    #: Pages that workers have read, of pieces under way, too: the three numbers of pages are always all pages together.
    pages_done: int
    #: Pages that were given up.
    pages_failed: int
    pages_waiting: int
    #: Over the last minute, or the part of it in which there was work.
    pages_per_second: float
    #: Until all that waits is done; None where no speed was measured.
    seconds_left: float | None
    devices: tuple[DeviceTally, ...]

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.documents_waiting and not self.documents_running


def read_progress(store: Counting) -> Progress:
    """Read it. Three short reads of the store; what happens between them makes the picture uneven by a page."""
    return progress_of(store.totals(), store.backlog(), store.tallies())


def progress_of(totals: Totals, backlog: Backlog, tallies: Tallies) -> Progress:
    """Put it together."""
    idle = not totals.queued_jobs and not totals.running_jobs
    return Progress(
        documents_done=totals.completed + totals.partial,
        documents_failed=totals.failed,
        documents_waiting=totals.queued_jobs,
        documents_running=totals.running_jobs,
        pages_done=sum(one.pages_done + one.pages_under_way for one in tallies.devices),
        pages_failed=sum(one.pages_failed for one in tallies.devices),
        pages_waiting=backlog.pages,
        pages_per_second=backlog.pages_per_second,
        seconds_left=0.0 if idle else backlog.seconds_for(backlog.pages),
        devices=tallies.devices,
    )
