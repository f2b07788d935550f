"""What every store must do, whatever it is built on. A new implementation adds itself to `IMPLEMENTATIONS`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from docfleet.errors import DocfleetError, TierUnavailable
from docfleet.files import new_job_id
from docfleet.options import Format, Method, ParseOptions, Tier
from docfleet.records import (
    Claim,
    Job,
    JobState,
    Lane,
    ProcessIdentity,
    ShardPlan,
    ShardState,
    Stage,
    WorkerReport,
    WorkerState,
)
from docfleet.sharding.verdicts import Fault, Verdict
from docfleet.store.admission import Terms
from docfleet.store.sqlite import open_store
from tests.integration.store_house import (
    LOST,
    ME,
    OTHER,
    Store,
    a_document,
    accept,
    accept_cut,
    job_of,
    must_claim,
    report,
)

#: How to open a store in a folder. Opened twice, both are handles on the same data, as two processes have them.
IMPLEMENTATIONS: dict[str, Callable[[Path], Store]] = {"sqlite": lambda folder: open_store(folder / "docfleet.db")}


@pytest.fixture(params=IMPLEMENTATIONS)
def store_factory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    opened: list[Store] = []

    def factory() -> Store:
        opened.append(IMPLEMENTATIONS[request.param](tmp_path))
        return opened[-1]

    yield factory
    for store in opened:
        store.close()


@pytest.fixture
def store(store_factory: Callable[[], Store]) -> Store:
    return store_factory()


def test_a_store_that_can_be_written_says_so_and_others_notice(
    store: Store, store_factory: Callable[[], Store]
) -> None:
    other = store_factory()
    other.changed()
    for _ in range(2):
        store.prove_writable()
        assert other.changed(), "it was really written"


# --- accepting ---------------------------------------------------------------------------------------------------


def test_an_accepted_job_comes_back_as_it_was_given(store: Store, store_factory: Callable[[], Store]) -> None:
    options = ParseOptions(tier=Tier.FLASH, method=Method.OCR, end_page_id=7, formats=(Format.HTML, Format.DOCX))
    document = a_document(9, "报告 – zweite Fassung.pdf")
    plan = ShardPlan(stage=Stage.WHOLE, first_page=0, last_page=7)
    before = time.time()
    job = store.accept(new_job_id(), document, options, [plan])
    assert (job.state, job.document, job.options) == (JobState.QUEUED, document, options)
    assert before <= job.created_at <= time.time()
    assert store_factory().job(job.id) == job
    (shard,) = store.shards(job.id)
    assert (shard.job_id, shard.stage, shard.first_page, shard.last_page) == (job.id, Stage.WHOLE, 0, 7)
    assert (shard.state, shard.attempt, shard.owner) == (ShardState.QUEUED, 0, None)


def test_a_file_name_with_half_a_surrogate_pair_is_accepted(store: Store) -> None:
    plan = ShardPlan(stage=Stage.WHOLE, first_page=0, last_page=0)
    job = store.accept(new_job_id(), a_document(1, "a\ud800b.pdf"), ParseOptions(), [plan])
    assert job_of(store, job) == job
    assert job.document.filename == "a?b.pdf"


@pytest.mark.parametrize(
    "stages",
    [[], [Stage.PAGES], [Stage.DOCUMENT], [Stage.WHOLE, Stage.WHOLE], [Stage.WHOLE, Stage.DOCUMENT, Stage.PAGES]],
)
def test_a_plan_that_could_never_deliver_is_refused_whole(store: Store, stages: list[Stage]) -> None:
    job_id = new_job_id()
    with pytest.raises(DocfleetError):
        store.accept(
            job_id, a_document(), ParseOptions(), [ShardPlan(stage=s, first_page=0, last_page=2) for s in stages]
        )
    assert store.job(job_id) is None
    assert store.totals().queued_jobs == 0


def test_a_taken_id_is_refused_and_the_first_job_stays(store: Store) -> None:
    job = accept(store)
    with pytest.raises(DocfleetError):
        store.accept(job.id, a_document(), ParseOptions(), [ShardPlan(stage=Stage.WHOLE, first_page=0, last_page=0)])
    assert job_of(store, job) == job
    assert len(store.shards(job.id)) == 1


def test_what_was_never_accepted_is_unknown(store: Store) -> None:
    job = accept(store)
    assert store.job("0" * 32) is None
    assert store.shards("0" * 32) == []
    many = [f"{number:032x}" for number in range(40_000)]
    assert store.states([*many, job.id]) == {job.id: JobState.QUEUED}
    assert store.known([*many, job.id]) == {job.id}
    assert store.states([]) == {}


# --- claiming ----------------------------------------------------------------------------------------------------


def test_a_claim_holds_all_that_the_work_needs(store: Store) -> None:
    job = accept(store, pages=5)
    before = time.time()
    claim = store.claim(ME, 3)
    assert claim is not None
    assert (claim.job_id, claim.document, claim.options) == (job.id, job.document, job.options)
    assert (claim.stage, claim.first_page, claim.last_page) == (Stage.WHOLE, 0, 4)
    assert (claim.attempt, claim.owner, claim.parts) == (1, ME, ())
    (shard,) = store.leases()
    assert (shard.id, shard.job_id, shard.owner, shard.worker_index) == (claim.shard_id, job.id, ME, 3)
    assert shard.state is ShardState.RUNNING
    assert shard.heartbeat_at == shard.claimed_at is not None
    running = job_of(store, job)
    assert running.state is JobState.RUNNING
    assert running.started_at is not None
    assert before <= running.started_at <= time.time()


def test_an_empty_queue_gives_nothing(store: Store) -> None:
    assert store.claim(ME, 0) is None
    accept(store)
    must_claim(store)
    assert store.claim(ME, 0) is None


def test_equal_shards_come_in_the_order_of_jobs_and_cut_documents_in_the_order_of_pages(store: Store) -> None:
    first = accept_cut(store, (4, 7), (0, 3))
    second, third = accept(store, pages=4), accept(store, pages=4)
    claims = [must_claim(store) for _ in range(4)]
    expected = [(first.id, 0), (second.id, 0), (third.id, 0), (first.id, 4)]
    assert [(c.job_id, c.first_page) for c in claims] == expected


def test_a_page_does_not_wait_behind_a_long_document_and_the_long_one_comes_in_the_end(store: Store) -> None:
    ranges = [(first, first + 9) for first in range(0, 300, 10)]
    scan = accept_cut(store, *ranges)
    must_claim(store)
    letter = accept(store, pages=1)
    assert must_claim(store).job_id == letter.id
    # However fast short ones arrive, the clock goes on with each.
    order = []
    for _ in range(40):
        accept(store, pages=1)
        order.append(must_claim(store).job_id)
    assert 2 <= order.count(scan.id) <= 6


def test_two_long_documents_take_turns(store: Store) -> None:
    ranges = [(first, first + 9) for first in range(0, 50, 10)]
    one, two = accept_cut(store, *ranges), accept_cut(store, *ranges)
    claims = [must_claim(store).job_id for _ in range(10)]
    assert claims == [one.id, two.id] * 5
    assert store.claim(ME, 0) is None


def test_shards_come_in_the_order_of_pages_and_short_documents_before_the_rest_of_long_ones(store: Store) -> None:
    first = accept_cut(store, (8, 11), (0, 3), (4, 7))
    assert must_claim(store).job_id == first.id
    second = accept(store)
    claims = [must_claim(store) for _ in range(3)]
    assert [(c.job_id, c.first_page) for c in claims] == [(second.id, 0), (first.id, 4), (first.id, 8)]
    assert store.claim(ME, 0) is None


def test_the_document_stage_waits_for_every_page_shard_and_gets_their_outputs_in_page_order(store: Store) -> None:
    job = accept_cut(store, (0, 1), (2, 3), (4, 4))
    claims = [must_claim(store) for _ in range(3)]
    for number, claim in reversed(list(enumerate(claims))):
        assert store.claim(ME, 0) is None
        assert store.complete(claim, output=f"part-{number}", report=report(2))
        assert job_of(store, job).output is None
    document = must_claim(store)
    assert (document.stage, document.first_page, document.last_page) == (Stage.DOCUMENT, 0, 4)
    assert document.parts == ("part-0", "part-1", "part-2")
    assert [shard.stage for shard in store.shards(job.id)][-1] is Stage.DOCUMENT


def test_a_document_stage_that_waits_holds_up_nobody(store: Store) -> None:
    accept_cut(store, (0, 0))
    must_claim(store)
    later = accept(store)
    assert must_claim(store).job_id == later.id


# --- progress ----------------------------------------------------------------------------------------------------


def test_progress_is_the_sum_over_the_shards_and_never_goes_back(store: Store) -> None:
    job = accept_cut(store, (0, 4), (5, 9))
    one, two = must_claim(store), must_claim(store)
    assert store.beat(one, 3)
    assert store.beat(two, 2)
    assert job_of(store, job).pages_done == 5
    assert store.beat(one, 1)
    assert job_of(store, job).pages_done == 5
    assert store.beat(two, 99)
    assert job_of(store, job).pages_done == 8
    (lease, *_) = store.leases()
    assert store.give_back(lease, cause=LOST, max_attempts=3)
    again = must_claim(store)
    assert store.beat(again, 1)
    assert job_of(store, job).pages_done == 8
    assert store.complete(again, output="a", report=report(5))
    assert store.complete(two, output="b", report=report(5))
    assert job_of(store, job).pages_done == 10
    document = must_claim(store)
    assert store.beat(document, 4)
    assert job_of(store, job).pages_done == 10


def test_a_beat_extends_the_lease(store: Store) -> None:
    accept(store)
    claim = must_claim(store)
    (before,) = store.leases()
    time.sleep(0.01)
    assert store.beat(claim, 0)
    (after,) = store.leases()
    assert after.heartbeat_at is not None
    assert before.heartbeat_at is not None
    assert after.heartbeat_at > before.heartbeat_at
    assert after.claimed_at == before.claimed_at


# --- delivering --------------------------------------------------------------------------------------------------


def test_a_whole_shard_completes_its_job(store: Store) -> None:
    job = accept(store)
    assert store.complete(must_claim(store), output="jobs/x/result-1", report=report(3, warnings=["说明"]))
    done = job_of(store, job)
    assert (done.state, done.output, done.pages_done) == (JobState.COMPLETED, "jobs/x/result-1", 3)
    assert done.report == report(3, warnings=["说明"])
    assert done.error is None
    assert done.started_at is not None
    assert done.finished_at is not None
    assert done.created_at <= done.started_at <= done.finished_at
    (shard,) = store.shards(job.id)
    assert (shard.state, shard.output, shard.finished_at) == (ShardState.DONE, "jobs/x/result-1", done.finished_at)
    assert store.leases() == []


def test_the_holder_may_deliver_again_what_it_has_delivered_and_it_counts_once(store: Store) -> None:
    job = accept_cut(store, (0, 0), (1, 1))
    for output in ("part-0", "part-1", "result"):
        claim = must_claim(store)
        assert store.complete(claim, output=output, report=report(2))
        assert store.complete(claim, output=output, report=report(2))
        assert not store.complete(claim, output="another", report=report(2))
        assert not store.complete(replace(claim, owner=OTHER), output=output, report=report(2))
        assert not store.complete(replace(claim, attempt=2), output=output, report=report(2))
    assert job_of(store, job).state is JobState.COMPLETED
    totals = store.totals()
    assert (totals.completed, totals.pages) == (1, 2)
    assert totals.pages_per_second == pytest.approx(2 / 60)
    store.remove(job.id)
    assert not store.complete(claim, output="result", report=report(2))


def test_what_ended_may_be_ended_again_and_nothing_more_happens(store: Store) -> None:
    retried, failed, cancelled = (accept(store, pages=1) for _ in range(3))
    claim = must_claim(store)
    assert store.stumble(claim, LOST, max_attempts=3, delay=60, fault=Fault.PROCESS) is Verdict.RETRY
    assert store.stumble(claim, LOST, max_attempts=3, delay=60) is None
    claim = must_claim(store)
    (lease,) = store.leases()
    assert store.fail(claim, LOST)
    assert not store.fail(claim, LOST)
    assert not store.give_back(lease, cause=LOST, max_attempts=3)
    assert store.cancel(cancelled.id, LOST)
    assert not store.cancel(cancelled.id, LOST)
    states = store.states([retried.id, failed.id, cancelled.id])
    assert states == {retried.id: JobState.RUNNING, failed.id: JobState.FAILED, cancelled.id: JobState.CANCELLED}
    totals = store.totals()
    assert (totals.retries, totals.failed, totals.cancelled) == (1, 1, 1)
    store.remove(failed.id)
    store.remove(failed.id)


def test_failed_pages_make_a_job_partial(store: Store) -> None:
    job = accept(store)
    assert store.complete(must_claim(store), output="r", report=report(2, 1))
    assert job_of(store, job).state is JobState.PARTIAL
    totals = store.totals()
    assert (totals.partial, totals.completed, totals.pages) == (1, 0, 2)


def test_only_the_document_shards_result_becomes_the_jobs(store: Store) -> None:
    job = accept_cut(store, (0, 0), (1, 1))
    assert store.complete(must_claim(store), output="part-a", report=report(1, 0))
    assert store.complete(must_claim(store), output="part-b", report=report(1))
    running = job_of(store, job)
    assert (running.state, running.output, running.report) == (JobState.RUNNING, None, None)
    assert store.complete(must_claim(store), output="result", report=report(2))
    done = job_of(store, job)
    assert (done.state, done.output, done.report) == (JobState.COMPLETED, "result", report(2))


def test_a_failed_shard_fails_its_job_and_takes_the_others_with_it(store: Store) -> None:
    job = accept_cut(store, (0, 0), (1, 1), (2, 2))
    one, two = must_claim(store), must_claim(store, OTHER)
    error = {"code": "broken_document", "message": "Page 1 cannot be read.", "retryable": False}
    assert store.fail(one, error)
    failed = job_of(store, job)
    assert (failed.state, failed.error, failed.output) == (JobState.FAILED, error, None)
    assert failed.finished_at is not None
    assert {shard.state for shard in store.shards(job.id)} == {ShardState.FAILED}
    assert not store.beat(two, 1)
    assert not store.complete(two, output="late", report=report(1))
    assert not store.fail(two, LOST)
    assert store.claim(ME, 0) is None
    assert job_of(store, job) == failed
    assert store.totals().failed == 1


# --- leases ------------------------------------------------------------------------------------------------------


def _after_a_second_attempt(store: Store) -> Claim:
    """Return the newest claim of a shard whose first lease was given back and claimed again."""
    (lease,) = store.leases()
    assert store.give_back(lease, cause=LOST, max_attempts=3)
    return must_claim(store, OTHER)


def test_the_holder_of_an_old_lease_changes_nothing(store: Store) -> None:
    job = accept(store)
    stale = must_claim(store)
    newest = _after_a_second_attempt(store)
    assert (newest.shard_id, newest.attempt, newest.owner) == (stale.shard_id, 2, OTHER)
    before = store.shards(job.id)
    # The same process may come by the shard again: the attempt tells its two leases apart.
    for old in (stale, replace(stale, owner=OTHER)):
        assert not store.beat(old, 2)
        assert not store.complete(old, output="stale", report=report(3))
        assert not store.fail(old, LOST)
    (lease,) = store.leases()
    assert not store.give_back(replace(lease, attempt=1), cause=LOST, max_attempts=3)
    assert not store.give_back(replace(lease, owner=ME), cause=LOST, max_attempts=3)
    assert store.shards(job.id) == before
    assert store.complete(newest, output="newest", report=report(3))
    assert not store.complete(newest, output="twice", report=report(3))
    assert job_of(store, job).output == "newest"
    assert store.totals().completed == 1


@pytest.mark.parametrize(
    "owner",
    [ProcessIdentity(pid=100, started=2), ProcessIdentity(pid=101, started=1)],
    ids=["pid given out again", "another process"],
)
def test_a_lease_belongs_to_one_process(store: Store, owner: ProcessIdentity) -> None:
    accept(store)
    stolen = replace(must_claim(store), owner=owner)
    assert not store.beat(stolen, 1)
    assert not store.complete(stolen, output="x", report=report(3))
    assert not store.fail(stolen, LOST)
    assert len(store.leases()) == 1


def test_a_lease_given_back_is_queued_again_in_its_old_place(store: Store) -> None:
    first = accept(store)
    accept(store)
    must_claim(store)
    (lease,) = store.leases()
    assert store.give_back(lease, cause=LOST, max_attempts=2)
    (shard,) = store.shards(first.id)
    assert (shard.state, shard.owner, shard.heartbeat_at) == (ShardState.QUEUED, None, None)
    assert (shard.attempt, shard.error) == (1, LOST)
    assert store.totals().retries == 1
    assert must_claim(store).job_id == first.id
    assert not store.give_back(lease, cause=LOST, max_attempts=2)


def test_losses_that_are_nobodys_doing_do_not_count_as_attempts(store: Store) -> None:
    job = accept(store, pages=1)
    for _ in range(2):
        must_claim(store)
        (lease,) = store.leases()
        assert store.give_back(lease, cause=LOST, max_attempts=2, fault=Fault.NOBODY)
    claim = must_claim(store)
    assert claim.attempt == 3
    # Back in the queue as any other, with the cause of the last end.
    assert store.stumble(claim, LOST, max_attempts=2, fault=Fault.PROCESS) is Verdict.RETRY
    (shard,) = store.shards(job.id)
    assert shard.error is not None
    assert shard.error["message"] == LOST["message"]
    last = must_claim(store)
    assert store.stumble(last, LOST, max_attempts=2, fault=Fault.PROCESS) is Verdict.FAIL
    assert job_of(store, job).error == LOST


def test_the_last_attempt_fails_the_job_with_the_cause(store: Store) -> None:
    job = accept(store, pages=1)
    for attempt in (1, 2):
        assert must_claim(store).attempt == attempt
        (lease,) = store.leases()
        assert store.give_back(lease, cause=LOST, max_attempts=2)
    failed = job_of(store, job)
    assert (failed.state, failed.error) == (JobState.FAILED, LOST)
    assert store.claim(ME, 0) is None
    assert store.leases() == []
    totals = store.totals()
    assert (totals.failed, totals.retries) == (1, 1)


def test_a_lease_that_ended_by_itself_is_not_given_back(store: Store) -> None:
    job = accept(store)
    claim = must_claim(store)
    (lease,) = store.leases()
    assert store.complete(claim, output="r", report=report(3))
    assert not store.give_back(lease, cause=LOST, max_attempts=1)
    assert job_of(store, job).state is JobState.COMPLETED
    (shard,) = store.shards(job.id)
    assert not store.give_back(shard, cause=LOST, max_attempts=1)


def test_removing_a_job_ends_its_leases_and_its_shard_ids_never_return(store: Store) -> None:
    job = accept(store)
    claim = must_claim(store)
    store.remove(job.id)
    assert store.job(job.id) is None
    assert store.shards(job.id) == []
    assert store.leases() == []
    accept(store)
    assert must_claim(store).shard_id != claim.shard_id
    assert not store.beat(claim, 1)
    assert not store.complete(claim, output="r", report=report(3))
    store.remove(job.id)


# --- workers -----------------------------------------------------------------------------------------------------


def a_worker(slot: int, identity: ProcessIdentity = ME, **more: Any) -> WorkerReport:
    given = {"device": "cpu", "state": WorkerState.READY, "heartbeat_at": 50.0, "started_at": 40.0, **more}
    return WorkerReport(slot=slot, identity=identity, **given)


def test_the_newest_report_of_each_slot_is_kept(store: Store, store_factory: Callable[[], Store]) -> None:
    full = a_worker(0, detail="模型", shard_id=7, documents_done=3, pages_done=40, rss=2**33)
    assert store.announce(a_worker(1))
    assert store.announce(a_worker(0, state=WorkerState.LOADING))
    assert store.announce(full)
    assert not store.announce(a_worker(1, OTHER))
    assert store_factory().workers() == [full, a_worker(1)]


def test_a_report_without_a_time_counts_as_of_now(store: Store) -> None:
    before = time.time()
    store.announce(a_worker(0, heartbeat_at=0.0))
    (worker,) = store.workers()
    assert before <= worker.heartbeat_at <= time.time()


def test_a_worker_is_retired_unless_a_newer_process_has_its_slot(store: Store) -> None:
    store.announce(a_worker(0, shard_id=4))
    store.retire(0, OTHER, "not the one")
    assert store.workers() == [a_worker(0, shard_id=4)]
    store.retire(0, ME, "killed")
    assert store.workers() == [a_worker(0, state=WorkerState.GONE, detail="killed", ended=True)]
    store.announce(a_worker(0, OTHER))
    store.retire(0, ME, "killed")
    assert store.workers() == [a_worker(0, OTHER)]
    store.retire(9, ME, "no such slot")


# --- counts and retention ----------------------------------------------------------------------------------------


def test_totals_tell_the_work_at_hand_and_outlive_the_jobs(store: Store, store_factory: Callable[[], Store]) -> None:
    done, cut = accept(store, pages=3), accept_cut(store, (0, 3), (4, 9))
    accept(store, pages=5)
    assert (store.totals().queued_jobs, store.totals().queued_pages) == (3, 3 + 10 + 5)
    assert store.complete(must_claim(store), output="r", report=report(3))
    must_claim(store)
    totals = store.totals()
    assert (totals.queued_jobs, totals.running_jobs, totals.queued_pages) == (1, 1, 6 + 5)
    assert (totals.completed, totals.partial, totals.failed, totals.pages) == (1, 0, 0, 3)
    store.remove(done.id)
    store.remove(cut.id)
    totals = store_factory().totals()
    assert (totals.completed, totals.pages, totals.running_jobs, totals.queued_pages) == (1, 3, 0, 5)


def test_speed_counts_every_page_once_and_outlives_the_jobs(store: Store) -> None:
    assert store.totals().pages_per_second == 0
    job = accept_cut(store, (0, 3), (4, 5))
    for output in ("a", "b", "document"):
        assert store.complete(must_claim(store), output=output, report=report(6))
    whole = accept(store, pages=6)
    assert store.complete(must_claim(store), output="r", report=report(6))
    store.remove(job.id)
    store.remove(whole.id)
    assert store.totals().pages_per_second == pytest.approx(12 / 60)


def test_ended_jobs_are_listed_oldest_first(store: Store) -> None:
    jobs = [accept(store) for _ in range(4)]
    claims = [must_claim(store) for _ in range(3)]
    assert store.complete(claims[1], output="r", report=report(3))
    assert store.fail(claims[0], LOST)
    assert store.complete(claims[2], output="r", report=report(2, 1))
    later = time.time() + 1
    assert store.finished_before(later, 10) == [jobs[1].id, jobs[0].id, jobs[2].id]
    assert store.finished_before(later, 2) == [jobs[1].id, jobs[0].id]
    first_end = job_of(store, jobs[1]).finished_at
    assert first_end is not None
    assert store.finished_before(first_end, 10) == []


# --- changes -----------------------------------------------------------------------------------------------------


def test_a_change_is_seen_once_whoever_made_it(store: Store, store_factory: Callable[[], Store]) -> None:
    other = store_factory()
    store.changed()
    assert not store.changed()
    accept(other)
    assert store.changed()
    assert not store.changed()
    accept(store)
    assert store.changed()
    assert not store.changed()


def test_asking_for_work_in_vain_is_no_change(store: Store, store_factory: Callable[[], Store]) -> None:
    watcher = store_factory()
    accept_cut(store, (0, 0))
    stale = must_claim(store)
    store.remove(stale.job_id)
    watcher.changed()
    assert store.claim(ME, 0) is None
    assert not store.beat(stale, 1)
    assert not store.complete(stale, output="x", report=report(1))
    store.totals()
    assert not watcher.changed()


def test_work_that_waits_at_the_opening_is_noticed(store: Store, store_factory: Callable[[], Store]) -> None:
    accept(store)
    assert store_factory().changed()


# --- cutting, limits and bad pages ---------------------------------------------------------------------------------


def plans_of(*ranges: tuple[int, int]) -> list[ShardPlan]:
    parts = [ShardPlan(stage=Stage.PAGES, first_page=first, last_page=last) for first, last in ranges]
    return [*parts, ShardPlan(stage=Stage.DOCUMENT, first_page=0, last_page=ranges[-1][1])]


def test_a_whole_shard_gives_way_to_its_parts_and_every_claim_carries_the_decisions(store: Store) -> None:
    job = accept(store, pages=4)
    whole = must_claim(store)
    assert whole.reader is None
    assert store.split(whole, plans_of((0, 1), (2, 3)), {"digital": [1]}, reader="mine/flash")
    assert not store.beat(whole, 1)
    assert not store.complete(whole, output="whole", report=report(4))
    assert not store.split(whole, plans_of((0, 1), (2, 3)), {})
    claims = [must_claim(store), must_claim(store, OTHER)]
    assert [(claim.first_page, claim.last_page) for claim in claims] == [(0, 1), (2, 3)]
    assert [claim.decisions for claim in claims] == [{"digital": [1]}] * 2
    assert [claim.reader for claim in claims] == ["mine/flash"] * 2
    assert store.claim(ME, 0) is None
    for claim in claims:
        assert store.complete(claim, output=f"part-{claim.first_page}", report={})
    last = must_claim(store)
    assert (last.stage, last.parts, last.decisions) == (Stage.DOCUMENT, ("part-0", "part-2"), {"digital": [1]})
    assert last.reader == "mine/flash"
    assert store.complete(last, output="r", report=report(4))
    assert job_of(store, job).state is JobState.COMPLETED


def test_a_page_shard_is_not_cut_again(store: Store) -> None:
    accept_cut(store, (0, 3))
    assert not store.split(must_claim(store), plans_of((0, 1), (2, 3)), {})
    assert len(store.leases()) == 1


def test_a_deadline_belongs_to_one_lease(store: Store) -> None:
    accept(store, pages=1)
    claim = must_claim(store)
    assert store.leases()[0].deadline_at is None
    before = time.time()
    assert store.limit(claim, 60)
    (lease,) = store.leases()
    assert lease.deadline_at is not None
    assert before + 60 <= lease.deadline_at <= time.time() + 60
    _after_a_second_attempt(store)
    assert store.leases()[0].deadline_at is None
    assert not store.limit(claim, 60)


def test_a_retry_waits_for_its_delay(store: Store) -> None:
    accept(store, pages=1)
    must_claim(store)
    assert store.give_back(store.leases()[0], cause=LOST, max_attempts=3, delay=3600)
    assert store.claim(OTHER, 1) is None


def test_a_retry_goes_to_another_slot_while_one_serves(store: Store) -> None:
    for slot, owner in enumerate((ME, OTHER)):
        store.announce(WorkerReport(slot=slot, identity=owner, device="cpu", state=WorkerState.READY))
    assert store.serving() == 2
    accept(store, pages=1)
    claim = store.claim(ME, 0)
    assert claim is not None
    assert store.give_back(store.leases()[0], cause=LOST, max_attempts=3)
    assert store.claim(ME, 0) is None
    assert store.claim(OTHER, 1) is not None


# --- workers that cannot read the same -----------------------------------------------------------------------------

THIRD = ProcessIdentity(pid=300, started=3)
UNABLE = TierUnavailable("Tier basic cannot run here.").record()


def serve(
    store: Store,
    slot: int,
    owner: ProcessIdentity,
    engines: str,
    state: WorkerState = WorkerState.READY,
    heartbeat_at: float = 0.0,
) -> None:
    told = WorkerReport(
        slot=slot, identity=owner, device="cpu", state=state, engines=engines, heartbeat_at=heartbeat_at
    )
    assert store.announce(told)


def claimed_by(store: Store, owner: ProcessIdentity, slot: int) -> Claim:
    claim = store.claim(owner, slot)
    assert claim is not None
    return claim


def test_a_shard_that_one_worker_cannot_read_goes_to_one_with_other_engines_at_once(store: Store) -> None:
    serve(store, 0, ME, "small")
    serve(store, 1, THIRD, "small")
    serve(store, 2, OTHER, "large", WorkerState.BUSY)
    job = accept(store, pages=1)
    claim = claimed_by(store, ME, 0)
    assert store.pass_on(claim, UNABLE)
    assert not store.beat(claim, 1)
    assert not store.pass_on(claim, UNABLE), "the lease was lost"
    queued = job_of(store, job)
    assert (queued.state, queued.started_at) == (JobState.QUEUED, None)
    assert store.claim(ME, 0) is None
    assert store.claim(THIRD, 1) is None, "it has the same engines"
    assert store.complete(claimed_by(store, OTHER, 2), output="r", report=report(1))
    assert job_of(store, job).state is JobState.COMPLETED
    assert store.totals().retries == 0


def test_what_no_other_worker_could_read_is_not_passed_on(store: Store) -> None:
    accept(store, pages=1)
    claim = claimed_by(store, ME, 0)
    assert not store.pass_on(claim, UNABLE), "no worker is known"
    serve(store, 0, ME, "small")
    serve(store, 1, THIRD, "small")
    serve(store, 2, OTHER, "large", WorkerState.LOADING)
    assert not store.pass_on(claim, UNABLE), "nobody else serves"
    assert store.fail(claim, UNABLE)


def test_a_shard_is_passed_on_once_by_each_kind_of_worker(store: Store) -> None:
    serve(store, 0, ME, "small")
    serve(store, 1, OTHER, "large")
    job = accept(store, pages=1)
    assert store.pass_on(claimed_by(store, ME, 0), UNABLE)
    last = claimed_by(store, OTHER, 1)
    assert not store.pass_on(last, UNABLE)
    assert store.fail(last, UNABLE)
    assert job_of(store, job).error == UNABLE


def test_attempts_that_were_passed_on_do_not_count(store: Store) -> None:
    serve(store, 0, ME, "small")
    serve(store, 1, OTHER, "large")
    accept(store, pages=1)
    assert store.pass_on(claimed_by(store, ME, 0), UNABLE)
    second = claimed_by(store, OTHER, 1)
    assert store.stumble(second, LOST, max_attempts=2, fault=Fault.PROCESS) is Verdict.RETRY


def test_what_was_passed_on_is_tried_again_when_those_who_might_read_it_are_gone(store: Store) -> None:
    serve(store, 0, ME, "small")
    serve(store, 1, OTHER, "large")
    accept(store, pages=1)
    assert store.pass_on(claimed_by(store, ME, 0), UNABLE)
    assert store.claim(ME, 0) is None
    store.retire(1, OTHER, "it was killed")
    assert not store.pass_on(claimed_by(store, ME, 0), UNABLE)


@pytest.mark.parametrize("state", [WorkerState.LOADING, WorkerState.STARTING, WorkerState.RECYCLING, WorkerState.GONE])
def test_a_document_that_was_cut_waits_for_a_worker_that_is_being_replaced(store: Store, state: WorkerState) -> None:
    serve(store, 0, ME, "small")
    serve(store, 1, OTHER, "large")
    accept(store, pages=4)
    assert store.split(claimed_by(store, OTHER, 1), plans_of((0, 1), (2, 3)), {}, reader="large/basic")
    if state is WorkerState.GONE:
        store.retire(1, OTHER, "it was killed")
    else:
        serve(store, 1, OTHER, "", state)
    claim = claimed_by(store, ME, 0)
    assert store.pass_on(claim, UNABLE)
    again = claimed_by(store, ME, 0)
    assert again.shard_id != claim.shard_id
    assert store.pass_on(again, UNABLE)
    assert store.claim(ME, 0) is None
    if state is not WorkerState.GONE:
        serve(store, 1, OTHER, "large")
        assert claimed_by(store, OTHER, 1).reader == "large/basic"


def test_a_document_that_was_cut_does_not_wait_for_one_who_is_long_gone_or_is_a_spare(store: Store) -> None:
    serve(store, 0, ME, "small")
    serve(store, 1, OTHER, "large")
    accept(store, pages=4)
    assert store.split(claimed_by(store, OTHER, 1), plans_of((0, 1), (2, 3)), {}, reader="large/basic")
    serve(store, 1, OTHER, "large", WorkerState.BUSY, heartbeat_at=time.time() - 3600)
    store.retire(1, OTHER, "it was killed")
    serve(store, 2, THIRD, "large", WorkerState.SPARE)
    assert not store.pass_on(claimed_by(store, ME, 0), UNABLE)


def test_a_caller_pays_for_what_was_passed_on_once(store: Store) -> None:
    serve(store, 0, ME, "small")
    serve(store, 1, OTHER, "large")
    first = accept(store, pages=8, terms=Terms(caller="a"))
    assert store.pass_on(claimed_by(store, ME, 0), UNABLE)
    accept(store, pages=8, terms=Terms(caller="b"))
    assert claimed_by(store, OTHER, 1).job_id == first.id


def test_the_bad_page_of_a_cut_document_is_found_and_the_document_stage_is_told(store: Store) -> None:
    job = accept_cut(store, (0, 3), (4, 7))
    error = {"code": "parse_failed", "message": "Page 6 cannot be read.", "retryable": False}
    for _ in range(40):
        claim = must_claim(store)
        if claim.stage is Stage.DOCUMENT:
            break
        if claim.first_page <= 6 <= claim.last_page:
            store.stumble(claim, error, max_attempts=2)
        else:
            assert store.complete(claim, output=f"part-{claim.first_page}-{claim.last_page}", report={})
    assert claim.parts == ("part-0-3", "part-4-5", "part-7-7")
    assert [(page.page, page.cause) for page in claim.failed_pages] == [(6, "Page 6 cannot be read.")]
    assert store.complete(claim, output="r", report=report(8, 6))
    assert job_of(store, job).state is JobState.PARTIAL


def test_the_bad_page_of_a_whole_document_is_probed_and_the_whole_read_without_it(store: Store) -> None:
    job = accept(store, pages=5)
    tried = []
    for _ in range(40):
        claim = must_claim(store)
        tried.append((claim.stage, claim.first_page, claim.last_page))
        bad = claim.first_page <= 1 <= claim.last_page and not claim.failed_pages
        if bad:
            (lease,) = store.leases()
            assert store.give_back(lease, cause=LOST, max_attempts=1)
        elif claim.stage is Stage.PROBE:
            assert store.complete(claim, output="nothing", report={})
        else:
            break
    assert tried[0] == (Stage.WHOLE, 0, 4)
    assert {stage for stage, *_ in tried[1:-1]} == {Stage.PROBE}
    assert tried[-1] == (Stage.WHOLE, 0, 4)
    assert [page.page for page in claim.failed_pages] == [1]
    assert store.complete(claim, output="r", report=report(5, 1))
    assert job_of(store, job).state is JobState.PARTIAL


def test_a_page_that_kills_the_document_stage_is_probed_and_left_out_of_pages_that_were_read(store: Store) -> None:
    job = accept_cut(store, (0, 3), (4, 7))
    stages = []
    for _ in range(40):
        claim = must_claim(store)
        stages.append(claim.stage)
        found = 6 in {page.page for page in claim.failed_pages}
        if claim.stage is not Stage.PAGES and claim.first_page <= 6 <= claim.last_page and not found:
            (lease,) = store.leases()
            assert store.give_back(lease, cause=LOST, max_attempts=1)
            continue
        if claim.stage is Stage.DOCUMENT:
            break
        assert store.complete(claim, output=f"part-{claim.first_page}", report={})
    assert stages.count(Stage.PAGES) == 2, "what was read stays read"
    assert (claim.parts, [page.page for page in claim.failed_pages]) == (("part-0", "part-4"), [6])
    assert job_of(store, job).pages_done == 8
    assert store.complete(claim, output="r", report=report(8, 6))
    assert job_of(store, job).state is JobState.PARTIAL


@pytest.mark.parametrize("deaths", [2, 3])
def test_after_its_pages_were_probed_the_whole_has_all_attempts_again(store: Store, deaths: int) -> None:
    job = accept(store, pages=2)
    _die(store, Stage.WHOLE, times=3)
    for _ in range(2):
        claim = must_claim(store)
        assert claim.stage is Stage.PROBE
        assert store.complete(claim, output="nothing", report={})
    _die(store, Stage.WHOLE, times=deaths)
    if deaths < 3:
        assert store.complete(must_claim(store), output="r", report=report(2))
    assert job_of(store, job).state is (JobState.COMPLETED if deaths < 3 else JobState.FAILED)


def _die(store: Store, stage: Stage, *, times: int) -> None:
    for _ in range(times):
        assert must_claim(store).stage is stage
        (lease,) = store.leases()
        assert store.give_back(lease, cause=LOST, max_attempts=3)


def test_a_document_whose_every_page_fails_fails_with_the_last_cause(store: Store) -> None:
    job = accept_cut(store, (0, 0), (1, 1))
    for _ in range(2):
        assert store.stumble(must_claim(store), LOST, max_attempts=1) is not None
    failed = job_of(store, job)
    assert (failed.state, failed.error) == (JobState.FAILED, LOST)
    assert store.claim(ME, 0) is None


def test_the_holder_of_an_old_lease_cannot_stumble(store: Store) -> None:
    accept(store, pages=2)
    stale = must_claim(store)
    _after_a_second_attempt(store)
    assert store.stumble(stale, LOST, max_attempts=1) is None
    assert len(store.leases()) == 1


# --- short documents beside long ones ------------------------------------------------------------------------------


def long_one(store: Store, pages: int = 20, caller: str = "", lane: Lane = Lane.INTERACTIVE) -> Job:
    plans = [ShardPlan(stage=Stage.PAGES, first_page=0, last_page=pages - 1)]
    plans.append(ShardPlan(stage=Stage.DOCUMENT, first_page=0, last_page=pages - 1))
    return accept(store, *plans, pages=pages, terms=Terms(caller=caller, lane=lane))


def test_what_was_read_before_a_long_document_made_room_is_kept_and_the_rest_read_later(store: Store) -> None:
    job = long_one(store)
    claim = must_claim(store)
    short = accept(store, pages=1)
    assert not store.short_waits(claim, 0)
    assert store.short_waits(claim, 1)
    assert not store.give_way(claim, 0, output="none")
    assert not store.give_way(claim, 20, output="all")
    assert store.give_way(claim, 5, output="front")
    # Again, for whoever could not know whether the disk has it.
    assert store.give_way(claim, 5, output="front")
    assert not store.give_way(claim, 6, output="front")
    assert not store.give_way(claim, 5, output="other")
    assert not store.beat(claim, 6)
    assert not store.complete(claim, output="front", report={})
    assert not store.complete(claim, output="late", report={})
    taken = store.claim(ME, 0, short_first=True)
    assert taken is not None
    assert taken.job_id == short.id
    rest = must_claim(store)
    assert (rest.job_id, rest.first_page, rest.last_page, rest.attempt) == (job.id, 5, 19, 1)
    assert job_of(store, job).pages_done == 5
    assert store.complete(rest, output="back", report={})
    assert must_claim(store).parts == ("front", "back")


def test_a_short_document_goes_before_long_ones_that_waited_longer_where_room_was_made_for_it(store: Store) -> None:
    jobs = [long_one(store), long_one(store)]
    claim = must_claim(store)
    short = accept(store, pages=8)
    assert store.give_way(claim, 8, output="front")
    taken = [store.claim(ME, 0, short_first=True) for _ in range(3)]
    assert [claim.job_id for claim in taken if claim is not None] == [short.id, *(job.id for job in jobs)]


@pytest.mark.parametrize(
    ("pages", "caller", "lane", "state", "makes_room"),
    [
        (1, "", Lane.INTERACTIVE, WorkerState.BUSY, True),
        (3, "", Lane.INTERACTIVE, WorkerState.BUSY, True),
        # More pages than were read, so that a long document is never overtaken by more than it gets.
        (4, "", Lane.INTERACTIVE, WorkerState.BUSY, False),
        (1, "new", Lane.INTERACTIVE, WorkerState.BUSY, True),
        (1, "", Lane.BATCH, WorkerState.BUSY, False),
        # Somebody is free.
        (1, "", Lane.INTERACTIVE, WorkerState.READY, False),
    ],
)
def test_room_is_made_where_it_is_due(
    store: Store, pages: int, caller: str, lane: Lane, state: WorkerState, makes_room: bool
) -> None:
    store.announce(WorkerReport(slot=1, identity=OTHER, device="cpu", state=state))
    long_one(store)
    claim = must_claim(store)
    accept(store, pages=pages, terms=Terms(caller=caller, lane=lane))
    assert store.short_waits(claim, 3) is makes_room
    # Nothing is left to make room with.
    assert not store.short_waits(claim, 20)


def test_batch_work_makes_room_for_interactive_and_nobody_for_what_is_not_short(store: Store) -> None:
    long_one(store, lane=Lane.BATCH)
    claim = must_claim(store)
    accept(store, pages=9)
    assert not store.short_waits(claim, 10)
    accept(store, pages=1)
    assert store.short_waits(claim, 1)


def test_no_room_is_made_for_what_its_maker_could_not_read(store: Store) -> None:
    serve(store, 0, ME, "small")
    serve(store, 1, OTHER, "large", WorkerState.BUSY)
    accept(store, pages=1)
    assert store.pass_on(claimed_by(store, ME, 0), UNABLE)
    long_one(store)
    claim = claimed_by(store, ME, 0)
    serve(store, 0, ME, "small", WorkerState.BUSY)
    assert not store.short_waits(claim, 3)
    accept(store, pages=1)
    assert store.short_waits(claim, 3)


def test_no_room_is_made_for_a_caller_who_is_ahead_of_the_others(store: Store) -> None:
    for _ in range(100):
        accept(store, pages=1, terms=Terms(caller="greedy"))
    job = long_one(store, caller="other")
    claim = must_claim(store)
    while claim.job_id != job.id:
        claim = must_claim(store)
    overtaken = 0
    while store.short_waits(claim, 1):
        assert store.claim(OTHER, 1, short_first=True) is not None
        overtaken += 1
    assert 0 < overtaken <= claim.document.pages + 1
