"""`GET /metrics` under a real web server with the real store: what it tells is the truth, bounded, and cheap to ask."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from docfleet.devices.gauges import Gauges
from docfleet.devices.records import Reading
from docfleet.metrics.catalogue import METRICS
from docfleet.records import WorkerSlot
from docfleet.store.admission import Limits
from docfleet.store.tallies import Event
from docfleet.vlm.local import LocalServer, LocalState
from tests.exposition import Numbers, numbers_in, one
from tests.integration.web_house import PDF, House, open_house
from tests.serving import wait_until


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with open_house(tmp_path / "data") as running:
        yield running


def fresh(house: House) -> Numbers:
    # What was collected within the last second is told again.
    first = house.get("/metrics").text
    wait_until(lambda: house.get("/metrics").text != first, message="a new collection")
    return numbers_in(house.get("/metrics").text)


def test_the_answer_is_prometheus_text_and_holds_every_metric_of_the_catalogue_and_no_other(house: House) -> None:
    house.predict_files({"a.pdf": PDF})
    answer = house.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    typed = dict(line.split()[2:4] for line in answer.text.splitlines() if line.startswith("# TYPE"))
    assert typed == {name: metric.kind.value for name, metric in METRICS.items()}
    assert list(text_string_to_metric_families(answer.text))


def test_counters_are_what_the_store_says(house: House) -> None:
    house.predict_files({"a.pdf": PDF, "broken.pdf": PDF, "partial.pdf": PDF})
    house.doors.store.count_event(Event.WORKER_KILL, "deadline")
    assert ("docfleet_max_concurrent_shards", frozenset()) not in numbers_in(house.get("/metrics").text)
    house.doors.store.set_max_concurrent(3)
    object.__setattr__(house.doors, "spares", (WorkerSlot(index=1, device="cpu"),))
    told, store = fresh(house), house.doors.store
    totals, tallies = store.totals(), store.tallies()
    for state in ("completed", "partial", "failed", "cancelled"):
        assert one(told, "docfleet_jobs_total", state=state) == getattr(totals, state)
    assert one(told, "docfleet_jobs_total", state="completed") == 1
    assert one(told, "docfleet_pages_delivered_total") == totals.pages
    (cpu,) = tallies.devices
    assert one(told, "docfleet_pages_read_total", device="cpu") == cpu.pages_done > 0
    assert one(told, "docfleet_pages_failed_total", device="cpu") == cpu.pages_failed > 0
    assert one(told, "docfleet_shards_total", device="cpu") == cpu.shards_done == 2
    assert one(told, "docfleet_shard_attempts_failed_total", device="cpu") == 1
    assert one(told, "docfleet_job_failures_total", code="broken_document") == 1
    assert one(told, "docfleet_shard_duration_seconds_count", tier="flash", stage="whole") == 2
    assert one(told, "docfleet_worker_kills_total", reason="deadline") == 1
    assert one(told, "docfleet_workers", device="cpu", state="ready") == 1
    assert told["docfleet_workers", frozenset({("device", "cpu"), ("state", "busy")})] == 0
    assert one(told, "docfleet_worker_resident_bytes", slot="0") == 123
    assert one(told, "docfleet_spare_workers", state="starting") == 1
    assert one(told, "docfleet_max_concurrent_shards") == 3
    assert one(told, "docfleet_process_resident_bytes", process="api") > 2**20
    assert one(told, "docfleet_database_bytes") > 0
    assert one(told, "docfleet_disk_free_bytes") > 0


def test_requests_are_counted_by_route_and_class_and_refusals_apart_from_errors(tmp_path: Path) -> None:
    with open_house(tmp_path / "data") as house:
        house.worker.delivering.clear()
        object.__setattr__(house.doors.admission, "limits", Limits(pages=20_000, jobs=1))
        object.__setattr__(house.doors, "wait_timeout", 0.05)
        statuses = [house.predict_files({"a.pdf": PDF}).status_code for _ in range(3)]
        assert statuses == [202, 429, 429]
        assert house.get("/jobs/0f8fad5bd9cb469fa16570867728950e").status_code == 404
        assert requests.delete(f"{house.url}/status", timeout=30).status_code == 405
        assert house.get("/jobs?limit=x").status_code == 400
        told = fresh(house)
        assert one(told, "docfleet_http_refusals_total", code="busy") == 2
        assert one(told, "docfleet_http_errors_total", code="busy") == 0
        assert one(told, "docfleet_http_errors_total", code="not_found") == 1
        assert one(told, "docfleet_http_errors_total", code="method_not_allowed") == 1
        assert one(told, "docfleet_http_errors_total", code="invalid_request") == 1
        assert one(told, "docfleet_jobs_refused_total") == 2
        requested = "docfleet_http_requests_total"
        assert one(told, requested, method="POST", route="/predict", status="2xx") == 1
        assert one(told, requested, method="POST", route="/predict", status="4xx") == 2
        assert one(told, requested, method="GET", route="/jobs/{job_id}", status="4xx") == 1
        assert one(told, "docfleet_http_request_duration_seconds_count", method="POST", route="/predict") == 3
        assert one(told, "docfleet_open_jobs", state="running") == one(told, "docfleet_backlog_jobs") == 1


def test_a_thousand_odd_paths_and_methods_make_a_handful_of_series(house: House) -> None:
    def ask(number: int) -> None:
        with requests.Session() as session:
            for more in range(50):
                odd = f"{number}-{more}"
                session.get(f"{house.url}/{odd}?x={odd}", timeout=30)
                session.get(f"{house.url}/jobs/{odd}", timeout=30)
                session.request(f"ODD{number}", f"{house.url}/jobs/{odd}/files/{odd}/secret", timeout=30)

    before = len(numbers_in(house.get("/metrics").text))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(7)))
    told = fresh(house)
    text = house.get("/metrics").text
    assert one(told, "docfleet_http_requests_total", method="GET", route="other", status="4xx") == 350
    assert one(told, "docfleet_http_requests_total", method="GET", route="/jobs/{job_id}", status="4xx") == 350
    assert len(told) < before + 100
    assert "secret" not in text
    assert "ODD" not in text
    assert "6-49" not in text


class SlowStore:
    """A store whose counts take long to read, and that tells how often it was asked and how many asked at once."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.go = threading.Event()
        self.asked = 0

    def tallies(self) -> Any:
        self.asked += 1
        assert self.go.wait(30)
        return self._store.tallies()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_scrapes_at_once_share_one_collection_and_hold_nobody_up(house: House) -> None:
    slow = SlowStore(house.doors.store)
    object.__setattr__(house.doors, "store", slow)
    with ThreadPoolExecutor(20) as pool:
        scrapes = [pool.submit(house.get, "/metrics") for _ in range(20)]
        wait_until(lambda: slow.asked)
        # The collection waits in its thread; all other doors are open.
        assert house.get("/livez").status_code == 200
        assert house.get("/readyz").status_code == 200
        assert house.predict_files({"a.pdf": PDF}).status_code == 200
        slow.go.set()
        texts = {scrape.result().text for scrape in scrapes}
    # Some may have come when the first collection was a second old.
    assert slow.asked <= 3
    assert len(texts) == slow.asked


