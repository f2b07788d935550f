"""What is particular to the store on SQLite: opening, upgrading, damage, durability, errors."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import pytest
from loguru import logger

from docfleet.errors import Busy, ConfigurationError, InternalError, StorageFull, StorageUnavailable
from docfleet.files import new_job_id, sync_file
from docfleet.options import ParseOptions
from docfleet.records import JobState, ShardPlan, Stage
from docfleet.store.admission import Terms
from docfleet.store.sqlite import SqliteStore, connection, open_store, opening
from docfleet.store.sqlite.schema import migrations, upgrade, version_of
from tests.integration.store_house import LOST, ME, a_document, accept, accept_cut, job_of, must_claim, report

T = TypeVar("T")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "docfleet.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with open_store(path) as store:
        yield store


@pytest.fixture
def errors() -> Iterator[list[str]]:
    messages: list[str] = []
    sink = logger.add(lambda message: messages.append(message.record["message"]), level="ERROR")
    yield messages
    logger.remove(sink)


def aside(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.glob("docfleet.db.corrupt-*"))


# --- the schema --------------------------------------------------------------------------------------------------


def test_a_database_of_version_1_comes_forward_with_its_jobs_and_counts(path: Path) -> None:
    with closing(opening.connect(path)) as old:
        upgrade(old, path, migrations()[:1])
        assert version_of(old) == 1
        columns = "id, state, filename, suffix, size, sha256, pages, options, created_at, pages_done, report"
        for number, (state, pages_done, told) in enumerate(
            [
                ("completed", 4, '{"failed_pages": []}'),
                ("partial", 4, '{"failed_pages": [{"page": 0}]}'),
                ("failed", 2, None),
                ("queued", 0, None),
            ]
        ):
            values = (f"{number:032x}", state, "a.pdf", "pdf", 1, "00", 4, "{}", 1.0, pages_done, told)
            old.execute(f"INSERT INTO jobs ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        columns = "job, stage, first_page, last_page, state, ready"
        old.execute(f"INSERT INTO shards ({columns}) VALUES (4, 'whole', 0, 3, 'queued', 1)")
    with open_store(path) as store:
        totals = store.totals()
        assert (totals.completed, totals.partial, totals.failed, totals.pages) == (1, 1, 1, 4 + 3)
        assert (totals.queued_jobs, totals.queued_pages) == (1, 4)
        assert store.complete(must_claim(store), output="r", report=report(4))
        assert store.totals().completed == 2
        assert store.workers() == []
    with closing(opening.connect(path)) as now:
        assert version_of(now) == len(migrations())


# From version 8 on a shard names its lane and its caller.
@pytest.mark.parametrize("level", range(1, 8))
def test_jobs_of_a_database_of_any_earlier_version_are_finished(path: Path, level: int) -> None:
    with closing(opening.connect(path)) as old:
        upgrade(old, path, migrations()[:level])
        columns = "id, state, filename, suffix, size, sha256, pages, options, created_at, started_at, pages_done"
        for number, (state, done) in enumerate([("queued", 0), ("running", 0), ("running", 2)], start=1):
            values = (f"{number:032x}", state, f"{number}.pdf", "pdf", 1, "00", 4, "{}", 1.0, None, done)
            old.execute(f"INSERT INTO jobs ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        columns = "job, stage, first_page, last_page, state, ready, attempt, pages_done, output, owner_pid"
        for row in [
            (1, "whole", 0, 3, "queued", 1, 0, 0, None, None),
            # Held by a worker of the old server when it was killed.
            (2, "whole", 0, 3, "running", 1, 1, 0, None, 2**22 + 1),
            (3, "pages", 0, 1, "done", 1, 1, 2, "part-done", 2**22 + 1),
            (3, "pages", 2, 3, "running", 1, 1, 0, None, 2**22 + 1),
            (3, "document", 0, 3, "queued", 0, 0, 0, None, None),
        ]:
            old.execute(f"INSERT INTO shards ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        old.execute("UPDATE shards SET owner_started = 1, worker_index = 0, claimed_at = 1.0 WHERE owner_pid NOT NULL")
        if level >= 8:
            # From here on somebody has sent what is under way.
            old.execute("INSERT INTO callers (id, lane, name, turn, open) VALUES (1, 'interactive', '', 0, 3)")
            old.execute("UPDATE jobs SET caller = 1")
            old.execute("UPDATE shards SET caller = 1")
    with open_store(path) as store:
        for lease in store.leases():
            assert store.give_back(lease, cause=LOST, max_attempts=3)
        parts = []
        while (claim := store.claim(ME, 1)) is not None:
            parts.append(claim.parts)
            assert store.complete(claim, output=f"made-{claim.shard_id}", report=report(4))
        # What was read before is not read again.
        assert len(parts) == 4
        assert ("part-done", "made-4") in parts
        for number in (1, 2, 3):
            job = store.job(f"{number:032x}")
            assert job is not None
            assert job.state is JobState.COMPLETED
        backlog = store.backlog()
        assert (backlog.jobs, backlog.pages) == (0, 0)


def test_a_step_that_fails_half_way_leaves_the_version_before_it(path: Path) -> None:
    good, *rest = migrations()
    broken = rest[0].__class__(
        number=2, name="broken", script="CREATE TABLE half (x);\nINSERT INTO nowhere VALUES (1);"
    )
    with closing(opening.connect(path)) as database:
        with pytest.raises(sqlite3.OperationalError):
            upgrade(database, path, [good, broken])
        assert version_of(database) == 1
        assert database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'half'").fetchone() is None
    with open_store(path) as store:
        accept(store)


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(path: Path, store: SqliteStore) -> None:
    accept(store)
    store.close()
    with closing(opening.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=r"newer version \(schema 99.*--data-dir"):
        open_store(path)
    assert path.read_bytes() == before
    assert aside(path.parent) == []


def test_claiming_reads_the_queue_from_its_index_alone(path: Path, store: SqliteStore) -> None:
    with closing(opening.connect(path)) as database:
        for name in ("claim_next", "anything_claimable", "short_waits"):
            text = connection.sql(name)
            names = dict.fromkeys(re.findall(r":(\w+)", text), 0)
            plan = " ".join(row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {text}", names))
            assert ("shards_short" if name == "short_waits" else "shards_claimable") in plan
            assert "TEMP B-TREE" not in plan


# --- damage ------------------------------------------------------------------------------------------------------


def _fill(path: Path) -> None:
    with open_store(path) as store:
        for _ in range(200):
            accept(store)


def test_one_page_of_a_database_with_one_flipped_byte_is_found(path: Path, errors: list[str]) -> None:
    _fill(path)
    whole = bytearray(path.read_bytes())
    with closing(sqlite3.connect(path)) as database:
        ((root,),) = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'jobs'")
    # The number of cells of the page at the root of the table of jobs (SQLite's file format, 1.6).
    whole[(root - 1) * 4096 + 4] ^= 0x40
    path.write_bytes(whole)
    with open_store(path) as store:
        assert store.totals().queued_jobs == 0
    (name,) = aside(path.parent)
    assert (path.parent / name).read_bytes() == whole
    assert name in errors[0]


@pytest.mark.parametrize("place", ["header", "middle", "cut off"])
def test_a_damaged_database_is_set_aside_and_a_fresh_one_begun(path: Path, place: str, errors: list[str]) -> None:
    _fill(path)
    whole = path.read_bytes()
    damaged = {
        "header": b"this is no database at all" * 8 + whole[208:],
        "middle": whole[:4096] + os.urandom(4096 * 6) + whole[4096 * 7 :],
        "cut off": whole[: len(whole) // 2],
    }[place]
    path.write_bytes(damaged)
    path.with_name("docfleet.db-wal").write_bytes(b"left over")
    with open_store(path) as store:
        assert store.totals().queued_jobs == 0
        accept(store)
    names = aside(path.parent)
    assert len(names) == 1
    assert (path.parent / names[0]).read_bytes() == damaged
    (message,) = errors
    assert names[0] in message
    with open_store(path) as store:
        assert store.totals().queued_jobs == 1
    assert len(errors) == 1


def test_the_log_of_a_damaged_database_goes_aside_with_it(path: Path, errors: list[str]) -> None:
    endings = ("", "-wal", "-shm")
    for ending in endings:
        path.with_name(path.name + ending).write_text(f"damaged{ending}")
    opening.set_aside(path, "for a test")
    first = aside(path.parent)[0]
    assert aside(path.parent) == sorted(first + ending for ending in endings)
    assert [(path.parent / (first + ending)).read_text() for ending in endings] == [f"damaged{e}" for e in endings]
    assert [entry.name for entry in path.parent.iterdir() if ".corrupt-" not in entry.name] == []
    assert len(errors) == 1


def test_a_damaged_database_that_others_have_open_is_not_moved_from_under_them(path: Path) -> None:
    _fill(path)
    with open_store(path) as store:
        with path.open("r+b") as file:
            file.write(b"no database" * 100)
        with pytest.raises(InternalError, match=r"docfleet\.db is damaged .*Restart"):
            open_store(path)
        assert aside(path.parent) == []
        del store


def test_the_log_of_a_killed_process_is_no_damage(path: Path, tmp_path: Path) -> None:
    with open_store(path) as store:
        job = accept(store)
        copy = tmp_path / "copy"
        copy.mkdir()
        # What a power cut or SIGKILL leaves: the log was never played into the database.
        for name in ("docfleet.db", "docfleet.db-wal"):
            (copy / name).write_bytes((tmp_path / name).read_bytes())
    with open_store(copy / "docfleet.db") as after:
        assert job_of(after, job) == job
    assert aside(copy) == []


# --- durability --------------------------------------------------------------------------------------------------


def test_what_must_survive_a_power_cut_is_synced_before_it_returns(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bytes]] = []

    def recording(file: Path) -> None:
        sync_file(file)
        synced.append((file.name, file.read_bytes()))

    monkeypatch.setattr(connection, "sync_file", recording)

    def was_synced(act: Callable[[], object]) -> bool:
        synced.clear()
        act()
        # All that was committed lay in the log when the log was synced.
        return bool(synced) and synced[-1] == ("docfleet.db-wal", path.with_name("docfleet.db-wal").read_bytes())

    assert was_synced(lambda: accept(store))
    assert not was_synced(lambda: must_claim(store))
    (lease,) = store.leases()
    assert was_synced(lambda: store.give_back(lease, cause=LOST, max_attempts=3))
    claim = must_claim(store)
    assert not was_synced(lambda: store.beat(claim, 1))
    assert was_synced(lambda: store.complete(claim, output="r", report=report(3)))
    # What an earlier call has written may not be on the disk yet: its sync failed, or goes on in another thread.
    assert was_synced(lambda: store.complete(claim, output="r", report=report(3)))
    accept(store)
    failing = must_claim(store)
    assert was_synced(lambda: store.fail(failing, LOST))
    assert was_synced(lambda: store.remove(claim.job_id))


def test_a_log_that_fails_to_reach_the_disk_is_told_and_the_same_call_again_forces_it_there(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    def once(file: Path) -> None:
        events.append("synced" if "failed" in events else "failed")
        if events[-1] == "failed":
            raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(connection, "sync_file", once)

    def told_twice(act: Callable[[], T]) -> T:
        events.clear()
        with pytest.raises(StorageUnavailable):
            act()
        result = act()
        assert events == ["failed", "synced"]
        return result

    terms = Terms(key="key", fingerprint="f", key_seconds=60)
    job_id, plans = new_job_id(), [ShardPlan(stage=Stage.WHOLE, first_page=0, last_page=2)]
    assert told_twice(lambda: store.accept(job_id, a_document(), ParseOptions(), plans, terms)).id == job_id
    claim = must_claim(store)
    assert told_twice(lambda: store.complete(claim, output="r", report=report(3)))
    accept_cut(store, (0, 2))
    claim = must_claim(store)
    assert told_twice(lambda: store.give_way(claim, 1, output="front"))
    told_twice(lambda: store.remove(job_id))
    assert store.job(job_id) is None
    assert (store.totals().completed, store.totals().queued_jobs, store.totals().running_jobs) == (1, 0, 1)


# --- errors ------------------------------------------------------------------------------------------------------


def test_a_folder_that_does_not_exist_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--data-dir"):
        open_store(tmp_path / "nowhere" / "docfleet.db")


def test_a_folder_in_the_databases_place_is_a_configuration_error(path: Path) -> None:
    path.mkdir()
    with pytest.raises(ConfigurationError, match="--data-dir"):
        open_store(path)


def test_a_full_disk_refuses_the_job_and_harms_nothing(path: Path, store: SqliteStore) -> None:
    job = accept(store)
    # SQLite answers a database at its page limit as it answers a full disk.
    (pages,) = store._writer.execute("PRAGMA page_count").fetchone()
    store._writer.execute(f"PRAGMA max_page_count = {pages}")
    plans = [ShardPlan(stage=Stage.PAGES, first_page=page, last_page=page) for page in range(2000)]
    plans.append(ShardPlan(stage=Stage.DOCUMENT, first_page=0, last_page=1999))
    with pytest.raises(StorageFull, match="free some"):
        store.accept(new_job_id(), a_document(2000), ParseOptions(), plans)
    assert store.totals().queued_jobs == 1
    assert store.complete(must_claim(store), output="r", report=report(3))
    assert job_of(store, job).state is JobState.COMPLETED


def test_a_disk_that_became_read_only_is_told_as_such_and_reading_goes_on(store: SqliteStore) -> None:
    job = accept(store)
    # SQLite answers a write on this connection as it answers one on a read-only disk.
    store._writer.execute("PRAGMA query_only = ON")
    with pytest.raises(StorageUnavailable, match="read-only") as caught:
        accept(store)
    assert (caught.value.status, caught.value.retry_after) == (503, 30)
    assert job_of(store, job) == job
    store._writer.execute("PRAGMA query_only = OFF")
    accept(store)


def test_a_lock_held_too_long_is_busy_and_reading_goes_on(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PATIENCE", 0.05)
    job = accept(store)
    with closing(opening.connect(path)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(Busy) as caught:
            accept(store)
        assert caught.value.retry_after
        assert job_of(store, job) == job
        assert store.totals().queued_jobs == 1
        holder.execute("ROLLBACK")
    accept(store)


def test_asking_for_work_in_vain_waits_for_nobody(path: Path, store: SqliteStore) -> None:
    with closing(opening.connect(path)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        assert store.claim(ME, 0) is None
        assert store.changed()
        assert not store.changed()


def test_an_exception_within_a_transaction_rolls_it_back(store: SqliteStore) -> None:
    class Stop(BaseException):
        pass

    with pytest.raises(Stop), store._writing(durable=True) as transaction:
        transaction.execute("DELETE FROM counters")
        raise Stop
    accept(store)
    assert store.totals().completed == 0


def test_a_closed_store_says_so(path: Path) -> None:
    store = open_store(path)
    store.close()
    store.close()
    for act in (store.changed, store.totals, lambda: accept(store)):
        with pytest.raises(InternalError, match="closed"):
            act()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_store_carried_over_a_fork_is_refused_in_the_child_and_unharmed_in_the_parent(store: SqliteStore) -> None:
    job = accept(store)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            store.totals()
        except InternalError:
            store.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert must_claim(store).job_id == job.id


# --- threads -----------------------------------------------------------------------------------------------------


def test_opening_is_not_refused_while_another_closes(path: Path) -> None:
    opened: list[int] = []

    def come_and_go() -> None:
        for _ in range(100):
            with open_store(path) as mine:
                opened.append(mine.totals().completed)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 400


def test_threads_share_one_store_and_no_shard_goes_twice(store: SqliteStore) -> None:
    accept_cut(store, *((page, page) for page in range(100)))
    claimed: list[int] = []

    def work() -> None:
        while claim := store.claim(ME, 0):
            claimed.append(claim.shard_id)
            assert store.beat(claim, 1)
            assert store.complete(claim, output=f"part-{claim.shard_id}", report=report(1))
            store.changed()
            store.totals()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The last page shard may have been under way when the others looked for the document stage.
    while claim := store.claim(ME, 0):
        claimed.append(claim.shard_id)
        assert store.complete(claim, output="document", report=report(100))
    assert sorted(claimed) == list(range(1, 102))
    assert store.totals().completed == 1
