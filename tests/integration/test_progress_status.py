"""`progress` in `/status`, under a real web server with the real store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from docfleet.records import WorkerSlot, WorkerState
from tests.integration.web_house import PDF, House, open_house
from tests.serving import wait_until


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with open_house(tmp_path / "data") as running:
        yield running


def progress(house: House) -> dict[str, Any]:
    told: dict[str, Any] = house.get("/status").json()["progress"]
    return told


def test_a_fresh_server_has_done_nothing_and_has_nothing_left(house: House) -> None:
    begun = time.time() - 3600
    object.__setattr__(house.doors, "begun", begun)
    told = progress(house)
    since = datetime.fromisoformat(told.pop("since"))
    assert abs(since.timestamp() - begun) <= 1
    assert told == {
        "documents": {"done": 0, "failed": 0, "waiting": 0, "running": 0},
        "pages": {"done": 0, "failed": 0, "waiting": 0},
        "pages_per_second": 0.0,
        "seconds_left": 0.0,
        "devices": [
            {
                "device": "cpu",
                "workers": 1,
                "busy": 0,
                "shards_done": 0,
                "shards_failed": 0,
                "pages_done": 0,
                "pages_failed": 0,
                "pages_per_second": 0.0,
            }
        ],
        "endpoints": [],
    }


def test_what_is_done_fails_and_waits_is_told_by_device(house: House) -> None:
    object.__setattr__(house.doors, "plan", (*house.doors.plan, WorkerSlot(index=1, device="cuda:0")))
    house.predict_files({"a.pdf": PDF, "broken.pdf": PDF, "partial.pdf": PDF})
    told = progress(house)
    totals = house.get("/status").json()["totals"]
    assert told["documents"] == {"done": 2, "failed": 1, "waiting": 0, "running": 0}
    assert told["documents"]["done"] == totals["completed"] + totals["partial"]
    cpu, cuda = told["devices"]
    assert (cpu["device"], cpu["shards_done"], cpu["shards_failed"]) == ("cpu", 2, 1)
    assert cpu["pages_done"] == told["pages"]["done"] == totals["pages"]
    assert cpu["pages_failed"] == told["pages"]["failed"] > 0
    assert cpu["pages_per_second"] > 0
    assert (cuda["device"], cuda["workers"], cuda["shards_done"]) == ("cuda:0", 1, 0)


def test_work_under_way_shows_busy_workers_and_the_time_left_once_there_is_a_speed(house: House) -> None:
    house.worker.delivering.clear()
    object.__setattr__(house.doors, "wait_timeout", 0.05)
    house.predict_files({"one.pdf": PDF})
    wait_until(lambda: progress(house)["devices"][0]["busy"] == 1)
    told = progress(house)
    assert told["documents"]["running"] == 1
    assert told["pages"]["waiting"] > 0
    assert told["seconds_left"] is None
    house.worker.delivering.set()
    wait_until(lambda: progress(house)["documents"]["done"] == 1)
    house.worker.claiming.clear()
    house.predict_files({"two.pdf": PDF})
    told = progress(house)
    assert told["documents"]["waiting"] == 1
    assert told["seconds_left"] > 0


def test_a_device_that_is_not_used_any_more_keeps_its_counts(house: House) -> None:
    house.predict_files({"a.pdf": PDF})
    object.__setattr__(house.doors, "plan", (WorkerSlot(index=7, device="cuda:3"),))
    house.worker.announce(WorkerState.READY)
    told = {one["device"]: (one["workers"], one["shards_done"]) for one in progress(house)["devices"]}
    assert told == {"cuda:3": (1, 0), "cpu": (0, 1)}
