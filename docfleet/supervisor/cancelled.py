"""See to it that workers let go of what was taken from them, and remove the files of cancelled jobs."""

from __future__ import annotations

import time

from loguru import logger

from docfleet.files import DataFolder, remove_tree
from docfleet.process.groups import kill_group_of
from docfleet.process.identity import is_alive
from docfleet.records import Revocation
from docfleet.store.interface import Leases
from docfleet.store.tallies import Event

#: Seconds that a worker has to let go. It learns of it within half a second, but only stops between pages.
PATIENCE = 1.25


class Revoker:
    """One look at every lease that was taken from a worker."""

    def __init__(self, store: Leases, folder: DataFolder, *, patience: float = PATIENCE) -> None:
        self._store = store
        self._folder = folder
        self._patience = patience

    def look(self) -> int:
        """Return the number of workers that were killed."""
        over = [(one, killed) for one in self._store.revoked() if (killed := self._ended(one)) is not None]
        # Only now: removing many files may take a while, and nobody who is to be killed waits for that.
        for one, killed in over:
            self._put_in_order(one, killed=killed)
        return sum(killed for _, killed in over)

    def _ended(self, one: Revocation) -> bool | None:
        """Return whether the worker had to be killed for it; None while it still has time to let go."""
        if one.let_go or not is_alive(one.owner):
            return False
        # abs: a clock that was set back must not make this wait for hours.
        if abs(time.time() - one.since) < self._patience:
            return None
        kill_group_of(one.owner)
        return True

    def _put_in_order(self, one: Revocation, *, killed: bool) -> None:
        if killed:
            self._store.retire(one.slot, one.owner, "killed in the middle of a page of a cancelled job")
            logger.info("job {} was cancelled: worker {} was killed in mid-page", one.job_id, one.owner.pid)
        job = self._store.job(one.job_id)
        if job is None or job.output is None:
            # Again: the worker may have written since the job was cancelled.
            remove_tree(self._folder.job(one.job_id))
        self._store.forget_revoked(one.shard_id)
        if killed:
            self._store.count_event(Event.WORKER_KILL, "cancelled")
