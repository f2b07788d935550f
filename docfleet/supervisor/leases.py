"""Return the leases of workers that died or fell silent, and end what they left running."""

from __future__ import annotations

from loguru import logger

from docfleet.errors import DocfleetError
from docfleet.files import DataFolder, remove_tree
from docfleet.process.groups import kill_group_of
from docfleet.process.identity import is_alive
from docfleet.records import Shard, WorkerReport, WorkerState
from docfleet.sharding.deadlines import retry_delay
from docfleet.sharding.verdicts import Fault
from docfleet.store.interface import Leases
from docfleet.store.tallies import Event
from docfleet.supervisor.attention import Attention
from docfleet.supervisor.blame import Blame
from docfleet.supervisor.limits import Limits
from docfleet.supervisor.lives import KEY, Loss, losses
from docfleet.supervisor.tidying import tidy_ended


class LeaseKeeper:
    """One look at every lease and every worker."""

    def __init__(
        self, store: Leases, folder: DataFolder, limits: Limits, blame: Blame, *, killed: bool = False
    ) -> None:
        """Make it; `killed` says whether the last server on this folder was killed, not stopped."""
        self._store = store
        self._blame = blame
        self._folder = folder
        self._limits = limits
        self._attention = Attention(limits.stale_seconds)
        self._killed = killed
        #: What was lost with the last server, once that was looked at: all of it is judged together.
        self._losses: dict[int, Loss] | None = None

    def look(self) -> int:
        """Return the number of leases that were ended.

        Raises:
            DocfleetError: the store cannot be written. Workers cannot tell that they live then: none is judged by it.
        """
        leases = self._store.leases()
        if not leases and not self._gone():
            return 0
        try:
            self._store.prove_writable()
        except DocfleetError:
            self._attention.blind()
            self._end_the_largest(leases)
            raise
        self._attention.look((shard, self._limits.deadline(shard)) for shard in leases)
        dead = [shard for shard in leases if shard.owner is not None and not is_alive(shard.owner)]
        for shard in dead:
            assert shard.owner is not None
            self._blame.died(shard.owner, shard)
        if self._losses is None:
            lost = [shard for shard in dead if self._blame.lost_with_the_last_server(shard)]
            self._losses = losses(lost, killed=self._killed)
        ended = sum(self._check(shard) for shard in leases)
        # Asked again: those whose leases were ended are retired.
        for worker in self._gone():
            self._bury(worker)
        return ended

    def _gone(self) -> list[WorkerReport]:
        return [worker for worker in self._store.workers() if not worker.ended and not is_alive(worker.identity)]

    def _end_the_largest(self, leases: list[Shard]) -> None:
        """Kill whoever takes too much memory: the machine cannot wait until that can be recorded."""
        for shard in leases:
            if shard.owner is not None and is_alive(shard.owner) and self._limits.too_large(shard, shard.owner):
                kill_group_of(shard.owner)

    def _check(self, shard: Shard) -> bool:
        owner = shard.owner
        if owner is None:
            return False
        alive = is_alive(owner)
        broken = self._limits.broken(shard, owner, self._attention) if alive else None
        if alive and broken is None:
            return False
        loss = self._loss_of(shard, alive=alive)
        cause = self._limits.lost(shard, loss.lives) if broken is None else broken.cause
        # Its children first of all: they would go on burning the device that the next attempt needs.
        kill_group_of(owner)
        if shard.worker_index is not None:
            # At once, for whoever waits to take the slot.
            self._store.retire(shard.worker_index, owner, "the process ended; another takes its place")
        ended = self._store.give_back(
            shard,
            cause=cause.record() | ({KEY: loss.lives} if loss.lives else {}),
            max_attempts=self._limits.max_attempts,
            delay=retry_delay(shard.attempt) + loss.wait,
            fault=loss.fault,
            # One that died of something else says nothing about what it read.
            remember=self._limits.remember_seconds if loss.fault is Fault.PROCESS else 0.0,
        )
        if ended:
            remove_tree(self._folder.part(shard.job_id, shard.id, shard.attempt))
            if not shard.stage.is_part:
                remove_tree(self._folder.result(shard.job_id, shard.attempt))
            tidy_ended(self._folder, self._store, shard.job_id)
            excused = " This is not held against the document." if loss.fault is Fault.NOBODY else ""
            logger.warning("job {} worker {}: {}{}", shard.job_id, owner.pid, cause.message, excused)
        if broken is not None:
            # Last: no trouble with counting may keep anything from being put in order.
            self._store.count_event(Event.WORKER_KILL, broken.limit)
        return ended

    def _loss_of(self, shard: Shard, *, alive: bool) -> Loss:
        if alive:
            return Loss(Fault.PROCESS, 0)
        if self._losses is not None and shard.id in self._losses and self._blame.lost_with_the_last_server(shard):
            return self._losses[shard.id]
        return Loss(self._blame.of(shard), 0)

    def _bury(self, worker: WorkerReport) -> None:
        if worker.state in (WorkerState.READY, WorkerState.RESTING):
            self._blame.died(worker.identity, None)
        kill_group_of(worker.identity)
        self._store.retire(worker.slot, worker.identity, "the process ended; another takes its place")
