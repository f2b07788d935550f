"""What a worker asks of a store: the one interface that a driver of remote workers, or another database, implements.

Every method is one short transaction, safe under concurrent processes and threads, and durable when it returns where
the text says so. `docs/workers.md` tells the life of a claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from docfleet.records import Claim, ProcessIdentity, ShardPlan, WorkerReport
from docfleet.sharding.verdicts import Fault, Verdict


class Changes(Protocol):
    """A cheap way to learn that somebody wrote."""

    def changed(self) -> bool:
        """Return whether any process committed since the last call on this object. Takes no lock.

        This object's own commits count too, and the first call says True. One answer a commit: whoever waits for
        changes should be the only caller on its object.
        """
        ...


class Claims(Changes, Protocol):
    """The worker's side. A driver of remote workers or another database implements this."""

    def announce(self, report: WorkerReport) -> bool:
        """Take `report.slot` if it is free, and record what its worker is doing. A `heartbeat_at` of 0 means now.

        Returns:
            False: another process has the slot, and was not retired; nothing was recorded.
        """
        ...

    def claim(self, owner: ProcessIdentity, slot: int, *, short_first: bool = False) -> Claim | None:
        """Take the next shard, or None. The shard belongs to `owner` until it ends or the lease is returned.

        The interactive lane first, though every fifth claim is the batch lane's if it has any. Within a lane callers
        take turns (`docfleet.sharding.fairness`), and within a caller documents (`docfleet.sharding.cutting.turns`);
        among equals the oldest job first, then page order. A document stage comes only when all page shards of its job
        have ended. A shard that failed waits for its delay, and then goes to another slot than before if one takes it.
        Of pieces that cannot be cut and take `LONG_SECONDS` or more, one fewer runs at a time than there are workers,
        if there are several. While as many shards are held as may be (`docfleet.store.pressure`) there is none. Asking
        in vain takes no write lock. With `short_first` a shard of a short document (`SHORT_PAGES`) is taken before all
        others, if there is one. What a worker with this one's fingerprint passed on is left to others, as long as there
        are any.
        """
        ...

    def serving(self) -> int:
        """Return the number of workers that can take shards, busy ones included."""
        ...

    def limit(self, claim: Claim, seconds: float) -> bool:
        """Say how long from now the shard may take; the supervisor kills its worker then. False: the lease is lost."""
        ...

    def split(
        self, claim: Claim, shards: Sequence[ShardPlan], decisions: dict[str, Any], *, reader: str | None = None
    ) -> bool:
        """Replace a held whole shard by page shards and one document shard, all or nothing; this ends the lease.

        Args:
            claim: of a whole shard.
            shards: over the same pages, the document stage among them.
            decisions: JSON; every later claim of this job carries it.
            reader: "engine/tier" that reads all of them, as well in every later claim; a stored result counts as made
                by this worker then. None: whoever claims them decides.

        Returns:
            False if the lease was lost: nothing was changed.
        """
        ...

    def keep_whole(self, claim: Claim, seconds: float) -> bool:
        """Say that a held whole shard is not cut, and how long it will take.

        Args:
            claim: of a whole shard of which nothing was read yet.
            seconds: expected, on this worker.

        Returns:
            False: do not read it. As many long ones as may are being read, so it waits in the queue again, and this
            attempt does not count; or the lease was lost.
        """
        ...

    def pass_on(self, claim: Claim, error: dict[str, Any]) -> bool:
        """Queue a held shard again, at once, that this worker's engines cannot read: others may; this ends the lease.

        The attempt does not count. Workers with the fingerprint of one that passed it on leave it alone while there is
        a worker with another one that serves, or rests. Of a document that was cut, one whose process is starting, or
        ended a moment ago, counts as well.

        Args:
            claim: the lease.
            error: `DocfleetError.record()`, for people to see.

        Returns:
            False: there is no such worker, or the lease was lost; nothing was changed.
        """
        ...

    def stumble(
        self, claim: Claim, error: dict[str, Any], *, max_attempts: int, delay: float = 0.0, fault: Fault = ...
    ) -> Verdict | None:
        """End an attempt without a result; what comes next is decided by `docfleet.sharding.verdicts`.

        Args:
            claim: the lease.
            error: `DocfleetError.record()`; the page's cause or the job's error in the end.
            max_attempts: attempts at one page.
            delay: seconds that the next attempt waits.
            fault: whose doing it is; the engine's by default. Nobody's does not count as an attempt.

        Returns:
            The verdict, or None if the lease was lost.
        """
        ...

    def beat(self, claim: Claim, pages_done: int) -> bool:
        """Extend the lease and record progress. False: the lease is lost; stop and leave the result alone."""
        ...

    def complete(self, claim: Claim, *, output: str, report: dict[str, Any]) -> bool:
        """Deliver a shard, durably. The job ends with its last shard, as `partial` if `report["failed_pages"]`.

        May be called again with the same, also after an error: what is recorded is forced to the disk and counts once.

        Args:
            claim: the lease.
            output: folder of the result, relative to the data folder.
            report: what the doors show of the result, JSON.

        Returns:
            False if the lease was lost to another: nothing was recorded and the caller removes its output.

        Raises:
            Busy, StorageFull, StorageUnavailable: it may be recorded or not. Call again before the output is removed.
        """
        ...

    def short_waits(self, claim: Claim, pages_done: int) -> bool:
        """Return whether a page shard's holder should make room for a short document (`docfleet.sharding.fairness`).

        Args:
            claim: of a page shard.
            pages_done: pages of it that were read.
        """
        ...

    def give_way(self, claim: Claim, pages: int, *, output: str, tier: str = "") -> bool:
        """Deliver the first `pages` pages of a held page shard, durably, and queue the rest of it; this ends the lease.

        May be called again with the same, as `complete` may.

        Args:
            claim: of a page shard.
            pages: at least 1, and fewer than it has.
            output: folder of what was read, relative to the data folder.
            tier: at which it was read, for the counts.

        Returns:
            False if the lease was lost to another: nothing was recorded.

        Raises:
            Busy, StorageFull, StorageUnavailable: as from `complete`.
        """
        ...

    def fail(self, claim: Claim, error: dict[str, Any]) -> bool:
        """End a shard, and with it its job, with an error that another attempt would meet again."""
        ...

    def let_go(self, claim: Claim) -> None:
        """Say that the holder of a lost lease has stopped working on it, so that nobody kills it for that."""
        ...
