"""What the main process makes of the end of a worker process."""

from __future__ import annotations

import multiprocessing
import os
import time
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from docfleet.host.exits import Exits
from docfleet.process.identity import identify
from docfleet.records import ProcessIdentity, WorkerReport, WorkerSlot, WorkerState
from docfleet.store.sqlite import open_store
from docfleet.store.tallies import Event

SLOTS = tuple(WorkerSlot(index=index, device="cpu", environment={}) for index in range(2))


def ended(status: int) -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=os._exit, args=(status,))
    process.start()
    process.join(30)
    assert process.exitcode == status
    return process


def workers(database: Path) -> dict[int, WorkerReport]:
    with closing(open_store(database)) as store:
        return {report.slot: report for report in store.workers()}


def serve(database: Path, slot: int, identity: ProcessIdentity, state: WorkerState) -> None:
    with closing(open_store(database)) as store:
        assert store.announce(WorkerReport(slot=slot, identity=identity, device="cpu", state=state))


def test_a_process_that_ended_before_it_had_a_slot_makes_the_next_one_wait_and_is_told_once(tmp_path: Path) -> None:
    exits, gone = Exits(tmp_path / "store.db", SLOTS), ended(7)
    before = time.monotonic()
    assert not exits.may_start(0, gone, loaded=False)
    report = workers(tmp_path / "store.db")[0]
    assert (report.state, report.crashes, report.exit_status) == (WorkerState.FAILED, 1, 7)
    while not exits.may_start(0, gone, loaded=False):
        time.sleep(0.05)
    assert time.monotonic() - before >= 1
    assert workers(tmp_path / "store.db")[0].crashes == 1
    assert not exits.may_start(0, ended(7), loaded=False)
    report = workers(tmp_path / "store.db")[0]
    assert report.crashes == 2
    assert "2 times in a row" in report.detail
    with closing(open_store(tmp_path / "store.db")) as store:
        assert store.tallies().events[Event.WORKER_EXIT] == {"status_7": 2}


def test_the_end_of_a_process_that_had_a_slot_or_was_loaded_delays_nobody(tmp_path: Path) -> None:
    exits, gone = Exits(tmp_path / "store.db", SLOTS), ended(9)
    assert gone.pid is not None
    serve(tmp_path / "store.db", 1, ProcessIdentity(pid=gone.pid, started=5), WorkerState.LOADING)
    assert exits.may_start(1, gone, loaded=False)
    assert workers(tmp_path / "store.db")[1].exit_status == 9
    # Its slot was taken over by a spare before its end was seen.
    assert exits.may_start(0, ended(3), loaded=True)
    assert set(workers(tmp_path / "store.db")) == {1}


@pytest.mark.parametrize("served", [(0,), (0, 1)])
def test_a_slot_that_a_living_process_serves_is_not_blamed(tmp_path: Path, served: tuple[int, ...]) -> None:
    exits = Exits(tmp_path / "store.db", SLOTS)
    for slot in served:
        serve(tmp_path / "store.db", slot, identify(), WorkerState.READY)
    assert exits.may_start(0, ended(7), loaded=False) == (1 in served)
    told = workers(tmp_path / "store.db")
    assert [told[slot].state for slot in served] == [WorkerState.READY] * len(served)
    assert told[1].state is (WorkerState.READY if 1 in served else WorkerState.FAILED)
