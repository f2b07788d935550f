"""Slots change hands in the store: one process each, whoever asks at the same moment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from docfleet.records import ProcessIdentity, WorkerReport, WorkerState
from docfleet.store.slots import start_delay
from docfleet.store.sqlite import SqliteStore, open_store
from tests.integration.store_house import ME, OTHER
from tests.integration.test_sqlite_processes import together

THIRD = ProcessIdentity(pid=300, started=3)


@dataclass
class Room:
    store: SqliteStore = field(init=False)
    now: float = 1000.0

    def enter(self, slot: int, identity: ProcessIdentity, state: WorkerState = WorkerState.READY, **more: Any) -> bool:
        return self.store.announce(self.report(slot, identity, state, **more))

    def report(self, slot: int, identity: ProcessIdentity, state: WorkerState, **more: Any) -> WorkerReport:
        return WorkerReport(slot=slot, identity=identity, device="cpu", state=state, heartbeat_at=self.now, **more)

    def slots(self) -> dict[int, tuple[int, WorkerState]]:
        return {worker.slot: (worker.identity.pid, worker.state) for worker in self.store.workers()}


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room()
    with open_store(tmp_path / "docfleet.db", clock=lambda: room.now) as store:
        room.store = store
        yield room


def test_a_slot_is_taken_by_one_process_and_by_another_only_when_that_one_is_gone(room: Room) -> None:
    assert room.enter(0, ME)
    assert not room.enter(0, OTHER)
    room.store.retire(0, OTHER, "not the one")
    assert not room.enter(0, OTHER)
    room.store.retire(0, ME, "killed")
    assert room.enter(0, OTHER)
    assert not room.enter(0, ME, WorkerState.BUSY)
    assert room.slots() == {0: (OTHER.pid, WorkerState.READY)}


def test_a_spare_moves_to_a_free_slot_and_leaves_its_own(room: Room) -> None:
    room.enter(0, ME)
    room.enter(1, OTHER, WorkerState.SPARE)
    ready = room.report(0, OTHER, WorkerState.READY)
    assert not room.store.take_over(1, ready)
    assert room.slots() == {0: (ME.pid, WorkerState.READY), 1: (OTHER.pid, WorkerState.SPARE)}
    room.store.retire(0, ME, "killed")
    assert room.store.take_over(1, ready)
    assert room.slots() == {0: (OTHER.pid, WorkerState.READY)}


def test_two_spares_never_take_one_slot_and_one_spare_never_takes_two(room: Room) -> None:
    for slot, identity in ((2, OTHER), (3, THIRD)):
        room.enter(slot, identity, WorkerState.SPARE)
    assert room.store.take_over(2, room.report(0, OTHER, WorkerState.READY))
    assert not room.store.take_over(3, room.report(0, THIRD, WorkerState.READY))
    assert not room.store.take_over(2, room.report(1, OTHER, WorkerState.READY))
    assert room.slots() == {0: (OTHER.pid, WorkerState.READY), 3: (THIRD.pid, WorkerState.SPARE)}


def test_a_worker_that_leaves_changes_places_with_a_spare_and_neither_can_speak_for_the_others_slot(room: Room) -> None:
    room.enter(0, ME, documents_done=7, rss=900, engines="a")
    spare = room.report(1, OTHER, WorkerState.SPARE, rss=100, engines="b")
    assert not room.store.hand_over(0, ME, spare), "it is not there yet"
    room.store.announce(spare)
    assert room.store.hand_over(0, ME, spare)
    assert room.slots() == {0: (OTHER.pid, WorkerState.READY), 1: (ME.pid, WorkerState.RECYCLING)}
    first, second = room.store.workers()
    assert (first.documents_done, first.rss, first.engines) == (0, 100, "b")
    assert (second.documents_done, second.rss, second.engines) == (7, 900, "a")
    assert room.store.serving() == 1
    assert not room.enter(0, ME, WorkerState.BUSY)
    assert not room.enter(1, OTHER, WorkerState.SPARE)
    assert not room.store.hand_over(0, ME, spare)
    room.store.retire(1, ME, "it left")
    assert room.enter(1, THIRD, WorkerState.LOADING)


@pytest.mark.parametrize("state", [WorkerState.SPARE, WorkerState.LOADING, WorkerState.RECYCLING])
def test_a_spare_is_no_worker(room: Room, state: WorkerState) -> None:
    room.enter(0, ME)
    room.enter(1, OTHER, state)
    assert room.store.serving() == 1


def test_a_spare_that_is_not_loaded_is_handed_nothing(room: Room) -> None:
    room.enter(0, ME)
    room.enter(1, OTHER, WorkerState.LOADING)
    assert not room.store.hand_over(0, ME, room.report(1, OTHER, WorkerState.SPARE))
    assert room.slots()[0] == (ME.pid, WorkerState.READY)


def test_processes_that_die_before_they_are_ready_are_counted_and_the_next_try_comes_later_each_time(
    room: Room,
) -> None:
    for crashes in (1, 2, 3):
        assert room.enter(0, ProcessIdentity(pid=crashes, started=1), WorkerState.LOADING)
        room.store.record_exit(crashes, -11)
        room.store.retire(0, ProcessIdentity(pid=crashes, started=1), "gone")
        room.store.retire(0, ProcessIdentity(pid=crashes, started=1), "looked at once more")
        (worker,) = room.store.workers()
        assert (worker.state, worker.ended, worker.crashes) == (WorkerState.FAILED, True, crashes)
        assert (worker.retry_at, worker.exit_status) == (room.now + start_delay(crashes), -11)
        assert f"next try after {start_delay(crashes):.0f} s" in worker.detail
    room.enter(0, ME, WorkerState.LOADING)
    assert room.store.workers()[0].crashes == 3
    room.enter(0, ME, WorkerState.READY)
    (worker,) = room.store.workers()
    assert (worker.crashes, worker.retry_at, worker.exit_status) == (0, 0, None)


def test_a_worker_that_dies_later_is_replaced_at_once(room: Room) -> None:
    room.enter(0, ME)
    room.store.retire(0, ME, "gone")
    (worker,) = room.store.workers()
    assert (worker.state, worker.crashes, worker.retry_at) == (WorkerState.GONE, 0, 0)


def test_a_new_run_of_the_server_holds_nothing_against_a_slot(room: Room) -> None:
    room.enter(0, ME, WorkerState.LOADING)
    room.store.retire(0, ME, "gone")
    room.enter(1, OTHER)
    room.store.forgive()
    first, second = room.store.workers()
    assert (first.state, first.crashes, first.retry_at) == (WorkerState.GONE, 0, 0)
    assert second.state is WorkerState.READY


def test_delays_grow_and_are_bounded() -> None:
    assert [start_delay(crashes) for crashes in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert start_delay(10_000) == 300


def _take_over(path: Path, slots: list[int]) -> int | None:
    """Enter as a spare of one's own, and try to take over slot 0; return the process that thinks it has it."""
    identity = ProcessIdentity(pid=os.getpid(), started=1)
    with open_store(path) as store:
        mine = next(
            slot
            for slot in slots
            if store.announce(WorkerReport(slot=slot, identity=identity, device="cpu", state=WorkerState.SPARE))
        )
        ready = WorkerReport(slot=0, identity=identity, device="cpu", state=WorkerState.READY)
        return os.getpid() if store.take_over(mine, ready) else None


def test_of_many_processes_that_take_over_one_slot_at_the_same_moment_one_has_it(tmp_path: Path) -> None:
    path = tmp_path / "docfleet.db"
    with open_store(path) as store:
        assert store.announce(WorkerReport(slot=0, identity=ME, device="cpu", state=WorkerState.BUSY))
        store.retire(0, ME, "killed")
        (winner,) = [pid for pid in together(6, _take_over, path, list(range(1, 7))) if pid is not None]
        rows = store.workers()
        assert (rows[0].slot, rows[0].identity.pid, rows[0].state) == (0, winner, WorkerState.READY)
        assert [row.state for row in rows[1:]] == [WorkerState.SPARE] * 5
        assert winner not in [row.identity.pid for row in rows[1:]]
