"""Who is killed while the disk takes nothing more: real store, real processes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from docfleet.errors import StorageFull
from docfleet.files import DataFolder
from docfleet.options import Tier
from docfleet.process.identity import identify
from docfleet.sharding.deadlines import Deadlines
from docfleet.store.sqlite import SqliteStore, open_store
from docfleet.supervisor.blame import Blame
from docfleet.supervisor.leases import LeaseKeeper
from docfleet.supervisor.limits import Limits
from tests.integration.store_house import accept, must_claim

STALE = 0.3


class Scene:
    """A worker that never says that it lives."""

    def __init__(self, folder: DataFolder, store: SqliteStore, worker: subprocess.Popen[bytes]) -> None:
        self.folder, self.store, self.worker = folder, store, worker
        self.job = accept(store)
        must_claim(store, identify(worker.pid))

    def keeper(self, *, memory_bytes: int = 0) -> LeaseKeeper:
        deadlines = Deadlines(60, dict.fromkeys(Tier, 20.0))
        limits = Limits(max_attempts=1, stale_seconds=STALE, deadlines=deadlines, memory_bytes=memory_bytes)
        return LeaseKeeper(self.store, self.folder, limits, Blame(0.0))

    def lives(self) -> bool:
        time.sleep(0.1)
        return self.worker.poll() is None


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    folder = DataFolder(tmp_path / "data")
    folder.create()
    worker = subprocess.Popen(["sleep", "600"], start_new_session=True)
    with closing(open_store(folder.database)) as store:
        yield Scene(folder, store, worker)
    worker.kill()
    worker.wait()


def refuse() -> None:
    raise StorageFull("There is no room left.")


def test_a_silent_worker_is_killed_only_if_it_could_have_spoken(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = scene.keeper()
    assert keeper.look() == 0
    with monkeypatch.context() as full:
        full.setattr(scene.store, "prove_writable", refuse)
        until = time.monotonic() + 3 * STALE
        while time.monotonic() < until:
            with pytest.raises(StorageFull):
                keeper.look()
            assert scene.lives()
    assert keeper.look() == 0, "it has not had the time to say that it lives"
    assert scene.lives()
    time.sleep(2 * STALE)
    assert keeper.look() == 1
    assert not scene.lives()
    (shard, *_) = scene.store.shards(scene.job.id)
    assert "was silent" in str(shard.error)


def test_who_takes_too_much_memory_is_killed_although_it_cannot_be_recorded_yet(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = scene.keeper(memory_bytes=1)
    with monkeypatch.context() as full:
        full.setattr(scene.store, "prove_writable", refuse)
        with pytest.raises(StorageFull):
            keeper.look()
        assert not scene.lives()
    assert keeper.look() == 1
