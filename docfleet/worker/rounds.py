"""A worker's rounds: load the engines, then claim, parse and deliver, until the process ends."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar

from loguru import logger

from docfleet.errors import STORE_TROUBLE, DocfleetError, ParseFailed, StorageFull, StorageUnavailable, WorkerLost
from docfleet.files import is_full
from docfleet.process.groups import leave_with_children
from docfleet.process.memory import give_back
from docfleet.records import Claim, ProcessIdentity, WorkerState
from docfleet.store.claims import Claims
from docfleet.store.reuse import Following, Recycling
from docfleet.worker.bench import Bench, Outcome, Work
from docfleet.worker.care import CUT, Care, Cut
from docfleet.worker.frugality import Frugality
from docfleet.worker.heart import Heart, LeaseLost
from docfleet.worker.recycling import Recycler
from docfleet.worker.resting import Rest
from docfleet.worker.seat import Seat

#: Seconds between two looks for new work: soon after the last, and later on. A look takes no lock and costs
#: microseconds; waking up for it is what an idle machine would notice.
LOOK_INTERVAL = 0.005
IDLE_LOOK_INTERVAL = 0.05
#: Seconds without work after which a worker counts as idle.
IDLE_AFTER = 5.0
#: Seconds after which a look is taken even if nobody seems to have written.
LOOK_ANYWAY = 1.0
#: Seconds between two tries to write into a store that is full or held.
STORE_PAUSE = 1.0

T = TypeVar("T")


class Steps(Protocol):
    """The three steps of `MinerUAPI` that a claimed shard goes through."""

    def decode_request(self, request: Claim) -> Work:
        """Turn a claim into work."""
        ...

    def predict(self, work: Work) -> Outcome:
        """Parse."""
        ...

    def encode_response(self, output: Outcome) -> dict[str, Any]:
        """Make the report."""
        ...


class RoundsStore(Claims, Following, Recycling, Protocol):
    """What the rounds ask of a store."""


class Rounds:
    """Serves one slot. What goes wrong with a document ends the document, not the worker."""

    def __init__(
        self,
        *,
        claims: RoundsStore,
        bench: Bench,
        heart: Heart,
        care: Care,
        recycler: Recycler,
        seat: Seat,
        rest: Rest,
        frugality: Frugality,
        owner: ProcessIdentity,
    ) -> None:
        self._claims = claims
        self._care = care
        self._bench = bench
        self._heart = heart
        self._recycler = recycler
        self._seat = seat
        self._rest = rest
        self._frugality = frugality
        self._owner = owner
        self._looked_at = 0.0
        self._worked_at = 0.0
        #: Whether the next claim is for the short document that room was just made for.
        self._short_first = False

    def serve(self, steps: Steps) -> None:
        """Work, once there is a slot to serve, until this process is to be replaced; it holds nothing then."""
        self._seat.await_slot(self._heart)
        while self._heart.seated:
            try:
                if self._recycler.must_leave():
                    return
                claim = self._next()
            except DocfleetError as exc:
                logger.warning("the store gives no work now: {}", exc.message)
                time.sleep(STORE_PAUSE)
                continue
            if claim is None:
                idle = time.monotonic() - self._worked_at > IDLE_AFTER
                time.sleep(IDLE_LOOK_INTERVAL if idle else LOOK_INTERVAL)
            else:
                self._work(steps, claim)
                self._worked_at = time.monotonic()

    def _next(self) -> Claim | None:
        now = time.monotonic()
        if not self._claims.changed() and now - self._looked_at < LOOK_ANYWAY:
            return None
        self._looked_at = now
        if self._rest.must_rest():
            return None
        short_first, self._short_first = self._short_first, False
        claim = self._claims.claim(self._owner, self._heart.report.slot, short_first=short_first)
        if claim is not None:
            # There may be more than one: look again right after this one.
            self._looked_at = 0.0
        return claim

    def _work(self, steps: Steps, claim: Claim) -> None:
        started = time.perf_counter()
        self._heart.hold(claim)
        delivered = cut = False
        try:
            outcome = self._attempt(steps, claim)
            cut = outcome is CUT
            if isinstance(outcome, Outcome):
                report = steps.encode_response(outcome)
                delivered = _insist(partial(self._deliver, claim, outcome, report))
        except Exception:
            logger.exception("job {} attempt {} could not be delivered", claim.job_id, claim.attempt)
        finally:
            if delivered:
                self._bench.tidy(claim)
                self._bench.hand_on(self._claims)
            elif not cut:
                self._bench.discard(claim)
                self._let_go(claim)
            # The caller has its answer already.
            give_back()
            self._heart.release(delivered=delivered)
        if delivered:
            self._log(claim, time.perf_counter() - started)

    def _deliver(self, claim: Claim, outcome: Outcome, report: dict[str, Any]) -> bool:
        output, pages = self._bench.relative(outcome.output), outcome.made_room_after
        if pages is None:
            return self._claims.complete(claim, output=output, report=report)
        self._short_first = True
        return self._claims.give_way(claim, pages, output=output, tier=outcome.tier)

    def _let_go(self, claim: Claim) -> None:
        # Without this the supervisor would kill a worker that has long been free. Claiming says it too.
        with suppress(Exception), logger.catch(reraise=True, message="letting go failed"):
            self._claims.let_go(claim)

    def _attempt(self, steps: Steps, claim: Claim) -> Outcome | Cut | None:
        try:
            work = self._care.prepared(steps.decode_request(claim))
            return CUT if work is None else self._read(steps, work)
        except LeaseLost:
            self._tell_lost(claim)
        except WorkerLost as exc:
            # A process that works for the engine died, and as with the worker itself nobody knows of what: the
            # supervisor judges both, and what is left of the engine's pools goes, too.
            logger.error("job {} attempt {}: {}; this worker ends", claim.job_id, claim.attempt, exc.message)
            leave_with_children()
        except DocfleetError as exc:
            self._fail(claim, exc)
        except OSError as exc:
            if is_full(exc):
                self._fail(claim, StorageFull("There is no room left on the disk of the data folder; free some."))
            elif self._bench.is_closed_off(exc):
                self._fail(claim, StorageUnavailable(f"The disk of the data folder is read-only or gone ({exc})."))
            else:
                self._fail_unforeseen(claim, exc)
        except (Exception, SystemExit) as exc:
            self._fail_unforeseen(claim, exc)
        return None

    def _read(self, steps: Steps, work: Work) -> Outcome:
        """Parse, with less memory each time that it runs out."""

        def attempt(share: float) -> Outcome:
            request = replace(work.request, memory_share=share)
            return steps.predict(replace(work, request=request, joining=partial(self._care.joining, work)))

        def again() -> None:
            give_back()
            self._care.renewed(work)

        return self._frugality.perform(attempt, again)

    def _fail_unforeseen(self, claim: Claim, exc: BaseException) -> None:
        if not _insist(partial(self._care.holds, claim)):
            # Cancelled: its folders went before the heart knew.
            self._tell_lost(claim)
            return
        logger.opt(exception=exc).error("job {} attempt {} failed", claim.job_id, claim.attempt)
        self._fail(claim, ParseFailed(f"The document could not be parsed ({type(exc).__name__}: {exc})."))

    def _tell_lost(self, claim: Claim) -> None:
        logger.warning("job {} attempt {}: the lease was lost, work stopped", claim.job_id, claim.attempt)

    def _fail(self, claim: Claim, error: DocfleetError) -> None:
        if _insist(partial(self._care.ended_job, claim, error)):
            self._bench.clear(claim)
        logger.info("job {} attempt {}: {} ({})", claim.job_id, claim.attempt, error.code, error.message)

    def _log(self, claim: Claim, seconds: float) -> None:
        pages = claim.last_page - claim.first_page + 1
        logger.info(
            "job {} {} pages {}-{} done in {:.2f} s ({:.2f} pages/s)",
            claim.job_id,
            claim.document.suffix,
            claim.first_page,
            claim.last_page,
            seconds,
            pages / seconds,
        )


def _insist(record: Callable[[], T]) -> T:
    """Record what became of a shard, again until the store can be written: a full disk must not cost work done.

    The heart goes on; whoever finds that it takes too long ends this process.
    """
    while True:
        try:
            return record()
        except STORE_TROUBLE as exc:
            logger.warning("what was done cannot be recorded yet: {}", exc.message)
            time.sleep(STORE_PAUSE)


def load_with_patience(load: Callable[[], None], heart: Heart, loaded: WorkerState) -> None:
    """Load the engines and say that the worker is `loaded` (ready, or a spare).

    On failure it says so and tries again, later each time, for ever: a worker that ends itself would be started again
    at once, as often as it fails.
    """
    delay = 1.0
    while True:
        heart.tell(WorkerState.LOADING)
        # Two workers that take the device's memory from each other must not do so again at the same moment.
        pause = delay * random.uniform(0.75, 1.25)  # noqa: S311
        told = _failure_of(load, pause)
        if told is None:
            heart.tell(loaded)
            return
        give_back()
        heart.tell(WorkerState.FAILED, told, retry_at=time.time() + pause)
        time.sleep(pause)
        delay = min(delay * 2, 300.0)


def _failure_of(load: Callable[[], None], pause: float) -> str | None:
    """Load; return what to say if it failed. The error, whose traceback holds what was loaded, is gone by then."""
    try:
        load()
    except Exception as exc:
        logger.exception("the engines did not load; next try in {:.0f} s", pause)
        return f"{type(exc).__name__}: {exc}; next try in {pause:.0f} s"
    return None
