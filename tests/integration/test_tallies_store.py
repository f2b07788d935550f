"""Counts that outlive what they count: each is the truth of what was done, and is written with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from docfleet.errors import ParseFailed
from docfleet.records import ProcessIdentity, Stage, WorkerReport, WorkerState
from docfleet.sharding.verdicts import Fault
from docfleet.store.progress import read_progress
from docfleet.store.sqlite import SqliteStore, open_store, opening
from docfleet.store.sqlite.schema import migrations, upgrade
from docfleet.store.tallies import SHARD_SECONDS, DeviceTally, Event
from tests.integration.store_house import LOST, ME, OTHER, accept, accept_cut, must_claim, report

BAD = ParseFailed("no.").record()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[SqliteStore]:
    with open_store(tmp_path / "docfleet.db", clock=clock) as opened:
        for slot, (owner, device) in enumerate([(ME, "cuda:0"), (OTHER, "cpu")]):
            announced = WorkerReport(slot=slot, identity=owner, device=device, state=WorkerState.READY)
            assert opened.announce(announced)
        yield opened


def on(store: SqliteStore, device: str) -> DeviceTally:
    return next((one for one in store.tallies().devices if one.device == device), DeviceTally(device=device))


def counts(one: DeviceTally) -> tuple[int, int, int, int]:
    return one.shards_done, one.shards_failed, one.pages_done, one.pages_failed


def test_what_is_delivered_counts_on_the_device_of_its_slot_once(store: SqliteStore) -> None:
    accept_cut(store, (0, 3), (4, 9))
    first, second = store.claim(ME, 0), store.claim(OTHER, 1)
    assert first is not None
    assert second is not None
    assert store.complete(first, output="a", report={"tier": "basic"})
    assert store.complete(first, output="a", report={"tier": "basic"}), "told once more"
    assert store.complete(second, output="b", report={"tier": "basic"})
    last = must_claim(store)
    assert last.stage is Stage.DOCUMENT
    assert store.complete(last, output="c", report=report(10))
    assert counts(on(store, "cuda:0")) == (2, 0, 4, 0)
    assert counts(on(store, "cpu")) == (1, 0, 6, 0)


def test_pages_left_out_of_a_document_are_failed_and_not_done(store: SqliteStore) -> None:
    accept(store, pages=5)
    assert store.complete(must_claim(store), output="a", report=report(5, 1, 3))
    assert counts(on(store, "cuda:0")) == (1, 0, 3, 2)


def test_attempts_count_by_code_and_pages_only_when_nobody_tries_them_again(store: SqliteStore, clock: Clock) -> None:
    accept(store, pages=1)
    assert store.stumble(must_claim(store), LOST, max_attempts=2, fault=Fault.PROCESS)
    clock.now += 10
    assert counts(on(store, "cuda:0")) == (0, 1, 0, 0)
    assert store.stumble(must_claim(store), BAD, max_attempts=2)
    tallies = store.tallies()
    assert counts(on(store, "cuda:0")) == (0, 2, 0, 1)
    assert tallies.failures == {"worker_lost": 1, "parse_failed": 1}
    assert tallies.events[Event.JOB_FAILED] == {"parse_failed": 1}


def test_a_document_in_one_piece_whose_probes_all_fail_loses_each_page_once(store: SqliteStore, clock: Clock) -> None:
    accept(store, pages=4)
    while (claim := store.claim(ME, 0)) is not None:
        assert store.stumble(claim, BAD, max_attempts=1)
        # The worker that failed may have it again.
        clock.now += 10
    assert store.totals().failed == 1
    assert on(store, "cuda:0").pages_failed == 4
    assert on(store, "cuda:0").pages_done == 0


def test_the_page_that_a_cut_document_is_delivered_without_is_failed_once(store: SqliteStore, clock: Clock) -> None:
    accept_cut(store, (0, 1))
    assert store.stumble(must_claim(store), BAD, max_attempts=1)
    clock.now += 10
    halves = [must_claim(store), must_claim(store)]
    bad, good = sorted(halves, key=lambda half: half.first_page)
    assert store.stumble(bad, BAD, max_attempts=1)
    assert store.complete(good, output="b", report={"tier": "flash"})
    assert store.complete(must_claim(store), output="c", report=report(2, 0))
    assert counts(on(store, "cuda:0")) == (2, 2, 1, 1)


def test_an_error_that_ends_a_job_at_once_gives_its_pages_up(store: SqliteStore) -> None:
    accept(store, pages=3)
    assert store.fail(must_claim(store), {"code": "made up by an engine", "message": "no"})
    assert counts(on(store, "cuda:0")) == (0, 1, 0, 3)
    assert store.tallies().failures == {"other": 1}


def test_a_part_that_makes_room_counts_what_was_read_of_it(store: SqliteStore, clock: Clock) -> None:
    accept_cut(store, (0, 19))
    claim = must_claim(store)
    clock.now += 0.7
    assert store.give_way(claim, 5, output="front", tier="standard")
    assert counts(on(store, "cuda:0")) == (1, 0, 5, 0)
    (duration,) = store.tallies().durations
    assert (duration.tier, duration.stage, sum(duration.counts)) == ("standard", "pages", 1)


@pytest.mark.parametrize(("seconds", "bucket"), [(0.0, 0), (0.5, 2), (0.6, 3), (600.0, 11), (9999.0, 12), (-5.0, 0)])
def test_durations_are_counted_between_bounds(store: SqliteStore, clock: Clock, seconds: float, bucket: int) -> None:
    accept(store)
    claim = must_claim(store)
    clock.now += seconds
    assert store.complete(claim, output="a", report=report(3))
    (duration,) = store.tallies().durations
    assert duration.counts[bucket] == 1 == sum(duration.counts)
    assert len(duration.counts) == len(SHARD_SECONDS) + 1
    assert duration.seconds == pytest.approx(max(0.0, seconds))


def test_the_speeds_of_the_devices_are_together_that_of_the_server_and_end_with_the_work(
    store: SqliteStore, clock: Clock
) -> None:
    for owner, slot, pages in ((ME, 0, 30), (OTHER, 1, 10), (ME, 0, 20)):
        accept(store, pages=pages)
        claim = store.claim(owner, slot)
        assert claim is not None
        assert store.complete(claim, output="a", report=report(pages))
        clock.now += 2
    assert on(store, "cuda:0").pages_per_second == pytest.approx(5 * on(store, "cpu").pages_per_second)
    speeds = [one.pages_per_second for one in store.tallies().devices]
    assert sum(speeds) == pytest.approx(store.backlog().pages_per_second)
    clock.now += 120
    assert [one.pages_per_second for one in store.tallies().devices] == [0.0, 0.0]
    assert on(store, "cuda:0").pages_done == 50


def test_a_piece_that_took_a_minute_was_read_in_all_of_it_and_not_in_the_second_of_its_end(
    store: SqliteStore, clock: Clock
) -> None:
    for _ in range(3):
        accept(store, pages=20)
    for _ in range(3):
        claim = must_claim(store)
        for seconds in range(1, 121):
            clock.now += 1
            # A page each six seconds, told of twice a second.
            assert store.beat(claim, seconds // 6)
            if seconds >= 30:
                assert store.backlog().pages_per_second == pytest.approx(1 / 6, rel=0.2)
        assert store.complete(claim, output="a", report=report(20))
        assert store.backlog().pages_per_second == pytest.approx(1 / 6, rel=0.1)
        assert store.totals().pages_per_second == pytest.approx(1 / 6, rel=0.1)
    clock.now += 120
    assert store.backlog().pages_per_second == 0


def test_pages_under_way_count_as_progress_and_the_sum_of_pages_stays_what_it_is(store: SqliteStore) -> None:
    accept(store, pages=5)
    seen = []

    def look() -> None:
        told = read_progress(store)
        seen.append((told.pages_done, told.pages_failed, told.pages_waiting))

    look()
    claim = must_claim(store)
    assert store.beat(claim, 2)
    look()
    assert (on(store, "cuda:0").pages_done, on(store, "cuda:0").pages_under_way) == (0, 2)
    assert store.complete(claim, output="a", report=report(5, 4))
    look()
    assert (on(store, "cuda:0").pages_done, on(store, "cuda:0").pages_under_way) == (4, 0)
    assert seen == [(0, 0, 5), (2, 0, 3), (4, 1, 0)]


def test_events_count_by_kind_and_outlive_the_process(store: SqliteStore, tmp_path: Path) -> None:
    store.count_event(Event.WORKER_KILL, "deadline")
    store.count_event(Event.WORKER_KILL, "deadline")
    store.record_exit(ME.pid, -9)
    store.record_exit(OTHER.pid, 3)
    assert store.may_recycle(ME, 0, "memory")
    with open_store(tmp_path / "docfleet.db") as other:
        events = other.tallies().events
    assert events[Event.WORKER_KILL] == {"deadline": 2}
    assert events[Event.WORKER_EXIT] == {"SIGKILL": 1, "status_3": 1}
    assert events[Event.WORKER_RECYCLED] == {"memory": 1}


def _work_for_ever(path: Path, ready: str) -> None:
    me = ProcessIdentity(pid=os.getpid(), started=1)
    with open_store(path) as store:
        store.announce(WorkerReport(slot=3, identity=me, device="npu:0", state=WorkerState.READY))
        while True:
            accept(store, pages=2)
            claim = store.claim(me, 3)
            if claim is not None:
                store.complete(claim, output="a", report=report(2))
            Path(ready).touch()


def test_a_sigkill_in_the_middle_leaves_counts_that_agree_with_the_jobs(tmp_path: Path) -> None:
    path, ready = tmp_path / "docfleet.db", tmp_path / "ready"
    context = multiprocessing.get_context("spawn")
    for _ in range(3):
        ready.unlink(missing_ok=True)
        process = context.Process(target=_work_for_ever, args=(path, str(ready)))
        process.start()
        while not ready.exists():
            assert process.is_alive()
            process.join(0.01)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    with open_store(path) as store:
        totals, done = store.totals(), on(store, "npu:0")
        assert totals.completed == done.shards_done > 0
        assert totals.pages == done.pages_done
        assert sum(sum(one.counts) for one in store.tallies().durations) == done.shards_done


def test_the_speed_of_a_database_from_before_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "docfleet.db"
    with closing(opening.connect(path)) as old:
        upgrade(old, path, migrations()[:9])
        old.execute("INSERT INTO throughput (second, pages) VALUES (999, 120)")
    with open_store(path, clock=lambda: 1000.0) as store:
        assert store.totals().pages_per_second == 2.0
        assert store.backlog().pages_per_second == 60.0
        assert [(one.device, one.pages_per_second) for one in store.tallies().devices] == [("", 60.0)]
