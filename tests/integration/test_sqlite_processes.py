"""The store on SQLite under real processes: many at once, and killed at any moment."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from docfleet.records import JobState, ProcessIdentity, ShardState
from docfleet.store.sqlite import open_store, opening
from docfleet.store.sqlite.schema import migrations, upgrade, version_of
from docfleet.store.sqlite.statements import sql
from tests.integration.store_house import LOST, accept, accept_cut, job_of, must_claim, report

#: As the server starts its workers; each opens its own store.
CONTEXT = multiprocessing.get_context("fork")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "docfleet.db"


@contextmanager
def process(target: Callable[..., None], *args: object) -> Iterator[tuple[BaseProcess, Connection]]:
    """Run `target(pipe, *args)` in a process of its own; it is killed at the end if it still runs."""
    here, there = CONTEXT.Pipe()
    child = CONTEXT.Process(target=target, args=(there, *args))
    child.start()
    there.close()
    try:
        yield child, here
    finally:
        child.kill()
        child.join()


def together(count: int, target: Callable[..., object], *args: object) -> list[object]:
    """Return what `target(*args)` returned in each of `count` processes that began at the same moment."""
    results = CONTEXT.SimpleQueue()
    barrier = CONTEXT.Barrier(count, timeout=60)
    children = [CONTEXT.Process(target=_answer, args=(results, barrier, target, *args)) for _ in range(count)]
    for child in children:
        child.start()
    answers = [results.get() for _ in children]
    for child in children:
        child.join()
    return answers


def _answer(
    results: multiprocessing.SimpleQueue[object], barrier: Barrier, target: Callable[..., object], *args: object
) -> None:
    try:
        barrier.wait()
        results.put(target(*args))
    except BaseException as exc:
        results.put(repr(exc))


def me() -> ProcessIdentity:
    return ProcessIdentity(pid=os.getpid(), started=1)


def assert_sound(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


# --- many at once ------------------------------------------------------------------------------------------------


def _open_and_accept(path: Path) -> str:
    with open_store(path) as store:
        return accept(store).id


def test_many_processes_may_open_a_fresh_database_at_once(path: Path) -> None:
    accepted = together(6, _open_and_accept, path)
    with open_store(path) as store:
        assert store.states(map(str, accepted)) == dict.fromkeys(accepted, JobState.QUEUED)
        assert len(set(accepted)) == 6
    assert_sound(path)
    assert list(path.parent.glob("*.corrupt-*")) == []


def _upgrade(path: Path) -> int:
    with closing(opening.connect(path)) as database:
        upgrade(database, path)
        return version_of(database)


def test_every_step_of_the_schema_is_taken_once_however_many_try(path: Path) -> None:
    with closing(opening.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        assert together(6, _upgrade, path) == [len(migrations())] * 6


def test_of_many_that_meet_a_damaged_database_one_sets_it_aside_and_none_loses_work(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)
    answers = together(5, _open_and_accept, path)
    assert len(list(path.parent.glob("*.corrupt-*"))) == 1
    with open_store(path) as store:
        assert store.states(map(str, answers)) == dict.fromkeys(answers, JobState.QUEUED)
        assert len(set(answers)) == 5
    assert_sound(path)


def _claim_all(path: Path) -> list[int]:
    claimed = []
    with open_store(path) as store:
        while claim := store.claim(me(), 0):
            claimed.append(claim.shard_id)
    return claimed


def test_eight_processes_never_claim_the_same_shard(path: Path) -> None:
    with open_store(path) as store:
        for _ in range(8):
            accept_cut(store, *((page, page) for page in range(100)))
    claimed = together(8, _claim_all, path)
    assert all(isinstance(own, list) for own in claimed), claimed
    ids = [shard for own in claimed for shard in own]
    assert len(ids) == len(set(ids)) == 800
    with open_store(path) as store:
        leases = {lease.id: lease for lease in store.leases()}
        assert set(leases) == set(ids)
        assert {lease.attempt for lease in leases.values()} == {1}
    assert_sound(path)


# --- killed ------------------------------------------------------------------------------------------------------


def _open(pipe: Connection, path: Path) -> None:
    pipe.send("about to open")
    open_store(path).close()


def test_a_process_killed_while_it_makes_the_database_leaves_one_that_can_be_made(tmp_path: Path) -> None:
    chance = random.Random(11)
    for attempt in range(20):
        path = tmp_path / f"{attempt}.db"
        with process(_open, path) as (child, pipe):
            pipe.recv()
            time.sleep(chance.uniform(0.0, 0.015))
            child.kill()
        with open_store(path) as store:
            accept(store)
        assert_sound(path)
    assert list(tmp_path.glob("*.corrupt-*")) == []


def _stop_in_mid_claim(pipe: Connection, path: Path) -> None:
    store = open_store(path)
    with store._writing(durable=False) as transaction:
        values = {
            "pid": os.getpid(),
            "started": 1,
            "slot": 0,
            "now": 1.0,
            "patience": 2,
            "respite": 30,
            "batch_after": 4,
            "longest": 9,
            "shortness": 0,
        }
        transaction.execute(sql("claim_next"), values).fetchall()
        pipe.send("claimed, not committed")
        signal.pause()


def test_a_process_killed_in_the_middle_of_a_claim_has_claimed_nothing(path: Path) -> None:
    with open_store(path) as store:
        job = accept(store)
        with process(_stop_in_mid_claim, path) as (child, pipe):
            assert pipe.recv()
            child.kill()
            child.join()
            assert job_of(store, job).state is JobState.QUEUED
            assert must_claim(store).attempt == 1
    assert_sound(path)


def _hold(pipe: Connection, path: Path) -> None:
    with open_store(path) as store:
        claim = must_claim(store, me())
        pipe.send("claimed")
        pipe.recv()
        pipe.send(store.beat(claim, 1))
        pipe.send(store.complete(claim, output="late", report=report(3)))


def test_a_process_that_was_thought_dead_cannot_deliver(path: Path) -> None:
    with open_store(path) as store:
        job = accept(store)
        with process(_hold, path) as (_, pipe):
            assert pipe.recv() == "claimed"
            (lease,) = store.leases()
            assert store.give_back(lease, cause=LOST, max_attempts=3)
            second = must_claim(store)
            pipe.send("go on")
            assert pipe.recv() is False
            assert pipe.recv() is False
        assert store.complete(second, output="in time", report=report(3))
        assert job_of(store, job).output == "in time"


def _work(pipe: Connection, path: Path) -> None:
    with open_store(path) as store:
        pipe.send("open")
        while True:
            claim = store.claim(me(), 0)
            if claim is None:
                time.sleep(0.001)
                continue
            store.beat(claim, 1)
            store.complete(claim, output=f"{claim.shard_id}-{claim.attempt}", report=report(1))


def test_processes_killed_at_random_moments_lose_nothing_and_deliver_nothing_twice(path: Path) -> None:
    chance = random.Random(7)
    with open_store(path) as store:
        jobs = [accept_cut(store, *((page, page) for page in range(40))) for _ in range(15)]
        for _ in range(25):
            with process(_work, path) as (one, pipe), process(_work, path) as (other, _):
                pipe.recv()
                time.sleep(chance.uniform(0.0, 0.02))
                one.kill()
                time.sleep(chance.uniform(0.0, 0.01))
                other.kill()
            for lease in store.leases():
                assert store.give_back(lease, cause=LOST, max_attempts=1000)
        assert_sound(path)
        while claim := store.claim(me(), 0):
            assert store.complete(claim, output=f"{claim.shard_id}-{claim.attempt}", report=report(1))
        totals = store.totals()
        assert (totals.completed, totals.queued_jobs, totals.running_jobs) == (len(jobs), 0, 0)
        for job in jobs:
            shards = store.shards(job.id)
            assert {shard.state for shard in shards} == {ShardState.DONE}
            assert [shard.output for shard in shards] == [f"{shard.id}-{shard.attempt}" for shard in shards]
            assert sum(shard.attempt - 1 for shard in shards) <= totals.retries
        assert totals.retries == sum(shard.attempt - 1 for job in jobs for shard in store.shards(job.id))
    assert_sound(path)
