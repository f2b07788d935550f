"""A worker whose disk is full, broken or fails once: real store, real rounds, an engine with faults."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from docfleet.errors import Busy, DocfleetError, StorageFull, StorageUnavailable, VlmUnavailable
from docfleet.files import sync_file
from docfleet.records import JobState
from docfleet.sharding.verdicts import MOST_EXCUSED
from docfleet.store.sqlite import SqliteStore, connection, open_store
from docfleet.worker import bench, care, rounds
from docfleet.worker.care import Care
from tests.integration.store_house import accept, job_of, must_claim
from tests.integration.worker_house import House, open_worker_house, until


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setattr(rounds, "STORE_PAUSE", 0.01)
    monkeypatch.setattr(care, "retry_delay", lambda attempt: 0.01)
    with open_worker_house(tmp_path) as house:
        yield house


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteStore]:
    monkeypatch.setattr(care, "retry_delay", lambda attempt: 0.0)
    with open_store(tmp_path / "docfleet.db") as store:
        yield store


def failing(times: int, number: int, act: Callable[..., Any], *named: str) -> Callable[..., Any]:
    """Let the first calls fail with an error of the system, as one that names its path if there is one."""
    left = [times]

    def attempt(*arguments: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise OSError(number, "on purpose", *named)
        return act(*arguments)

    return attempt


@pytest.mark.parametrize("trouble", [StorageFull, StorageUnavailable, Busy])
def test_what_the_disk_does_is_never_held_against_a_document(store: SqliteStore, trouble: type[DocfleetError]) -> None:
    job = accept(store, pages=1)
    nobody: Any = None
    carer = Care(claims=store, bench=nobody, deadlines=nobody, max_attempts=3, slot=lambda: 0)
    for _ in range(3 * MOST_EXCUSED):
        assert not carer.ended_job(must_claim(store), trouble("no room"))
    assert job_of(store, job).state is JobState.RUNNING


def test_excuses_of_other_kinds_end(store: SqliteStore) -> None:
    job = accept(store, pages=1)
    nobody: Any = None
    carer = Care(claims=store, bench=nobody, deadlines=nobody, max_attempts=3, slot=lambda: 0)
    for _ in range(MOST_EXCUSED):
        assert not carer.ended_job(must_claim(store), VlmUnavailable("none is alive"))
    assert carer.ended_job(must_claim(store), VlmUnavailable("none is alive"))
    assert job_of(store, job).state is JobState.FAILED


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_document_waits_for_as_long_as_its_result_cannot_be_written(
    house: House, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    named = str(house.folder.jobs / "result")
    monkeypatch.setattr(bench, "sync_tree", failing(MOST_EXCUSED + 5, number, bench.sync_tree, named))
    job = house.send("plain.pdf")
    done = house.ended(job)
    assert (done.state, done.error) == (JobState.COMPLETED, None)
    assert house.store.totals().retries == MOST_EXCUSED + 5


def test_a_disk_of_somebody_else_that_is_read_only_is_no_trouble_of_the_data_folder(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "sync_tree", failing(10**9, errno.EROFS, bench.sync_tree, "/usr/cache"))
    assert house.ended(house.send("plain.pdf")).state is JobState.FAILED


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.EDQUOT])
def test_a_result_whose_log_fails_to_reach_the_disk_once_is_delivered_and_stays(
    house: House, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    job = house.send("sleep-0.2-plain.pdf")
    until(house.store.leases)
    monkeypatch.setattr(connection, "sync_file", failing(1, number, sync_file))
    done = house.ended(job)
    assert done.state is JobState.COMPLETED
    until(lambda: house.report().documents_done == 1)
    assert done.output is not None
    assert (house.folder.absolute(done.output) / "document.md").is_file()
    assert house.store.totals().completed == 1
