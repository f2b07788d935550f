"""Around the parsing of a shard: how long it may take, whether the document is cut first, what a failure means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import Final, Protocol

from loguru import logger

from docfleet.errors import (
    STORE_TROUBLE,
    BrokenDocument,
    DocfleetError,
    OutOfDeviceMemory,
    ParseFailed,
    Poisoned,
    TierUnavailable,
    TooSlow,
    VlmUnavailable,
)
from docfleet.records import Claim, Stage
from docfleet.sharding.cutting import cut
from docfleet.sharding.deadlines import Deadlines, retry_delay
from docfleet.sharding.verdicts import MOST_EXCUSED, Fault, Verdict
from docfleet.store.claims import Claims
from docfleet.store.pressure import Pressure
from docfleet.worker.bench import Bench, Work


class Cut(Enum):
    """The shard gave way to the shards that it was cut into, or waits again."""

    CUT = "cut"


CUT: Final = Cut.CUT

#: Called for the number of the slot that this worker serves.
Slot = Callable[[], int]


class CareStore(Claims, Pressure, Protocol):
    """What is asked of a store."""


class Care:
    """Stands between the rounds and the store."""

    def __init__(self, *, claims: CareStore, bench: Bench, deadlines: Deadlines, max_attempts: int, slot: Slot) -> None:
        """Make it; `slot` tells which one this worker serves."""
        self._slot = slot
        self._claims = claims
        self._bench = bench
        self._deadlines = deadlines
        self._max_attempts = max_attempts

    def prepared(self, work: Work) -> Work | None:
        """Set the deadline and decide whether the document is cut. None: it was, or must wait; the lease is over.

        Engines live in workers, so the first worker to claim a document asks where it may be cut. What it learns on
        the way goes along: to the shards, or into the work at hand.

        Raises:
            Poisoned: every page was given up before the document was read.
            ParseFailed: every page was given up since.
            DocfleetError: the document cannot be opened.
        """
        claim = work.claim
        if claim.stage is not Stage.PROBE and claim.all_given_up:
            raise (ParseFailed if claim.stage is Stage.DOCUMENT else Poisoned)(claim.failed_pages[0].cause)
        pages = claim.last_page - claim.first_page + 1
        self.renewed(work)
        if claim.stage is not Stage.WHOLE or pages < 2 or claim.failed_pages:
            return work
        cuts = self._bench.cuts(work)
        if cuts is None:
            return work
        shards = cut(cuts, claim.first_page, max(1, self._claims.serving()))
        if shards and self._claims.split(claim, shards, cuts.decisions, reader=work.choice.reader):
            logger.info("job {}: {} pages cut into {} shards", claim.job_id, pages, len(shards) - 1)
            return None
        if not self._claims.keep_whole(claim, cuts.seconds):
            logger.info("job {}: some {:.0f} s in one piece; it waits for its turn", claim.job_id, cuts.seconds)
            return None
        return replace(work, request=replace(work.request, decisions=cuts.decisions))

    def renewed(self, work: Work) -> None:
        """Set the deadline from now on: the shard is read from its beginning."""
        self._limit(work, work.claim.stage)

    def joining(self, work: Work) -> None:
        """Set the deadline from now on: the pages of a probe are read, and what is left is a document stage."""
        self._limit(work, Stage.DOCUMENT)

    def _limit(self, work: Work, stage: Stage) -> None:
        claim = work.claim
        pages = claim.last_page - claim.first_page + 1
        self._claims.limit(claim, self._deadlines.seconds(stage, work.choice.tier, pages))

    def holds(self, claim: Claim) -> bool:
        """Return whether the shard is still this worker's. False: the job was cancelled, or given to another."""
        return self._claims.beat(claim, 0)

    def ended_job(self, claim: Claim, error: DocfleetError) -> bool:
        """Record that the attempt failed. Return whether the job ended with it.

        Only what an engine says of pages is looked into: a document that is encrypted, or too large, is so in each
        of its halves.
        """
        told, delay = error.record(), retry_delay(claim.attempt)
        # Workers may differ in what they can read: the error is the document's when nobody is left to try it.
        if isinstance(error, TierUnavailable) and self._claims.pass_on(claim, told):
            return False
        if (fault := self._not_of_the_document(error, claim.attempt)) is not None:
            verdict = self._claims.stumble(claim, told, max_attempts=self._max_attempts, delay=delay, fault=fault)
            return verdict is Verdict.FAIL
        of_pages = (ParseFailed, TooSlow, BrokenDocument) if claim.stage.is_part else (ParseFailed, TooSlow)
        if not isinstance(error, of_pages):
            return self._claims.fail(claim, told)
        verdict = self._claims.stumble(claim, told, max_attempts=self._max_attempts, delay=delay)
        return verdict is Verdict.FAIL

    def _not_of_the_document(self, error: DocfleetError, attempt: int) -> Fault | None:
        # The disk is the machine's: full or broken for a day, it has said nothing of the document, whose file goes with
        # a job that fails. The growing delay bounds what it costs to ask again.
        if isinstance(error, STORE_TROUBLE):
            return Fault.NOBODY
        if attempt > MOST_EXCUSED:
            return None
        # Memory ran out because somebody else fills it: the document waits until there is some.
        short = isinstance(error, OutOfDeviceMemory) and self._claims.resting(self._slot()) is not None
        # VLM servers come back, or are added; meanwhile this worker reads what needs none.
        if short or isinstance(error, VlmUnavailable):
            return Fault.NOBODY
        return None