class BrokenStore:
    """A store whose disk is gone."""

    def __getattr__(self, name: str) -> object:
        raise OSError(f"the disk is gone, so no {name}")


def test_without_a_store_the_rest_is_told_and_that_it_is_missing(house: House) -> None:
    object.__setattr__(house.doors, "store", BrokenStore())
    answer = house.get("/metrics")
    assert answer.status_code == 200
    told = numbers_in(answer.text)
    assert one(told, "docfleet_collection_up", part="store") == 0
    assert one(told, "docfleet_collection_up", part="processes") == 1
    assert one(told, "docfleet_process_resident_bytes", process="api") > 0
    assert ("docfleet_backlog_pages", frozenset()) not in told
    assert "disk is gone" not in answer.text


class Card:
    """Tells of a card what its driver may: not everything."""

    failure = ""

    def __init__(self) -> None:
        self.readings = [
            Reading(
                device="cuda:0", memory_total=80_000, memory_free=60_000, utilisation=87.0, temperature=61, power=312.5
            ),
            Reading(device="cuda:1", memory_total=80_000, memory_free=80_000),
        ]

    def take(self) -> list[Reading]:
        return self.readings

    def stop(self) -> None:
        pass


def test_readings_of_devices_are_told_in_base_units_and_left_out_where_there_are_none(tmp_path: Path) -> None:
    card, now = Card(), [1000.0]
    gauges = Gauges([card], interval=5, clock=lambda: now[0])
    gauges.look()
    machine = {"accelerators": [{"device": device, "name": "H100"} for device in ("cuda:0", "cuda:1", "npu:0")]}
    facts = {"devices": {"machine": machine}}
    with open_house(tmp_path / "data", gauges=gauges, facts=facts) as house:
        told = numbers_in(house.get("/metrics").text)
        values = {
            name.removeprefix("docfleet_device_"): value
            for (name, labels), value in told.items()
            if name.startswith("docfleet_device_") and ("device", "cuda:0") in labels
        }
        assert values == {
            "memory_bytes": 80_000,
            "memory_free_bytes": 60_000,
            "utilization_ratio": 0.87,
            "temperature_celsius": 61,
            "power_watts": 312.5,
        }
        assert ("docfleet_device_power_watts", frozenset({("device", "cuda:1")})) not in told
        assert one(told, "docfleet_device_memory_bytes", device="cuda:1") == 80_000
        # A card that fell silent has no load: an old reading must not stand for now.
        now[0] += 60
        assert not [name for name, _ in fresh(house) if name.startswith("docfleet_device_")]


