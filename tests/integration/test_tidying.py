"""What nobody needs goes: all of it, soon, and nobody waits for it. Real store, real files."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi import FastAPI
from loguru import logger

from docfleet.errors import Cancelled, ParseFailed
from docfleet.files import DataFolder, new_job_id, remove_tree
from docfleet.host.life import ApiLife
from docfleet.options import ParseOptions
from docfleet.process.identity import identify
from docfleet.records import (
    Claim,
    Document,
    Job,
    JobState,
    ProcessIdentity,
    ShardPlan,
    Stage,
    WorkerReport,
    WorkerSlot,
    WorkerState,
)
from docfleet.settings import resolve
from docfleet.store import reuse
from docfleet.store.reuse import hand_on
from docfleet.store.sqlite import SqliteStore, open_store
from docfleet.supervisor import tidying
from docfleet.supervisor.sizes import keep_within
from docfleet.supervisor.tidying import Leftovers, clear_leftovers, retire_results
from tests.integration.store_house import ME, job_of, must_claim, report

WHOLE = ShardPlan(stage=Stage.WHOLE, first_page=0, last_page=0)
HOUR = 3600.0


@dataclass
class Room:
    store: SqliteStore
    folder: DataFolder
    now: float

    def accept(self, key: str | None = None) -> Job:
        job_id = new_job_id()
        self.folder.job(job_id).mkdir()
        self.folder.source(job_id, "pdf").write_bytes(b"s" * 100)
        document = Document(filename="a.pdf", suffix="pdf", size=100, sha256="ab" * 32, pages=1)
        return self.store.accept(job_id, document, ParseOptions(), [WHOLE], reuse_key=key, engines=["x"])

    def read(self, owner: ProcessIdentity = ME) -> tuple[Claim, str]:
        """Do the next job up to the moment before it is delivered."""
        claim = must_claim(self.store, owner)
        part = self.folder.part(claim.job_id, claim.shard_id, claim.attempt)
        part.mkdir(parents=True)
        (part / "pages").write_bytes(b"p" * 1000)
        output = self.folder.result(claim.job_id, claim.attempt)
        output.mkdir()
        (output / "document.md").write_bytes(b"r" * 10)
        return claim, self.folder.relative(output)

    def deliver(self) -> Claim:
        """Do the next job and die right after it was recorded."""
        claim, output = self.read()
        assert self.store.complete(claim, output=output, report=report(1, files=["document.md"]))
        return claim

    def ended(self, number: int) -> list[str]:
        """Make so many jobs that have ended, in order, with as few files as possible."""
        jobs = []
        for _ in range(number):
            jobs.append(self.accept().id)
            claim = must_claim(self.store)
            assert self.store.complete(claim, output=f"jobs/{claim.job_id}/result-1", report=report(1))
            self.now += 0.001
        return jobs

    def files(self, job_id: str) -> set[str]:
        top = self.folder.job(job_id)
        return {path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file()}


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    folder = DataFolder(tmp_path / "data")
    folder.create()
    room: Room
    with open_store(folder.database, clock=lambda: room.now) as store:
        # Whatever ends in this room ended long ago.
        room = Room(store, folder, time.time() - 24 * HOUR)
        yield room


@pytest.fixture
def _signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def slow_removal(monkeypatch: pytest.MonkeyPatch, seconds: float) -> list[Path]:
    """Let each removal by the tidying take so long. Return what it begins to remove."""
    begun: list[Path] = []

    def remove(path: Path) -> None:
        begun.append(path)
        time.sleep(seconds)
        remove_tree(path)

    monkeypatch.setattr(tidying, "remove_tree", remove)
    return begun


def test_one_look_removes_all_that_is_past_its_retention(room: Room) -> None:
    room.ended(250)
    room.now = time.time()
    (kept,) = room.ended(1)
    assert retire_results(room.folder, room.store, HOUR, budget=60) == 250
    assert [path.name for path in room.folder.jobs.iterdir()] == [kept]


def test_a_look_that_takes_too_long_leaves_the_rest_to_the_next(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = room.ended(30)
    slow_removal(monkeypatch, 0.05)
    removed = retire_results(room.folder, room.store, HOUR, budget=0.2)
    assert 1 <= removed <= 5
    assert room.store.known(jobs) == set(jobs[removed:]), "the oldest went"
    assert removed + retire_results(room.folder, room.store, HOUR, budget=60) == 30


def test_one_look_removes_all_for_which_there_is_no_room(room: Room) -> None:
    room.ended(250)
    assert keep_within(room.folder, room.store, 40 * 100, budget=60) == 210
    assert len(list(room.folder.jobs.iterdir())) == 40


def test_what_a_worker_that_died_after_its_delivery_left_is_removed_and_not_counted(room: Room) -> None:
    delivered, failed = room.accept(), room.accept()
    claim = room.deliver()
    abandoned = room.folder.result(claim.job_id, 7)
    abandoned.mkdir()
    claim, _ = room.read()
    assert room.store.fail(claim, ParseFailed("It cannot be read.").record())
    keep_within(room.folder, room.store, 0)
    assert room.files(delivered.id) == {"source.pdf", "result-1/document.md"}
    assert not abandoned.exists()
    assert not room.folder.job(failed.id).exists()
    assert room.store.stored_bytes() == 110


def test_a_document_whose_result_came_from_another_needs_no_source(room: Room) -> None:
    room.accept("same")
    follower = room.accept("same")
    leader = room.deliver()
    links = room.folder.result(follower.id, 5)
    reuse.link_result(room.folder, f"jobs/{leader.job_id}/result-1", ["document.md"], links)
    due = room.store.followers_due(10)
    # A worker links, another process links and finishes; both die before they clear anything away.
    reuse.link_result(room.folder, due[0].output, due[0].files, room.folder.result(follower.id, 6))
    assert room.store.finish_followers([(due[0], f"jobs/{follower.id}/result-6")]) == {follower.id}
    keep_within(room.folder, room.store, 0)
    assert room.files(follower.id) == {"result-6/document.md"}


def test_a_follower_that_ends_while_it_is_linked_costs_its_leader_nothing(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.store.announce(WorkerReport(slot=0, identity=ME, device="cpu", state=WorkerState.BUSY, engines="x"))
    leader, follower = room.accept("same"), room.accept("same")
    room.deliver()
    link = reuse._link

    def overtaken(source: Path, target: Path) -> None:
        # In the middle of it another process is done, and tidies.
        monkeypatch.setattr(reuse, "_link", link)
        assert hand_on(room.store, room.folder) == 1
        keep_within(room.folder, room.store, 0)
        link(source, target)

    monkeypatch.setattr(reuse, "_link", overtaken)
    assert hand_on(room.store, room.folder) == 0
    assert job_of(room.store, follower).state is JobState.COMPLETED
    room.store.remove(follower.id)
    found = room.store.reusable("same", ["x"])
    assert found is not None
    assert found.id == leader.id


def test_at_start_only_strangers_are_looked_for_and_the_rest_after(room: Room) -> None:
    jobs = [room.accept().id for _ in range(3)]
    for _ in jobs:
        room.deliver()
    stranger = room.folder.job(new_job_id())
    stranger.mkdir()
    left = clear_leftovers(room.folder, room.store)
    assert sorted(left) == sorted(jobs)
    assert not stranger.exists()
    assert all(room.folder.work(job).exists() for job in jobs)
    leftovers = Leftovers(room.folder, room.store, left)
    assert leftovers.look() == 0
    assert all(room.files(job) == {"source.pdf", "result-1/document.md"} for job in jobs)


@pytest.mark.parametrize("harm", [Path.unlink, lambda database: database.write_bytes(b"")])
def test_results_are_kept_when_their_database_was_emptied_or_removed_until_somebody_says_otherwise(
    tmp_path: Path, harm: Callable[[Path], object]
) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.create()

    def start(*, work: bool = False) -> list[str]:
        with open_store(folder.database) as store:
            room, told = Room(store, folder, time.time()), []
            sink = logger.add(lambda message: told.append(str(message)), level="WARNING")
            clear_leftovers(folder, store)
            logger.remove(sink)
            if work:
                room.accept()
                room.deliver()
        return told

    assert start(work=True) == []
    (result,) = folder.jobs.glob("*/result-1/document.md")
    folder.job(new_job_id()).mkdir()
    harm(folder.database)
    # The second of these starts finds a store that has ended jobs again.
    for _ in range(2):
        (warning,) = start(work=True)
        assert "results of 1 documents" in warning
        assert result.exists()
    mark = folder.database.with_name("docfleet.db.lost")
    assert str(mark) in warning
    mark.unlink()
    assert start() == []
    assert not result.exists()
    assert len(list(folder.jobs.iterdir())) == 2


@pytest.mark.usefixtures("_signals")
async def test_a_worker_that_does_not_let_go_is_killed_in_time_however_much_is_being_removed(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    expired = room.ended(40)
    begun = slow_removal(monkeypatch, 0.5)
    room.now = time.time()
    settings = resolve({"data_dir": room.folder.root, "retention_hours": 1}, {}).settings
    slot = WorkerSlot(index=0, device="cpu")
    life = ApiLife(settings=settings, folder=room.folder, slots=(slot,), facts={})
    hanging = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        job = room.accept()
        async with life(FastAPI()):
            room.now = time.time()
            must_claim(room.store, identify(hanging.pid))
            await until(lambda: any(path.name in expired for path in begun))
            cancelled = time.monotonic()
            room.now = time.time()
            assert room.store.cancel(job.id, Cancelled("Nobody wants it.").record())
            await until(lambda: hanging.poll() is not None)
            assert time.monotonic() - cancelled < 2
            assert room.store.known(expired), "they were still being removed"
    finally:
        hanging.kill()
        hanging.wait()


async def until(found: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, "it did not come to that"
        await asyncio.sleep(0.01)
