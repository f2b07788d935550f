"""From an upload to a job, with the real store and the real inspector."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from docfleet.errors import Busy, DocfleetError, StorageFull
from docfleet.files import DataFolder
from docfleet.intake import accept as accepting
from docfleet.intake.accept import Intake
from docfleet.intake.inspector import Inspector
from docfleet.intake.plan import plan_shards
from docfleet.intake.spool import Upload
from docfleet.options import ParseOptions
from docfleet.records import Document, Job, JobState, ShardPlan, Stage
from docfleet.store.admission import Terms
from docfleet.store.interface import Jobs
from docfleet.store.sqlite import open_store
from tests import made_documents as made

ALLOWED = "http://vlm.example:8000/"


@dataclass
class Room:
    folder: DataFolder
    store: Jobs
    inspector: Inspector

    def intake(self, store: Any = None) -> Intake:
        return Intake(store or self.store, self.folder, self.inspector, allowed_server_urls=[ALLOWED])

    def upload(self, content: bytes, filename: str = "a.pdf", **options: Any) -> Upload:
        path = self.folder.new_upload()
        path.write_bytes(content)
        digest = sha256(content).hexdigest()
        return Upload(path=path, filename=filename, size=len(content), sha256=digest, options=options)

    def is_empty(self) -> bool:
        jobs = self.store.totals().queued_jobs
        return jobs == 0 and not [*self.folder.incoming.iterdir(), *self.folder.jobs.iterdir()]


@pytest_asyncio.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    folder = DataFolder(tmp_path / "data")
    folder.create()
    inspector = Inspector(processes=1)
    with closing(open_store(folder.database)) as store:
        yield Room(folder, store, inspector)
        await inspector.close()


async def test_an_upload_becomes_a_job_with_its_file_in_its_place(room: Room) -> None:
    content = made.pdf(5)
    upload = room.upload(content, "Bericht \u202e.pdf", tier="flash", start_page_id="1", end_page_id="3")
    job = await room.intake().accept(upload)
    assert job == room.store.job(job.id)
    assert job.state is JobState.QUEUED
    assert job.document == Document(
        filename="Bericht .pdf", suffix="pdf", size=len(content), sha256=sha256(content).hexdigest(), pages=5
    )
    assert room.folder.source(job.id, "pdf").read_bytes() == content
    assert list(room.folder.incoming.iterdir()) == []
    (shard,) = room.store.shards(job.id)
    assert (shard.stage, shard.first_page, shard.last_page) == (Stage.WHOLE, 1, 3)


async def test_the_type_by_content_names_the_file_whatever_the_caller_says(room: Room) -> None:
    job = await room.intake().accept(room.upload(made.word(), "../../evil.pdf"))
    assert [path.name for path in room.folder.job(job.id).iterdir()] == ["source.docx"]
    assert (job.document.filename, job.document.suffix, job.document.pages) == ("evil.pdf", "docx", 1)


@pytest.mark.parametrize(
    ("content", "options", "code", "status"),
    [
        (b"", {}, "empty_document", 422),
        (made.pdf()[:300], {}, "broken_document", 422),
        (made.word()[:-100], {}, "broken_document", 422),
        (made.pdf(password="x"), {}, "encrypted_document", 422),
        (b"\x7fELF", {}, "unsupported_type", 415),
        (made.office(parts={"word/styles.xml": made.laughs()}), {}, "hostile_document", 422),
        (made.overlapping(), {}, "hostile_document", 422),
        (made.pdf(3), {"start_page_id": 3}, "invalid_page_range", 422),
        (made.word(), {"start_page_id": 1}, "invalid_page_range", 422),
        (made.pdf(3), {"start_page_id": 2, "end_page_id": 1}, "invalid_option", 422),
        (made.pdf(), {"tear": "flash"}, "invalid_option", 422),
        (made.pdf(), {"tier": "best"}, "invalid_option", 422),
        (made.pdf(), {"backend": "spaceship"}, "invalid_option", 422),
        (made.pdf(), {"server_url": "http://169.254.169.254/"}, "forbidden", 403),
    ],
)
async def test_what_cannot_be_accepted_is_refused_and_leaves_nothing(
    room: Room, content: bytes, options: dict[str, Any], code: str, status: int
) -> None:
    with pytest.raises(DocfleetError) as caught:
        await room.intake().accept(room.upload(content, **options))
    assert (caught.value.code, caught.value.status) == (code, status)
    assert room.is_empty()


async def test_a_page_range_beyond_the_end_is_cut_to_the_document(room: Room) -> None:
    job = await room.intake().accept(room.upload(made.pdf(3), start_page_id=1, end_page_id=50))
    assert [(shard.first_page, shard.last_page) for shard in room.store.shards(job.id)] == [(1, 2)]


@pytest.mark.parametrize("url", ["http://vlm.example:8000", "http://vlm.example:8000/"])
async def test_a_vlm_server_that_the_settings_name_may_be_asked_for(room: Room, url: str) -> None:
    job = await room.intake().accept(room.upload(made.pdf(), backend="vlm-http-client", server_url=url))
    assert job.options.server_url == url


async def test_a_refused_server_is_not_repeated_because_it_may_hold_a_password(room: Room) -> None:
    with pytest.raises(DocfleetError) as caught:
        await room.intake().accept(room.upload(made.pdf(), server_url="http://ada:hunter2@vlm.example/"))
    assert "hunter2" not in caught.value.message


class Around:
    """The store, with something happening before or after a job is entered."""

    def __init__(self, store: Jobs) -> None:
        self._store = store
        self.entered: list[str] = []
        self.inside = threading.Event()
        self.go_on = threading.Event()
        self.error: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def accept(
        self, job_id: str, document: Document, options: ParseOptions, shards: Sequence[ShardPlan], terms: Terms
    ) -> Job:
        self.inside.set()
        self.go_on.wait(20)
        if self.error is not None:
            raise self.error
        job = self._store.accept(job_id, document, options, shards, terms)
        self.entered.append(job.id)
        return job


async def test_a_store_that_refuses_leaves_nothing(room: Room) -> None:
    around = Around(room.store)
    around.error = Busy("later")
    around.go_on.set()
    with pytest.raises(Busy):
        await room.intake(around).accept(room.upload(made.pdf()))
    assert room.is_empty()


async def test_a_caller_that_leaves_while_its_job_is_entered_leaves_neither_job_nor_file(room: Room) -> None:
    around = Around(room.store)
    accept = asyncio.ensure_future(room.intake(around).accept(room.upload(made.pdf())))
    await asyncio.to_thread(around.inside.wait, 20)
    accept.cancel()
    await asyncio.sleep(0.02)
    around.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await accept
    assert len(around.entered) == 1
    assert room.is_empty()


async def test_a_caller_that_leaves_while_its_document_is_looked_at_leaves_nothing(room: Room) -> None:
    await room.inspector.start()
    process = room.inspector._children[0]._process
    assert process is not None
    process.send_signal(19)
    accept = asyncio.ensure_future(room.intake().accept(room.upload(made.pdf())))
    await asyncio.sleep(0.05)
    accept.cancel()
    with pytest.raises(asyncio.CancelledError):
        await accept
    assert room.is_empty()


async def test_everything_is_on_the_disk_before_the_store_knows_the_job(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []

    def noted(sync: Any) -> Any:
        def note(path: Path) -> None:
            sync(path)
            happened.append(path.name if path.suffix != ".part" else "file")

        return note

    monkeypatch.setattr(accepting, "sync_file", noted(accepting.sync_file))
    monkeypatch.setattr(accepting, "sync_folder", noted(accepting.sync_folder))
    around = Around(room.store)
    accept = asyncio.ensure_future(room.intake(around).accept(room.upload(made.pdf())))
    await asyncio.to_thread(around.inside.wait, 20)
    before = list(happened)
    around.go_on.set()
    job = await accept
    assert before == ["file", job.id, "jobs"]


async def test_a_full_disk_is_told_and_leaves_nothing(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(accepting, "sync_folder", full)
    with pytest.raises(StorageFull):
        await room.intake().accept(room.upload(made.pdf()))
    assert room.is_empty()


def test_a_document_is_one_shard_over_the_wanted_pages() -> None:
    document = Document(filename="a", suffix="pdf", size=1, sha256="0", pages=9)
    assert plan_shards(document, ParseOptions()) == [ShardPlan(stage=Stage.WHOLE, first_page=0, last_page=8)]
    wanted = ParseOptions(start_page_id=4, end_page_id=6)
    assert plan_shards(document, wanted) == [ShardPlan(stage=Stage.WHOLE, first_page=4, last_page=6)]
