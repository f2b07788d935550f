"""Which workers rest while memory is short."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import pytest

from docfleet.devices.gauges import Gauges
from docfleet.devices.records import Reading
from docfleet.records import ProcessIdentity, WorkerReport, WorkerSlot, WorkerState
from docfleet.supervisor.memory import HOLDS, TRY_AFTER, Marks, MemoryWatch, held_by

MB = 1024 * 1024
MARKS = Marks(device=500 * MB, host=100 * MB)
CARDS = tuple(WorkerSlot(index=slot, device=f"cuda:{slot // 2}") for slot in range(4))
#: Not the number of any process: the largest that Linux gives is 4194304.
NOBODY = 9999999


@dataclass
class Store:
    """What the watch asks of one."""

    reports: list[WorkerReport]
    rests: list[Mapping[int, str]] = field(default_factory=list)

    def workers(self) -> list[WorkerReport]:
        return self.reports

    def rest(self, reasons: Mapping[int, str], seconds: float) -> None:
        assert seconds == HOLDS
        self.rests.append(dict(reasons))

    def resting(self, slot: int) -> str | None:
        return None

    def max_concurrent(self) -> int | None:
        return None

    def set_max_concurrent(self, most: int | None) -> None:
        raise NotImplementedError


class Told:
    """A probe that says what it is told."""

    failure = ""

    def __init__(self) -> None:
        self.readings: list[Reading] = []

    def take(self) -> list[Reading]:
        return self.readings

    def stop(self) -> None:
        pass


def worker(slot: WorkerSlot, *, pid: int = 1, rss: int = 0) -> WorkerReport:
    identity = ProcessIdentity(pid=pid, started=1)
    return WorkerReport(slot=slot.index, identity=identity, device=slot.device, state=WorkerState.READY, rss=rss)


class House:
    def __init__(self, slots: tuple[WorkerSlot, ...], reports: list[WorkerReport]) -> None:
        self.now = 0.0
        self.probe, self.store = Told(), Store(reports)
        self.gauges = Gauges([self.probe], interval=5)
        self.watch = MemoryWatch(self.store, slots, self.gauges, MARKS, clock=lambda: self.now)

    def look(
        self, free: Mapping[str, int | None], holders: tuple[tuple[int, int | None], ...] | None = None
    ) -> set[int]:
        self.probe.readings = [
            Reading(device=device, memory_total=8000 * MB, memory_free=None if mb is None else mb * MB, holders=holders)
            for device, mb in free.items()
        ]
        self.gauges.look()
        self.watch.look()
        return set(self.store.rests[-1])


@pytest.fixture
def own_group() -> Iterator[int]:
    """A process that leads a group, as workers do."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    yield process.pid
    process.kill()
    process.wait()


def test_workers_of_a_card_that_others_fill_rest_and_those_of_another_do_not() -> None:
    house = House(CARDS, [worker(slot) for slot in CARDS])
    assert house.look({"cuda:0": 4000, "cuda:1": 4000}, ()) == set()
    assert house.look({"cuda:0": 400, "cuda:1": 4000}, ()) == {0, 1}
    assert "less than 500 MB of the memory of cuda:0" in house.store.rests[-1][0]
    assert house.look({"cuda:0": 600, "cuda:1": 4000}, ()) == {0, 1}, "not on and off with every document"
    assert house.look({"cuda:0": 750, "cuda:1": 4000}, ()) == set()


@pytest.mark.parametrize("state", [WorkerState.FAILED, WorkerState.LOADING, WorkerState.RECYCLING])
def test_who_goes_on_can_work(state: WorkerState, own_group: int) -> None:
    reports = [worker(slot, pid=own_group) for slot in CARDS[:2]]
    house = House(CARDS[:2], [replace(reports[0], state=state), reports[1]])
    assert house.look({"cuda:0": 400}, ((own_group, 7000 * MB),)) == {0}


