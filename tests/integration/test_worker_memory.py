"""A worker whose memory runs out, or whose device has none: real store, real rounds, an engine with faults."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from docfleet.engine.interface import EngineContext
from docfleet.files import DataFolder, new_job_id
from docfleet.options import ParseOptions, Tier
from docfleet.process.identity import identify
from docfleet.records import Document, Job, JobState, ShardPlan, Stage, WorkerReport, WorkerSlot, WorkerState
from docfleet.sharding.deadlines import Deadlines
from docfleet.shelf.folder import Shelves
from docfleet.store.sqlite import SqliteStore, open_store
from docfleet.worker.bench import Bench, Outcome, Work
from docfleet.worker.care import Care
from docfleet.worker.frugality import GOOD_SHARDS, Frugality
from docfleet.worker.heart import Heart
from docfleet.worker.recycling import Recycler, RecyclingLimits
from docfleet.worker.resting import Rest
from docfleet.worker.rounds import Rounds
from docfleet.worker.seat import Seat
from tests.engines import FaultyEngine
from tests.integration.store_house import OTHER

SLOT = WorkerSlot(index=0, device="cuda:0")


@dataclass
class Steps:
    """The three steps of the LitAPI."""

    bench: Bench
    heart: Heart

    def decode_request(self, request: Any) -> Work:
        return self.bench.decode(request)

    def predict(self, work: Work) -> Outcome:
        return self.bench.perform(work, self.heart.pages_done)

    def encode_response(self, output: Outcome) -> dict[str, Any]:
        return self.bench.encode(output)


@dataclass
class House:
    folder: DataFolder
    store: SqliteStore
    heart: Heart
    frugality: Frugality

    def send(self, name: str, *, pages: int = 1) -> Job:
        document = Document(filename=name, suffix="pdf", size=9, sha256="ab" * 32, pages=pages)
        job_id = new_job_id()
        self.folder.job(job_id).mkdir()
        self.folder.source(job_id, "pdf").write_bytes(b"%PDF-1.7 ")
        whole = ShardPlan(stage=Stage.WHOLE, first_page=0, last_page=pages - 1)
        return self.store.accept(job_id, document, ParseOptions(), [whole])

    def ended(self, job: Job) -> Job:
        def final() -> Job | None:
            found = self.store.job(job.id)
            return found if found is not None and found.state.final else None

        return until(final)

    def report(self) -> WorkerReport:
        return self.store.workers()[0]

    def shares(self) -> list[float]:
        log = self.folder.root / "jobs" / "shares.log"
        return [float(line) for line in (log if log.exists() else self.folder.root / "shares.log").read_text().split()]


def until(found: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)
    return value


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    folder = DataFolder(tmp_path)
    folder.create()
    scratch = folder.scratch(0)
    scratch.mkdir(parents=True)
    engine, owner = FaultyEngine(), identify()
    engine.load(EngineContext(device="cuda:0", threads=1, model_source="local", vlm_server_url=None, scratch=scratch))
    with open_store(folder.database) as store:
        seat = Seat(store, (SLOT,), (), owner)
        heart = Heart(store, seat.enter(0))
        heart.start()
        heart.tell(WorkerState.READY)
        bench = Bench(folder, [engine], Shelves(folder, "faulty", shared=False))
        deadlines = Deadlines(60, dict.fromkeys(Tier, 20.0))
        frugality = Frugality(heart.takes)
        rounds = Rounds(
            claims=store,
            bench=bench,
            heart=heart,
            care=Care(claims=store, bench=bench, deadlines=deadlines, max_attempts=2, slot=lambda: heart.report.slot),
            recycler=Recycler(RecyclingLimits(), store, heart, seat, owner=owner),
            seat=seat,
            rest=Rest(store, heart),
            frugality=frugality,
            owner=owner,
        )
        thread = Thread(target=rounds.serve, args=(Steps(bench, heart),), daemon=True)
        thread.start()
        yield House(folder, store, heart, frugality)
        # Whoever has lost its slot goes.
        store.retire(0, owner, "the test is over")
        store.announce(WorkerReport(slot=0, identity=OTHER, device="cuda:0", state=WorkerState.READY))
        heart.tell(WorkerState.READY)
        thread.join(20)
        assert not thread.is_alive()


def test_a_document_that_runs_out_of_memory_is_read_again_with_less_and_no_attempt_is_lost(house: House) -> None:
    done = house.ended(house.send("oom-above-0.25-x.pdf"))
    assert done.state is JobState.COMPLETED
    assert house.shares() == [1, 0.5, 0.25]
    assert house.store.totals().retries == 0
    (shard,) = house.store.shards(done.id)
    assert shard.attempt == 1
    assert "memory ran out: it reads with 0.25 of its share" in until(lambda: house.report().detail)


def test_the_worker_takes_more_again_step_by_step(house: House) -> None:
    house.ended(house.send("oom-above-0.5-x.pdf"))
    for number in range(GOOD_SHARDS):
        house.ended(house.send(f"plain-{number}.pdf"))
    assert house.frugality.share == 1
    until(lambda: house.report().detail == "")
    house.ended(house.send("oom-above-0.5-y.pdf"))
    assert house.shares() == [1, 0.5, 1, 0.5]


def test_what_fits_at_no_share_fails_as_out_of_memory_after_all_sizes_were_tried(house: House) -> None:
    done = house.ended(house.send("oom-above-0.0-x.pdf"))
    assert done.state is JobState.FAILED
    assert done.error is not None
    assert (done.error["code"], done.error["retryable"]) == ("out_of_memory", True)
    assert house.shares()[:4] == [1, 0.5, 0.25, 0.125]


def test_while_its_device_is_short_of_memory_a_worker_rests_and_says_why_and_goes_on_after(house: House) -> None:
    house.store.rest({0: "less than 512 MB of the memory of cuda:0 are free"}, 60)
    until(lambda: house.report().state is WorkerState.RESTING)
    assert house.report().detail.startswith("less than 512 MB")
    job = house.send("plain.pdf")
    time.sleep(0.3)
    waiting = house.store.job(job.id)
    assert waiting is not None
    assert waiting.state is JobState.QUEUED
    assert house.store.serving() == 0, "nobody is counted on that takes nothing"
    house.store.rest({}, 60)
    assert house.ended(job).state is JobState.COMPLETED
    assert house.report().state is not WorkerState.RESTING


def test_a_document_waits_where_others_fill_the_device_and_does_not_fail_for_it(house: House) -> None:
    job = house.send("sleep-0.1-oom-above-0.0-x.pdf")
    until(lambda: house.store.leases())
    house.store.rest({0: "others fill it"}, 60)
    until(lambda: house.report().state is WorkerState.RESTING)
    found = house.store.job(job.id)
    assert found is not None
    assert not found.state.final
    assert house.store.totals().retries == 1
