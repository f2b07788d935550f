"""Bounds, keys, lanes and cancelling: what every store must do in one transaction, under concurrent processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from docfleet.errors import Busy, Cancelled, KeyReused
from docfleet.records import JobState, Lane, ShardPlan, ShardState, Stage, WorkerReport, WorkerState
from docfleet.sharding.fairness import LONG_SECONDS
from docfleet.store.admission import Backlog, JobFilter, Limits, Terms, refusal
from docfleet.store.sqlite import SqliteStore, open_store, opening
from docfleet.store.sqlite.schema import migrations, upgrade
from tests.integration.store_house import LOST, ME, OTHER, accept, accept_cut, job_of, must_claim, report

STOPPED = Cancelled("The job was cancelled.").record()
ROOM = Terms(limits=Limits(pages=10, jobs=100))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with open_store(tmp_path / "docfleet.db") as opened:
        yield opened


def test_the_backlog_never_exceeds_its_bound_however_many_enter_at_once(tmp_path: Path) -> None:
    path = tmp_path / "docfleet.db"
    start = threading.Barrier(8, timeout=60)
    over: list[int] = []

    def enter(_: int) -> int:
        taken = 0
        with open_store(path) as mine:
            start.wait()
            for _ in range(10):
                try:
                    accept(mine, pages=3, terms=ROOM)
                    taken += 1
                except Busy as busy:
                    assert busy.retry_after is not None
                    assert busy.retry_after >= 1
                over.append(mine.backlog().pages)
        return taken

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(enter, range(8))) == 3
    assert max(over) == 9


def test_the_backlog_shrinks_with_every_page_and_with_every_end(store: SqliteStore) -> None:
    jobs = [accept(store, pages=4) for _ in range(4)]
    assert (store.backlog().jobs, store.backlog().pages) == (4, 16)
    first, second = must_claim(store), must_claim(store)
    store.beat(first, 3)
    assert store.backlog().pages == 13
    store.complete(first, output="x", report=report(4))
    assert (store.backlog().jobs, store.backlog().pages) == (3, 12)
    store.fail(second, STOPPED)
    store.cancel(jobs[2].id, STOPPED)
    assert (store.backlog().jobs, store.backlog().pages) == (1, 4)
    store.remove(jobs[3].id)
    store.remove(jobs[0].id)
    assert (store.backlog().jobs, store.backlog().pages) == (0, 0)


def test_a_document_larger_than_the_bound_is_taken_when_there_is_nothing_else_to_do(store: SqliteStore) -> None:
    accept(store, pages=11, terms=ROOM)
    with pytest.raises(Busy, match=r"too many concurrent documents \(max 10 pages.*try again in \d+ seconds"):
        accept(store, pages=1, terms=ROOM)


def test_a_refusal_names_the_bound_and_a_time_measured_from_the_speed() -> None:
    limits = Limits(pages=100, jobs=3)
    assert refusal(Backlog(jobs=2, pages=90, pages_per_second=2), limits, 10) is None
    too_long = refusal(Backlog(jobs=2, pages=90, pages_per_second=2), limits, 30)
    assert too_long is not None
    assert too_long.retry_after == 10
    too_many = refusal(Backlog(jobs=3, pages=30, pages_per_second=0.5), limits, 1)
    assert too_many is not None
    assert "too many concurrent documents (max 3); try again in 20 seconds" in too_many.message


def keyed(key: str, fingerprint: str = "a", **more: object) -> Terms:
    return replace(Terms(key=key, fingerprint=fingerprint, key_seconds=60), **more)  # type: ignore[arg-type]


def test_one_key_is_one_job_however_many_send_it_at_once(tmp_path: Path) -> None:
    path = tmp_path / "docfleet.db"
    start = threading.Barrier(8, timeout=60)

    def enter(_: int) -> str:
        with open_store(path) as mine:
            start.wait()
            return accept(mine, terms=keyed("k")).id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(enter, range(8)))) == 1
    with open_store(path) as store:
        assert store.backlog().jobs == 1


def test_a_key_sent_with_something_else_is_refused_and_one_known_is_answered_even_when_full(
    store: SqliteStore,
) -> None:
    job = accept(store, pages=10, terms=keyed("k", limits=ROOM.limits))
    assert accept(store, pages=10, terms=keyed("k", limits=ROOM.limits)).id == job.id
    with pytest.raises(KeyReused):
        accept(store, terms=keyed("k", "b"))
    assert store.knows_key("k")
    assert not store.knows_key("other")


def test_a_key_expires_and_goes_with_its_job(tmp_path: Path) -> None:
    now = [1000.0]
    with open_store(tmp_path / "docfleet.db", clock=lambda: now[0]) as store:
        first = accept(store, terms=keyed("k"))
        now[0] += 61
        assert not store.knows_key("k")
        second = accept(store, terms=keyed("k"))
        assert second.id != first.id
        store.cancel(second.id, STOPPED)
        third = accept(store, terms=keyed("k", "b"))
        store.remove(third.id)
        assert not store.knows_key("k")


def claimed_lane(store: SqliteStore) -> Lane:
    job = store.job(must_claim(store).job_id)
    assert job is not None
    return job.lane


def test_the_interactive_lane_goes_first_and_the_batch_lane_never_starves(store: SqliteStore) -> None:
    for _ in range(12):
        accept(store, terms=Terms(lane=Lane.BATCH))
        accept(store)
    lanes = [claimed_lane(store) for _ in range(15)]
    assert "".join(lane[0] for lane in lanes) == "iiiib" * 3


def test_of_long_documents_in_one_piece_never_so_many_are_read_that_no_worker_is_left(store: SqliteStore) -> None:
    for slot in range(3):
        store.announce(WorkerReport(slot=slot, identity=ME, device="cpu", state=WorkerState.READY))
    long = [accept(store, pages=50).id for _ in range(4)]
    assert [store.keep_whole(must_claim(store), LONG_SECONDS) for _ in long] == [True, True, False, False]
    assert [store.job(job).state for job in long] == [JobState.RUNNING] * 2 + [JobState.QUEUED] * 2  # type: ignore[union-attr]
    assert store.claim(ME, 2) is None
    short = accept(store, pages=350)
    claim = must_claim(store)
    assert claim.job_id == short.id
    assert store.keep_whole(claim, LONG_SECONDS - 0.1)
    first, second = (lease for lease in store.leases() if lease.job_id != short.id)
    for lease in (first, second):
        store.give_back(lease, cause=LOST, max_attempts=3, delay=1000)
    waited = [must_claim(store) for _ in range(2)]
    assert [(claim.job_id, claim.attempt) for claim in waited] == [(long[2], 1), (long[3], 1)]
    assert all(store.keep_whole(claim, LONG_SECONDS) for claim in waited)


def test_a_worker_that_is_alone_reads_long_documents_too(store: SqliteStore) -> None:
    store.announce(WorkerReport(slot=0, identity=ME, device="cpu", state=WorkerState.READY))
    accept(store, pages=50)
    assert store.keep_whole(must_claim(store), 1000.0)


def test_a_long_document_stage_counts_as_a_long_piece(store: SqliteStore) -> None:
    for slot in range(2):
        store.announce(WorkerReport(slot=slot, identity=ME, device="cpu", state=WorkerState.READY))
    job = accept(store, pages=4)
    plans = [ShardPlan(stage=Stage.PAGES, first_page=page, last_page=page) for page in range(4)]
    plans.append(ShardPlan(stage=Stage.DOCUMENT, first_page=0, last_page=3, seconds=LONG_SECONDS))
    assert store.split(must_claim(store), plans, {})
    long = accept(store, pages=350)
    claims = [must_claim(store) for _ in range(5)]
    (whole,) = [claim for claim in claims if claim.job_id == long.id]
    assert store.keep_whole(whole, LONG_SECONDS)
    for claim in claims:
        if claim is not whole:
            store.complete(claim, output="x", report={})
    assert store.claim(ME, 1) is None
    store.complete(whole, output="x", report=report(350))
    assert must_claim(store).job_id == job.id


def test_a_cancelled_job_refuses_late_results_and_remembers_who_was_at_it(store: SqliteStore) -> None:
    job = accept_cut(store, (0, 1), (2, 3))
    claim = must_claim(store)
    assert store.cancel(job.id, STOPPED)
    assert not store.cancel(job.id, STOPPED)
    assert not store.beat(claim, 1)
    assert not store.complete(claim, output="x", report={})
    assert store.claim(OTHER, 1) is None
    assert job_of(store, job).state is JobState.CANCELLED
    assert job_of(store, job).error == STOPPED
    assert {shard.state for shard in store.shards(job.id)} == {ShardState.FAILED}
    assert store.leases() == []
    (revoked,) = store.revoked()
    assert (revoked.shard_id, revoked.job_id, revoked.owner, revoked.let_go) == (claim.shard_id, job.id, ME, False)
    store.let_go(claim)
    assert store.revoked()[0].let_go
    store.forget_revoked(claim.shard_id)
    assert store.revoked() == []
    assert store.totals().cancelled == 1


def test_a_finished_job_cannot_be_cancelled(store: SqliteStore) -> None:
    job = accept(store)
    store.complete(must_claim(store), output="x", report=report(3))
    assert not store.cancel(job.id, STOPPED)
    assert job_of(store, job).state is JobState.COMPLETED


def test_a_job_that_others_know_of_outlives_the_caller_who_sent_it(store: SqliteStore) -> None:
    mine = accept(store, terms=Terms(kept=False))
    shared = accept(store, terms=keyed("k", kept=False))
    # Sent again by a caller who may leave as well: of the two, nobody knows who waits.
    accept(store, terms=keyed("k", kept=False))
    told = accept(store, terms=Terms(kept=False))
    store.keep(told.id)
    assert store.cancel(mine.id, STOPPED, even_kept=False)
    assert not store.cancel(shared.id, STOPPED, even_kept=False)
    assert not store.cancel(told.id, STOPPED, even_kept=False)


def test_jobs_are_listed_newest_first_in_pages_that_neither_repeat_nor_miss_any(store: SqliteStore) -> None:
    jobs = [accept(store).id for _ in range(7)]
    seen: list[str] = []
    before = None
    while True:
        found, before = store.listed(JobFilter(), limit=3, before=before)
        seen += [job.id for job in found]
        accept(store)
        if before is None:
            break
    assert seen == jobs[::-1]


def test_jobs_are_listed_by_state_name_and_time(tmp_path: Path) -> None:
    now = [1000.0]
    with open_store(tmp_path / "docfleet.db", clock=lambda: now[0]) as store:
        ended = accept(store)
        store.cancel(ended.id, STOPPED)
        now[0] = 2000.0
        open_ = accept(store)

        def found(**wanted: object) -> list[str]:
            return [job.id for job in store.listed(JobFilter(**wanted), limit=9)[0]]  # type: ignore[arg-type]

        assert found(states=(JobState.QUEUED, JobState.RUNNING)) == [open_.id]
        assert found(states=(JobState.CANCELLED,)) == [ended.id]
        assert found(created_after=1500) == [open_.id]
        assert found(created_before=2000) == [ended.id]
        assert found(filename="PAPER.p") == [open_.id, ended.id]
        assert found(filename="%") == []


def test_a_job_knows_its_place_in_the_queue(store: SqliteStore) -> None:
    running = accept(store, pages=4)
    store.beat(must_claim(store), 1)
    batch = accept(store, pages=1, terms=Terms(lane=Lane.BATCH))
    first, second = accept(store, pages=2), accept(store, pages=2)
    assert store.place(running.id).position is None
    assert (store.place(first.id).position, store.place(first.id).pages_ahead) == (0, 3)
    assert (store.place(second.id).position, store.place(second.id).pages_ahead) == (1, 5)
    assert (store.place(batch.id).position, store.place(batch.id).pages_ahead) == (2, 7)
    assert store.progress([running.id, "unknown"])[running.id].pages_done == 1


def test_shards_made_later_keep_the_turn_of_their_job(store: SqliteStore) -> None:
    early = accept_cut(store, (0, 3), (4, 7))
    must_claim(store)
    late = accept(store, ShardPlan(stage=Stage.WHOLE, first_page=5, last_page=6), pages=9)
    assert [must_claim(store).job_id for _ in range(2)] == [late.id, early.id]


def test_jobs_of_an_older_database_count_as_backlog_and_are_claimed(tmp_path: Path) -> None:
    path = tmp_path / "docfleet.db"
    with closing(opening.connect(path)) as old:
        upgrade(old, path, migrations()[:3])
        old.execute(
            "INSERT INTO jobs (id, state, filename, suffix, size, sha256, pages, options, created_at, finished_at) "
            "VALUES ('a', 'queued', 'a.pdf', 'pdf', 1, 'x', 9, '{}', 1, NULL), "
            "('b', 'failed', 'b.pdf', 'pdf', 1, 'x', 9, '{}', 1, 2)"
        )
        old.execute(
            "INSERT INTO shards (job, stage, first_page, last_page, state, ready) "
            "VALUES (1, 'whole', 2, 5, 'queued', 1)"
        )
    with open_store(path) as store:
        assert (store.backlog().jobs, store.backlog().pages) == (1, 4)
        store.complete(must_claim(store), output="x", report=report(4))
        assert (store.backlog().jobs, store.backlog().pages) == (0, 0)
