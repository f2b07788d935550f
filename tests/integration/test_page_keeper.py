"""Finished pages stay as long as a job of their document does, within a size, and make room on a disk that fills."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from docfleet.errors import Cancelled
from docfleet.files import new_job_id
from docfleet.options import ParseOptions
from docfleet.records import Document, Job, ShardPlan, Stage
from docfleet.shelf.folder import FolderShelf
from docfleet.store.admission import Terms
from docfleet.store.sqlite import SqliteStore, open_store
from docfleet.supervisor.pages import PageKeeper
from tests.integration.store_house import ME

_BIG = 10**12
_STOPPED = Cancelled("stopped").record()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(open_store(tmp_path / "docfleet.db")) as store:
        yield store


def accept(store: SqliteStore, digest: str, key: str | None = "key") -> Job:
    document = Document(filename="a.pdf", suffix="pdf", size=1, sha256=digest, pages=1)
    plan = ShardPlan(stage=Stage.WHOLE, first_page=0, last_page=0)
    return store.accept(new_job_id(), document, ParseOptions(), [plan], Terms(kept=False), reuse_key=key)


def shelf(root: Path, digest: str) -> FolderShelf:
    return FolderShelf(root=root / "pages", document=digest, made_by="engine")


def keeper(root: Path, store: SqliteStore, limit: int = _BIG, reserve: int = 0) -> PageKeeper:
    return PageKeeper(root / "pages", store, limit=limit, reserve=reserve)


def test_pages_go_with_the_last_job_that_shares_them(store: SqliteStore, tmp_path: Path) -> None:
    digests = {
        name: letter * 64 for name, letter in zip(("two jobs", "private", "unknown", "left"), "abcd", strict=True)
    }
    first, second = accept(store, digests["two jobs"], "one"), accept(store, digests["two jobs"], "two")
    accept(store, digests["private"], None)
    left = accept(store, digests["left"], "three")
    for digest in digests.values():
        shelf(tmp_path, digest).put({"page": 0}, b"x")

    def kept() -> list[str]:
        keeper(tmp_path, store).look()
        return [name for name, digest in digests.items() if shelf(tmp_path, digest).holds({"page": 0})]

    assert kept() == ["two jobs", "left"]
    # A caller who left may come back; one who stopped the job by name will not.
    assert store.cancel(left.id, _STOPPED, even_kept=False)
    store.remove(first.id)
    assert kept() == ["two jobs", "left"]
    assert store.cancel(second.id, _STOPPED)
    assert kept() == ["left"]
    store.remove(left.id)
    assert kept() == []


def test_pages_stay_within_the_limit_and_give_way_where_the_disk_is_full(store: SqliteStore, tmp_path: Path) -> None:
    digest = "ab" * 32
    accept(store, digest)
    kept = shelf(tmp_path, digest)

    def fill() -> None:
        for page in range(10):
            kept.put({"page": page}, bytes(10_000))

    def left() -> int:
        return sum(kept.holds({"page": page}) for page in range(10))

    fill()
    assert (keeper(tmp_path, store).look(), left()) == (0, 10)
    assert (keeper(tmp_path, store, limit=60_000).look(), left()) == (5, 5)
    fill()
    # As much as is free is to stay free, and a little more: some pages have to go, whatever the limit.
    free = shutil.disk_usage(tmp_path).free
    keeper(tmp_path, store, reserve=free + _BIG).look()
    assert left() == 0
    fill()
    keeper(tmp_path, store, limit=0).look()
    assert left() == 0


def test_followers_of_a_job_that_is_stopped_by_name_are_released_and_keep_its_pages(
    store: SqliteStore, tmp_path: Path
) -> None:
    digest = "ab" * 32
    leader, follower = accept(store, digest), accept(store, digest)
    shelf(tmp_path, digest).put({"page": 0}, b"x")
    assert store.cancel(leader.id, _STOPPED)
    claim = store.claim(ME, 0)
    assert claim is not None
    assert claim.job_id == follower.id
    keeper(tmp_path, store).look()
    assert shelf(tmp_path, digest).holds({"page": 0})
