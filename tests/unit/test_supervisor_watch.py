"""The supervisor's threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from loguru import logger

from docfleet.errors import StorageFull
from docfleet.supervisor.watch import Chore, Watch


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), format="{level} {message}")
    yield lines
    logger.remove(sink)


def test_a_chore_that_goes_on_failing_is_told_of_once_and_when_it_works_again(log: list[str]) -> None:
    looks, repaired = [], threading.Event()

    def look() -> None:
        looks.append(1)
        if not repaired.is_set():
            raise StorageFull("There is no room left.")

    watch = Watch([Chore("leases", look, 0.01)])
    watch.start()
    while len(looks) < 20:
        time.sleep(0.01)
    repaired.set()
    seen = len(looks)
    while len(looks) < seen + 5:
        time.sleep(0.01)
    watch.stop()
    assert [line.strip() for line in log] == [
        "WARNING supervisor: leases failed and is tried again: There is no room left.",
        "INFO supervisor: leases works again",
    ]


def test_another_trouble_is_told_of_at_once_with_where_it_came_from(log: list[str]) -> None:
    troubles = iter([ValueError("one"), ValueError("one"), ValueError("two")])
    over = threading.Event()

    def look() -> None:
        if (trouble := next(troubles, None)) is not None:
            raise trouble
        over.set()

    watch = Watch([Chore("leases", look, 0.01)])
    watch.start()
    assert over.wait(10)
    watch.stop()
    assert len([line for line in log if "failed and is tried again" in line]) == 2
    assert "ValueError: two" in "".join(log)
