"""Uploads on a disk that fails at a bad moment: a refused one leaves no row without its document."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
import pytest_asyncio

from docfleet.errors import Busy, StorageUnavailable
from docfleet.files import DataFolder, new_job_id, sync_file
from docfleet.intake.accept import Intake
from docfleet.intake.inspector import Inspector
from docfleet.intake.reuse import Reuse
from docfleet.intake.spool import Upload
from docfleet.options import ParseOptions
from docfleet.process.identity import identify
from docfleet.records import Job, JobState, ShardPlan, Stage, WorkerReport, WorkerState
from docfleet.store import reuse as results
from docfleet.store.admission import Terms
from docfleet.store.sqlite import SqliteStore, connection, open_store
from tests import made_documents as made
from tests.integration.store_house import a_document, must_claim, report

#: The same bytes each time: a saved PDF has an id of its own.
PDF = made.pdf()
WHOLE = ShardPlan(stage=Stage.WHOLE, first_page=0, last_page=0)
KEYED = Terms(key="key", key_seconds=60)


@dataclass
class Room:
    folder: DataFolder
    store: SqliteStore
    intake: Intake

    def upload(self, content: bytes) -> Upload:
        path = self.folder.new_upload()
        path.write_bytes(content)
        return Upload(path=path, filename="a.pdf", size=len(content), sha256=sha256(content).hexdigest(), options={})

    async def accept(self, content: bytes, terms: Terms = KEYED) -> Job:
        return await self.intake.accept(self.upload(content), terms)

    def deliver(self) -> Job:
        """Do the next shard as a worker would."""
        claim = must_claim(self.store, identify())
        output = self.folder.result(claim.job_id, claim.attempt)
        output.mkdir(parents=True)
        (output / "document.md").write_text("text")
        told = report(1, files=["document.md"])
        assert self.store.complete(claim, output=self.folder.relative(output), report=told)
        job = self.store.job(claim.job_id)
        assert job is not None
        return job

    def files(self) -> list[Path]:
        return [*self.folder.incoming.iterdir(), *self.folder.jobs.iterdir()]


def held(*arguments: object) -> None:
    raise Busy("The store is held.")


@pytest_asyncio.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    folder = DataFolder(tmp_path / "data")
    folder.create()
    inspector = Inspector(processes=1)
    with closing(open_store(folder.database)) as store:
        ready = WorkerReport(slot=0, identity=identify(), device="cpu", state=WorkerState.READY, engines="fingerprint")
        store.announce(ready)
        yield Room(folder, store, Intake(store, folder, inspector, reuse=Reuse(store, folder)))
        await inspector.close()


@pytest.fixture
def failing_log(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many times from now on the store's log fails to reach the disk."""
    left = [0]

    def sync(file: Path) -> None:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.EIO, "Input/output error")
        sync_file(file)

    monkeypatch.setattr(connection, "sync_file", sync)
    return left


async def test_what_is_refused_because_the_log_did_not_reach_the_disk_is_not_entered(
    room: Room, failing_log: list[int]
) -> None:
    failing_log[0] = 1
    with pytest.raises(StorageUnavailable):
        await room.accept(PDF)
    assert room.store.totals().backlog_jobs == 0
    assert room.files() == []
    job = await room.accept(PDF)
    assert room.folder.source(job.id, "pdf").exists()
    assert room.store.totals().backlog_jobs == 1


async def test_a_row_that_cannot_be_removed_keeps_its_document_and_its_key_leads_to_it(
    room: Room, failing_log: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room.store, "remove", held)
    failing_log[0] = 1
    with pytest.raises(StorageUnavailable):
        await room.accept(PDF)
    (waiting,) = room.folder.jobs.iterdir()
    job = await room.accept(PDF)
    assert job.id == waiting.name
    assert room.folder.source(job.id, "pdf").exists()
    assert [path.name for path in room.files()] == [job.id]


async def test_a_strangers_result_that_cannot_be_handed_on_is_no_reason_to_refuse_a_document(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, follower = new_job_id(), new_job_id()
    for job_id in (leader, follower):
        room.folder.job(job_id).mkdir()
        room.store.accept(job_id, a_document(1), ParseOptions(), [WHOLE], reuse_key="stranger")
    room.deliver()

    def broken(source: Path, target: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(results, "_link", broken)
        job = await room.accept(PDF)
    assert job.state is JobState.QUEUED
    assert room.folder.source(job.id, "pdf").exists()
    assert must_claim(room.store).job_id == job.id
    assert results.hand_on(room.store, room.folder) == 1


async def test_a_stored_result_whose_row_did_not_reach_the_disk_is_not_entered_or_keeps_its_files(
    room: Room, failing_log: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    await room.accept(PDF, Terms())
    first = room.deliver()
    failing_log[0] = 1
    with pytest.raises(StorageUnavailable):
        await room.accept(PDF)
    assert [path.name for path in room.files()] == [first.id]
    # Its removal fails, too, when the row is gone: files without a row go at the next start.
    failing_log[0] = 2
    with pytest.raises(StorageUnavailable):
        await room.accept(PDF)
    assert len(room.files()) == 2
    assert not room.store.knows_key("key")

    monkeypatch.setattr(room.store, "remove", held)
    failing_log[0] = 1
    with pytest.raises(StorageUnavailable):
        await room.accept(PDF)
    again = await room.accept(PDF)
    assert (again.state, again.cached) == (JobState.COMPLETED, True)
    assert again.output is not None
    assert (room.folder.absolute(again.output) / "document.md").read_text() == "text"


async def test_a_store_that_is_held_leaves_nothing_of_a_stored_result(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    await room.accept(PDF, Terms())
    first = room.deliver()

    monkeypatch.setattr(room.store, "serve", held)
    with pytest.raises(Busy):
        await room.accept(PDF)
    assert [path.name for path in room.files()] == [first.id]
