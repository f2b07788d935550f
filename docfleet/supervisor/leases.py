"""Return the leases of workers that died or fell silent, and end what they left running."""

from __future__ import annotations

import time

from loguru import logger

from docfleet.errors import WorkerLost
from docfleet.files import DataFolder, remove_tree
from docfleet.process.groups import kill_group
from docfleet.process.identity import is_alive
from docfleet.records import ProcessIdentity, Shard, WorkerReport, WorkerState
from docfleet.store.interface import Leases
from docfleet.supervisor.tidying import tidy_ended


class LeaseKeeper:
    """One look at every lease and every worker."""

    def __init__(self, store: Leases, folder: DataFolder, *, max_attempts: int, stale_seconds: float) -> None:
        self._store = store
        self._folder = folder
        self._max_attempts = max_attempts
        self._stale_seconds = stale_seconds

    def look(self) -> int:
        """Return the number of leases that were ended."""
        ended = sum(self._check(shard) for shard in self._store.leases())
        for worker in self._store.workers():
            self._check_worker(worker)
        return ended

    def _check(self, shard: Shard) -> bool:
        owner = shard.owner
        if owner is None:
            return False
        if not is_alive(owner):
            reason = "died"
        elif self._silent_for(shard) > self._stale_seconds:
            reason = f"was silent for {self._silent_for(shard):.0f} s and was killed"
        else:
            return False
        # Its children first of all: they would go on burning the device that the next attempt needs.
        kill_group(owner.pid)
        cause = WorkerLost(
            f"The worker {reason} while it read pages {shard.first_page}-{shard.last_page}, "
            f"attempt {shard.attempt} of {self._max_attempts}. If it happens again, the document is likely the cause."
        )
        ended = self._store.give_back(shard, cause=cause.record(), max_attempts=self._max_attempts)
        if ended:
            remove_tree(self._folder.part(shard.job_id, shard.id, shard.attempt))
            remove_tree(self._folder.result(shard.job_id, shard.attempt))
            tidy_ended(self._folder, self._store, shard.job_id)
            logger.warning("job {} attempt {}: worker {} {}", shard.job_id, shard.attempt, owner.pid, reason)
        return ended

    def _silent_for(self, shard: Shard) -> float:
        return time.time() - (shard.heartbeat_at or shard.claimed_at or time.time())

    def _check_worker(self, worker: WorkerReport) -> None:
        if worker.state is WorkerState.GONE or is_alive(worker.identity):
            return
        self._bury(worker.slot, worker.identity)

    def _bury(self, slot: int, identity: ProcessIdentity) -> None:
        kill_group(identity.pid)
        self._store.retire(slot, identity, "the process ended; another is started in its place")