class Pool:
    """VLM servers, as the router tells of them."""

    told: dict[str, Any] | None = None

    async def state(self) -> dict[str, Any] | None:
        return self.told

    def servers(self) -> list[LocalServer]:
        local = {"index": 0, "device": "cuda:0", "engine": "vllm", "url": "http://127.0.0.1:30000", "port": 30000}
        return [LocalServer(**local, state=LocalState.LOADING, restarts=2)]


def test_vlm_servers_are_told_by_address_and_the_router_s_absence_as_such(tmp_path: Path) -> None:
    pool = Pool()
    row = {
        "id": "0" * 12,
        "url": "http://10.0.0.5:8001",
        "state": "resting",
        "reason": "",
        "pooled": True,
        "has_key": True,
        "model": "m",
        "in_flight": 3,
        "limit": 8,
        "done": 70,
        "failed": 2,
        "pages": 9,
        "seconds": None,
        "per_second": 0.5,
        "pages_per_second": 0.25,
    }
    with open_house(tmp_path / "data", vlm=pool) as house:
        assert one(numbers_in(house.get("/metrics").text), "docfleet_vlm_available") == 0
        pool.told = {"endpoints": [row], "waiting": 4}
        told = fresh(house)
        here = {"endpoint": "http://10.0.0.5:8001"}
        assert one(told, "docfleet_vlm_available") == 1
        assert one(told, "docfleet_vlm_waiting_requests") == 4
        assert one(told, "docfleet_vlm_endpoint_pages_total", **here) == 9
        assert one(told, "docfleet_vlm_endpoint_state", **here, state="resting") == 1
        assert one(told, "docfleet_vlm_endpoint_state", **here, state="up") == 0
        own = {"endpoint": "http://127.0.0.1:30000", "device": "cuda:0"}
        assert one(told, "docfleet_vlm_server_state", **own, state="loading") == 1
        assert one(told, "docfleet_vlm_server_state", **own, state="ready") == 0
        assert one(told, "docfleet_vlm_server_restarts_total", **own) == 2
        assert ("docfleet_vlm_endpoint_request_seconds", frozenset(here.items())) not in told
        (shown,) = house.get("/status").json()["progress"]["endpoints"]
        assert shown == {
            "url": "http://10.0.0.5:8001",
            "pages_done": 9,
            "failures": 2,
            "outstanding": 3,
            "pages_per_second": 0.25,
            "state": "resting",
        }
