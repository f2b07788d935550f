"""A worker in a thread of the test: real store, real rounds, an engine with faults."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from docfleet.engine.interface import EngineContext
from docfleet.files import DataFolder, new_job_id
from docfleet.options import ParseOptions, Tier
from docfleet.process.identity import identify
from docfleet.records import Document, Job, ShardPlan, Stage, WorkerReport, WorkerSlot, WorkerState
from docfleet.sharding.deadlines import Deadlines
from docfleet.shelf.folder import Shelves
from docfleet.store.sqlite import SqliteStore, open_store
from docfleet.worker.bench import Bench, Outcome, Work
from docfleet.worker.care import Care
from docfleet.worker.frugality import Frugality
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


@contextmanager
def open_worker_house(root: Path) -> Iterator[House]:
    """Serve one worker until the block ends."""
    folder = DataFolder(root)
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
