"""What was acknowledged survives a power cut: everything it needs had been forced to the disk by then.

A disk is imagined that keeps only what was forced to it: of a file the bytes at its last fsync, of a folder the names
at its last fsync. What a new server would find on it is built in a folder of its own and worked on from there.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import AsyncIterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
import pytest_asyncio

from docfleet.engine.interface import EngineContext
from docfleet.files import DataFolder, new_job_id
from docfleet.intake.accept import Intake
from docfleet.intake.inspector import Inspector
from docfleet.intake.spool import Upload
from docfleet.records import Job, JobState, ShardPlan, Stage
from docfleet.shelf.folder import Shelves
from docfleet.store.reuse import link_result
from docfleet.store.sqlite import SqliteStore, open_store
from docfleet.worker.bench import Bench
from tests import made_documents as made
from tests.engines import FaultyEngine
from tests.integration.store_house import ME, must_claim


class Disk:
    """Remembers what was forced to it, in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._files: dict[int, bytes] = {}
        self._folders: dict[int, dict[str, int]] = {}
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self._note)

    def _note(self, descriptor: int) -> None:
        self._fsync(descriptor)
        found, path = os.fstat(descriptor), Path(f"/proc/self/fd/{descriptor}").readlink()
        if stat.S_ISDIR(found.st_mode):
            self._folders[found.st_ino] = {entry.name: entry.inode() for entry in os.scandir(path)}
        else:
            self._files[found.st_ino] = path.read_bytes()

    def after_power_cut(self, root: Path, target: Path) -> DataFolder:
        """Build what is left of the data folder in `target`."""
        assert root.name in self._folders[root.parent.stat().st_ino]
        self._rebuild(root.stat().st_ino, target)
        # SQLite forces the database itself to the disk, unseen from here: what counts is its name, and the log.
        assert (target / "docfleet.db").exists()
        shutil.copy(root / "docfleet.db", target / "docfleet.db")
        return DataFolder(target)

    def _rebuild(self, number: int, target: Path) -> None:
        target.mkdir()
        for name, inner in self._folders.get(number, {}).items():
            if inner in self._folders:
                self._rebuild(inner, target / name)
            else:
                (target / name).write_bytes(self._files.get(inner, b""))


class House:
    """One server's parts on a disk."""

    def __init__(self, folder: DataFolder, inspector: Inspector) -> None:
        self.folder = folder
        self.store: SqliteStore = open_store(folder.database)
        self.intake = Intake(self.store, folder, inspector)
        engine = FaultyEngine()
        engine.load(
            EngineContext(device="cpu", threads=1, model_source="local", vlm_server_url=None, scratch=folder.root)
        )
        self.bench = Bench(folder, [engine], Shelves(folder, "x", shared=True))

    async def accept(self, content: bytes) -> Job:
        path = self.folder.new_upload()
        path.write_bytes(content)
        digest = sha256(content).hexdigest()
        return await self.intake.accept(
            Upload(path=path, filename="a.pdf", size=len(content), sha256=digest, options={})
        )

    def work(self) -> Stage:
        """Do the next piece of work and deliver it."""
        claim = must_claim(self.store)
        work = self.bench.decode(claim)
        outcome = self.bench.perform(work, lambda _: None)
        output, report = self.bench.relative(outcome.output), self.bench.encode(outcome)
        assert self.store.complete(claim, output=output, report=report)
        return claim.stage


@pytest_asyncio.fixture
async def inspector() -> AsyncIterator[Inspector]:
    inspector = Inspector(processes=1)
    yield inspector
    await inspector.close()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def lines_of(folder: DataFolder, job: Job) -> list[str]:
    assert job.output is not None
    text = (folder.absolute(job.output) / "document.md").read_text()
    return [line for line in text.split("\n\n") if line.startswith("page ")]


async def test_a_job_goes_on_after_a_power_cut_from_whatever_was_acknowledged(
    tmp_path: Path, disk: Disk, inspector: Inspector
) -> None:
    content = made.pdf(pages=4)
    root = tmp_path / "data"
    folder = DataFolder(root)
    folder.create()
    house = House(folder, inspector)
    accepted = await house.accept(content)

    # Accepted.
    left = House(disk.after_power_cut(root, tmp_path / "cut-1"), inspector)
    assert left.folder.source(accepted.id, "pdf").read_bytes() == content
    assert left.work() is Stage.WHOLE
    ended = left.store.job(accepted.id)
    assert ended is not None
    assert lines_of(left.folder, ended) == [f"page {page}" for page in range(4)]

    # Cut into shards, one of them delivered.
    claim = must_claim(house.store)
    plans = [ShardPlan(stage=Stage.PAGES, first_page=page, last_page=page + 1) for page in (0, 2)]
    plans.append(ShardPlan(stage=Stage.DOCUMENT, first_page=0, last_page=3))
    assert house.store.split(claim, plans, {})
    assert house.work() is Stage.PAGES
    left = House(disk.after_power_cut(root, tmp_path / "cut-2"), inspector)
    # The rest is read, and what was delivered is not read again.
    assert [left.work(), left.work()] == [Stage.PAGES, Stage.DOCUMENT]
    assert left.store.claim(ME, 0) is None
    ended = left.store.job(accepted.id)
    assert ended is not None
    assert lines_of(left.folder, ended) == [f"page {page}" for page in range(4)]

    # Delivered.
    assert [house.work(), house.work()] == [Stage.PAGES, Stage.DOCUMENT]
    left = House(disk.after_power_cut(root, tmp_path / "cut-3"), inspector)
    ended = left.store.job(accepted.id)
    assert ended is not None
    assert ended.state is JobState.COMPLETED
    assert lines_of(left.folder, ended) == [f"page {page}" for page in range(4)]

    # Served again, with links to the same files.
    other = new_job_id()
    assert ended.output is not None
    output = link_result(house.folder, ended.output, ["document.md"], house.folder.result(other, 1))
    served = house.store.serve(other, "b.pdf", ended.options, ended, output)
    assert served is not None
    left = House(disk.after_power_cut(root, tmp_path / "cut-4"), inspector)
    again = left.store.job(other)
    assert again is not None
    assert lines_of(left.folder, again) == [f"page {page}" for page in range(4)]


def test_a_power_cut_forgets_what_was_never_forced_to_the_disk(tmp_path: Path, disk: Disk) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.create()
    with closing(open_store(folder.database)) as store:
        # Not durable: it names nothing on the disk.
        store.count_refused(1)
        (folder.incoming / "never.part").write_bytes(b"x")
        with pytest.raises(AssertionError):
            disk.after_power_cut(folder.root, tmp_path / "cut")
    assert sorted(path.name for path in (tmp_path / "cut").rglob("*")) == ["incoming", "jobs", "pages", "scratch"]