def test_what_the_workers_hold_themselves_stops_all_but_one(own_group: int) -> None:
    house = House(CARDS[:2], [worker(slot, pid=own_group) for slot in CARDS[:2]])
    assert house.look({"cuda:0": 400}, ((own_group, 7000 * MB),)) == {1}
    assert house.look({"cuda:0": 400}, ((own_group, 50 * MB), (os.getpid(), 7000 * MB))) == {0, 1}


@pytest.mark.parametrize(
    "holders",
    [None, ((NOBODY, 7000 * MB),), (), ((os.getpid(), 7000 * MB),)],
    ids=["not told", "of another namespace", "none listed, as in a container", "none of them a worker"],
)
def test_where_nobody_knows_who_holds_the_memory_one_worker_tries_after_a_while(
    holders: tuple[tuple[int, int | None], ...] | None,
) -> None:
    house = House(CARDS[:2], [worker(slot) for slot in CARDS[:2]])
    assert house.look({"cuda:0": 400}, holders) == {0, 1}
    house.now = TRY_AFTER + 1
    assert house.look({"cuda:0": 400}, holders) == {1}


def test_a_worker_alone_on_its_card_does_not_rest_for_ever_in_a_container() -> None:
    house = House(CARDS[:1], [worker(CARDS[0])])
    assert house.look({"cuda:0": 400}, ()) == {0}
    house.now = TRY_AFTER + 1
    assert house.look({"cuda:0": 400}, ()) == set()


def test_on_the_cpu_one_worker_goes_on_unless_others_hold_it_all() -> None:
    slots = tuple(WorkerSlot(index=slot, device="cpu") for slot in range(3))
    house = House(slots, [worker(slot, rss=300 * MB) for slot in slots])
    assert house.look({"cpu": 5000}) == set()
    assert house.look({"cpu": 50}) == {1, 2}
    assert "main memory" in house.store.rests[-1][1]
    house.store.reports = [worker(slot, rss=5 * MB) for slot in slots]
    assert house.look({"cpu": 50}) == {0, 1, 2}
    house.store.reports = [worker(slot, rss=300 * MB) for slot in slots[1:]]
    assert house.look({"cpu": 50}) == {0, 2}, "the one that goes on is one that lives"


def test_a_device_without_readings_stops_nobody() -> None:
    house = House(CARDS[:1], [worker(CARDS[0])])
    assert house.look({"cuda:0": None}) == set()
    assert house.look({}) == set()


def test_the_store_is_written_when_something_changes_and_before_a_rest_runs_out() -> None:
    house = House(CARDS[:1], [worker(CARDS[0])])
    house.look({"cuda:0": 4000}, ())
    assert house.store.rests == [{}], "what an earlier run left is removed"
    house.look({"cuda:0": 4000}, ())
    house.look({"cuda:0": 100}, ())
    house.look({"cuda:0": 90}, ())
    assert len(house.store.rests) == 2
    house.now += HOLDS / 2
    house.look({"cuda:0": 90}, ())
    assert len(house.store.rests) == 3


def test_processes_are_ours_by_their_group(own_group: int) -> None:
    ours = [worker(CARDS[0], pid=own_group)]
    reading = Reading(device="cuda:0", holders=((own_group, 10), (os.getpid(), 99)))
    assert held_by(reading, ours) == 10
    assert held_by(Reading(device="cuda:0", holders=((own_group, None),)), ours) is None
    assert held_by(Reading(device="cuda:0", holders=((own_group, 10), (os.getpid(), None))), ours) == 10
    assert held_by(Reading(device="cuda:0", holders=()), []) == 0


def test_a_list_that_lacks_processes_tells_nothing(own_group: int) -> None:
    ours = [worker(CARDS[0], pid=own_group)]
    assert held_by(Reading(device="cuda:0", holders=()), ours) is None
    assert held_by(Reading(device="cuda:0", holders=((os.getpid(), 99),)), ours) is None
    for listed, told in ((4000, 4000 * MB), (100, None)):
        reading = Reading(
            device="cuda:0", memory_total=8000 * MB, memory_free=400 * MB, holders=((own_group, listed * MB),)
        )
        assert held_by(reading, ours) == told
