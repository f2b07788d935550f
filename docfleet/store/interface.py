"""What the rest of the server asks of a store. One file per implementation; each must pass the contract tests.

Three roles, so that each process sees only what it needs: a worker holds `Claims` (`docfleet.store.claims`), the doors
hold `Jobs`, the supervisor holds `Leases`. Every method is one short transaction, safe under concurrent processes and
threads, and durable when it returns where the text says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from docfleet.options import ParseOptions
from docfleet.records import Document, Job, JobState, ProcessIdentity, Revocation, Shard, ShardPlan, WorkerReport
from docfleet.sharding.verdicts import Fault
from docfleet.store.admission import Backlog, JobFilter, JobProgress, QueuePlace, Terms
from docfleet.store.claims import Changes
from docfleet.store.tallies import Tallying


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Counts since the data folder was made (they outlive the jobs) and the work at hand."""

    completed: int = 0
    partial: int = 0
    failed: int = 0
    cancelled: int = 0
    #: Documents that were not taken because there was too much to do.
    refused: int = 0
    pages: int = 0
    #: Attempts that ended without a result and were tried again.
    retries: int = 0
    #: Jobs that were served with the result of another.
    cached: int = 0
    #: Workers that left to be replaced.
    recycled: int = 0
    queued_jobs: int = 0
    running_jobs: int = 0
    queued_pages: int = 0
    #: Accepted and not done.
    backlog_jobs: int = 0
    backlog_pages: int = 0
    #: Pages finished in the last 60 seconds, divided by 60.
    pages_per_second: float = 0.0


class Jobs(Changes, Protocol):
    """The doors' side."""

    def accept(
        self,
        job_id: str,
        document: Document,
        options: ParseOptions,
        shards: Sequence[ShardPlan],
        terms: Terms = ...,
        *,
        reuse_key: str | None = None,
        engines: Collection[str] = (),
    ) -> Job:
        """Enter a job and its shards. Durable when it returns: an accepted job survives a power cut.

        Bounds and key are checked in the same transaction: no two callers can both take the last place or a key.

        Args:
            job_id: fresh.
            document: as it lies on disk.
            options: as the caller gave them.
            shards: one whole shard, or page shards and one document shard over all of them.
            terms: lane, bounds, key; by default none of them.
            reuse_key: jobs of one key want the same result: while one of them is parsed, or where one of `engines`
                has made it, the others wait for it (`docfleet.store.reuse`). None: this one is on its own.
            engines: fingerprints of the workers whose stored results will do.

        Returns:
            The job; another than `job_id` where the key stands for one.

        Raises:
            InternalError: the shards are neither, or the id is taken.
            Busy: over the bounds; nothing was entered.
            KeyReused: the key was sent before with something else; nothing was entered.
            StorageFull: there is no room for the job.
            StorageUnavailable: the disk cannot be written now. After either it may be entered: `remove` it before its
                files go.
        """
        ...

    def job(self, job_id: str) -> Job | None:
        """Return the job, or None."""
        ...

    def states(self, job_ids: Iterable[str]) -> dict[str, JobState]:
        """Return the state of each job that exists, for many waiters at once."""
        ...

    def shards(self, job_id: str) -> list[Shard]:
        """Return a job's shards, in page order."""
        ...

    def totals(self) -> Totals:
        """Return counts for `/status`."""
        ...

    def workers(self) -> list[WorkerReport]:
        """Return the newest report of every slot, in order."""
        ...

    def remove(self, job_id: str) -> None:
        """Forget a job and its shards. Its files are the caller's."""
        ...

    def cancel(self, job_id: str, error: dict[str, Any], *, even_kept: bool = True) -> bool:
        """End an unfinished job with `error`, durably: its claims are invalid, late results are refused.

        Args:
            job_id: the job. Its files are the caller's.
            error: `DocfleetError.record()`.
            even_kept: False: its caller left. Only if nobody else was told of the job (`Terms.kept`, `keep`) or waits
                for its result; what was finished of it may then serve others, as it may not if it was stopped by name.
                Where somebody waits for it, it is `unwanted` as soon as nobody does.

        Returns:
            Whether the job was ended by this call.
        """
        ...

    def unwanted(self) -> list[str]:
        """Return unfinished jobs whose callers left before others who waited for their result, and these left, too."""
        ...

    def keep(self, job_id: str) -> None:
        """Let the job go on even if the caller who sent it leaves."""
        ...

    def backlog(self) -> Backlog:
        """Return the work that is accepted and not done. Costs the same however much that is."""
        ...

    def knows_key(self, key: str) -> bool:
        """Return whether an Idempotency-Key stands for a job."""
        ...

    def count_refused(self, number: int) -> None:
        """Count documents that were not taken because there was too much to do."""
        ...

    def listed(self, wanted: JobFilter, *, limit: int, before: int | None = None) -> tuple[list[Job], int | None]:
        """Return the newest jobs that fit, without their reports.

        Args:
            wanted: which.
            limit: how many at most.
            before: where the last list ended; None to begin.

        Returns:
            The jobs, and what to give as `before` for more; None at the end.
        """
        ...

    def progress(self, job_ids: Iterable[str]) -> dict[str, JobProgress]:
        """Return how far each job is that exists, for many listeners at once."""
        ...

    def place(self, job_id: str) -> QueuePlace:
        """Return where an unfinished job stands in the queue."""
        ...


class Leases(Jobs, Tallying, Protocol):
    """The supervisor's side."""

    def prove_writable(self) -> None:
        """Write something small and new, so that it takes what a heartbeat takes.

        Raises:
            StorageFull: there is no room for it, and none for heartbeats.
            StorageUnavailable: the disk cannot be written now.
            Busy: others held the store for too long.
        """
        ...

    def leases(self) -> list[Shard]:
        """Return every shard that a worker holds."""
        ...

    def give_back(
        self,
        shard: Shard,
        *,
        cause: dict[str, Any],
        max_attempts: int,
        delay: float = 0.0,
        fault: Fault = ...,
        remember: float = 0.0,
    ) -> bool:
        """End a lease whose holder is gone: queue the shard again, or after `max_attempts` halve it or fail.

        Args:
            shard: as `leases()` returned it; nothing happens if its lease has changed hands since.
            cause: `DocfleetError.record()` of what happened; the job's error if it fails.
            max_attempts: attempts at one page; a shard of several is halved then, and a page alone is given up.
            delay: seconds that the next attempt waits.
            fault: whose doing it is; its process's by default. Nobody's does not count as an attempt.
            remember: seconds for which the document is remembered for it (`docfleet.store.poison`); 0: not at all.

        Returns:
            Whether the lease was ended by this call.
        """
        ...

    def retire(self, slot: int, identity: ProcessIdentity, detail: str) -> None:
        """Mark the slot's worker as gone, so that another may take the slot, unless a newer process has it already.

        One that was not ready yet counts as a crash: the slot is `failed`, and not tried before `retry_at`.
        """
        ...

    def finished_before(self, moment: float, limit: int) -> list[str]:
        """Return ids of jobs that ended before `moment`, oldest first."""
        ...

    def known(self, job_ids: Iterable[str]) -> set[str]:
        """Return those of the ids that exist: folders of the others are left over from a crash."""
        ...

    def revoked(self) -> list[Revocation]:
        """Return leases that were taken from workers which may still be at work."""
        ...

    def forget_revoked(self, shard_id: int) -> None:
        """Forget a lease that nobody works on any more."""
        ...
