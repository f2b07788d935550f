"""Return the leases of workers that died or fell silent, and end what they left running."""

from __future__ import annotations

import time

from loguru import logger

from docfleet.files import DataFolder, remove_tree
from docfleet.process.groups import kill_group
from docfleet.process.identity import is_alive
from docfleet.records import Shard, Stage, WorkerReport
from docfleet.sharding.deadlines import retry_delay
from docfleet.store.interface import Leases
from docfleet.supervisor.limits import Limits
from docfleet.supervisor.tidying import tidy_ended


class LeaseKeeper:
    """One look at every lease and every worker."""

    def __init__(self, store: Leases, folder: DataFolder, limits: Limits) -> None:
        self._store = store
        self._folder = folder
        self._limits = limits
        self._since = time.time()

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
        cause = self._limits.lost(shard) if not is_alive(owner) else self._limits.broken(shard, owner)
        if cause is None:
            return False
        # Its children first of all: they would go on burning the device that the next attempt needs.
        kill_group(owner.pid)
        if shard.worker_index is not None:
            # At once, for whoever waits to take the slot.
            self._store.retire(shard.worker_index, owner, "the process ended; another takes its place")
        ended = self._store.give_back(
            shard,
            cause=cause.record(),
            max_attempts=self._limits.max_attempts,
            delay=retry_delay(shard.attempt),
            # Workers of the last run died with the server, not of what they read.
            remember=self._limits.remember_seconds if (shard.claimed_at or 0) >= self._since else 0.0,
        )
        if ended:
            remove_tree(self._folder.part(shard.job_id, shard.id, shard.attempt))
            if shard.stage in (Stage.DOCUMENT, Stage.WHOLE):
                remove_tree(self._folder.result(shard.job_id, shard.attempt))
            tidy_ended(self._folder, self._store, shard.job_id)
            logger.warning("job {} worker {}: {}", shard.job_id, owner.pid, cause.message)
        return ended

    def _check_worker(self, worker: WorkerReport) -> None:
        if worker.ended or is_alive(worker.identity):
            return
        kill_group(worker.identity.pid)
        self._store.retire(worker.slot, worker.identity, "the process ended; another takes its place")
