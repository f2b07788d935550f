"""The line in the log while there is work."""

from __future__ import annotations

from dataclasses import replace

import pytest

from docfleet.store.admission import Backlog
from docfleet.store.interface import Totals
from docfleet.store.tallies import DeviceTally, Event, Tallies
from docfleet.supervisor.progress import ProgressLog, duration


class Store:
    """What the line is made of."""

    def __init__(self) -> None:
        self.ended = Totals()
        self.left = Backlog(jobs=0, pages=0, pages_per_second=0.0)
        self.devices: tuple[DeviceTally, ...] = ()

    def totals(self) -> Totals:
        return self.ended

    def backlog(self) -> Backlog:
        return self.left

    def tallies(self) -> Tallies:
        return Tallies(devices=self.devices, failures={}, events={event: {} for event in Event})


def test_an_idle_server_says_nothing() -> None:
    store = Store()
    store.ended = Totals(completed=900, pages=9000)
    log = ProgressLog(store)
    assert [log.look() for _ in range(3)] == [None, None, None]


def test_the_line_counts_from_the_beginning_of_the_work_at_hand_and_its_end_is_told_once() -> None:
    store = Store()
    cpu = DeviceTally(device="cpu", pages_done=1000)
    store.ended, store.devices = Totals(completed=100, failed=5, pages=1000), (cpu,)
    log = ProgressLog(store)
    assert log.look() is None
    store.ended = replace(store.ended, completed=102, failed=6, queued_jobs=3, running_jobs=1)
    store.left = Backlog(jobs=4, pages=60, pages_per_second=1.5)
    store.devices = (replace(cpu, pages_done=1030, pages_failed=2, pages_per_second=1.5),)
    assert log.look() == ("progress: documents 3/7 (2 ok, 1 failed), pages 32/92 (2 failed), 1.50 pages/s, 40 s left")
    store.ended = replace(store.ended, completed=106, queued_jobs=0, running_jobs=0)
    store.left = Backlog(jobs=0, pages=0, pages_per_second=1.5)
    store.devices = (replace(cpu, pages_done=1090, pages_failed=2, pages_per_second=1.5),)
    assert log.look() == "progress: documents 7/7 (6 ok, 1 failed), pages 92/92 (2 failed), 1.50 pages/s"
    assert log.look() is None
    store.ended = replace(store.ended, queued_jobs=1)
    store.left = Backlog(jobs=1, pages=5, pages_per_second=0.0)
    assert log.look() == "progress: documents 0/1 (0 ok, 0 failed), pages 0/5 (0 failed), 0.00 pages/s"


def test_devices_are_told_apart_where_more_than_one_works() -> None:
    store = Store()
    store.ended = Totals(running_jobs=1)
    store.left = Backlog(jobs=1, pages=10, pages_per_second=4.0)
    store.devices = (
        DeviceTally(device="cuda:0", pages_per_second=3.0),
        DeviceTally(device="cuda:1", pages_per_second=1.0),
        DeviceTally(device="cuda:2"),
    )
    line = ProgressLog(store).look()
    assert line is not None
    assert line.endswith("4.00 pages/s, 2 s left; cuda:0 3.00 pages/s; cuda:1 1.00 pages/s")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (18420, "5 h 7 min")]
)
def test_time_left_is_told_as_people_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text
