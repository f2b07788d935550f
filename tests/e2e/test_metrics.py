"""What the real server tells of itself while documents are read, fail, kill, are refused and cancelled."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psutil
import pytest
import requests

from docfleet.store.sqlite import open_store
from docfleet.store.tallies import Event
from tests.exposition import Numbers, numbers_in, one
from tests.serving import FAULTY, Serving, blank_pdf, running, wait_ready, wait_until

MOST = "2"
PROGRESS = re.compile(r"progress: documents ([0-9]+)/([0-9]+) .* pages ([0-9]+)/([0-9]+) .*, [0-9.]+ pages/s")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server that has seen it all."""
    options = ["--workers", "1", "--engines", FAULTY, "--max-backlog-jobs", MOST, "--max-attempts", "2"]
    with running(tmp_path_factory.mktemp("metrics") / "data", *options) as serving:
        assert serving.predict(blank_pdf(3), "good.pdf").status_code == 200
        assert serving.predict(blank_pdf(2), "die-once.pdf").status_code == 200
        assert serving.predict(blank_pdf(3), "page-1-raise.pdf").json()["status"] == "partial"
        assert serving.predict(blank_pdf(1), "raise.pdf").status_code == 422
        hanging, waiting = submit(serving, "hang.pdf"), submit(serving, "later.pdf")
        assert requests.post(f"{serving.url}/jobs", files=document("refused.pdf"), timeout=30).status_code == 429
        wait_until(lambda: (2, 2) in lines_of_progress(serving), 60, "a line about what hangs and what waits")
        assert serving.get("/status")["progress"]["devices"][0]["busy"] == 1
        assert requests.delete(f"{serving.url}/jobs/{hanging}", timeout=30).status_code == 200
        wait_until(lambda: serving.get(f"/jobs/{waiting}")["state"] == "completed", 60)
        yield serving


def lines_of_progress(serving: Serving) -> list[tuple[int, int]]:
    """Documents and pages that each line of the log says are left."""
    found = PROGRESS.findall(serving.log.read_text())
    return [(int(of) - int(ended), int(pages) - int(done)) for ended, of, done, pages in found]


def document(name: str) -> dict[str, Any]:
    return {"files": (name, blank_pdf(1))}


def submit(serving: Serving, name: str) -> str:
    answer = requests.post(f"{serving.url}/jobs", files=document(name), timeout=30)
    assert answer.status_code == 202
    return str(answer.json()["job_id"])


def scrape(serving: Serving) -> str:
    return requests.get(f"{serving.url}/metrics", timeout=30).text


def settled(serving: Serving) -> Numbers:
    """The numbers of a collection in which the last worker's end and the refusal are counted."""

    def told() -> Numbers | None:
        found = numbers_in(scrape(serving))
        ended = one(found, "docfleet_worker_exits_total", how="SIGKILL") == 2
        return found if ended and one(found, "docfleet_jobs_total", state="completed") == 3 else None

    return wait_until(told, 60)  # type: ignore[no-any-return]


def test_counters_equal_what_happened_and_what_the_store_holds(served: Serving) -> None:
    told = settled(served)
    assert {state: one(told, "docfleet_jobs_total", state=state) for state in ("partial", "failed", "cancelled")} == {
        "partial": 1,
        "failed": 1,
        "cancelled": 1,
    }
    assert one(told, "docfleet_jobs_refused_total") == one(told, "docfleet_http_refusals_total", code="busy") == 1
    assert one(told, "docfleet_http_errors_total", code="parse_failed") == 1
    assert one(told, "docfleet_job_failures_total", code="parse_failed") == 1
    assert one(told, "docfleet_attempt_failures_total", code="worker_lost") == 1
    assert one(told, "docfleet_worker_kills_total", reason="cancelled") == 1
    # 3 of the first, 2 of the second, 2 of the third, 1 of the last.
    assert one(told, "docfleet_pages_read_total", device="cpu") == 8
    assert one(told, "docfleet_pages_failed_total", device="cpu") == 2
    assert one(told, "docfleet_backlog_pages") == one(told, "docfleet_backlog_jobs") == 0
    assert one(told, "docfleet_backlog_jobs_limit") == int(MOST)
    with closing(open_store(served.data / "docfleet.db")) as store:
        totals, tallies = store.totals(), store.tallies()
    (cpu,) = tallies.devices
    assert one(told, "docfleet_pages_delivered_total") == totals.pages
    assert one(told, "docfleet_retries_total") == totals.retries
    assert one(told, "docfleet_shards_total", device="cpu") == cpu.shards_done
    assert one(told, "docfleet_shard_attempts_failed_total", device="cpu") == cpu.shards_failed
    assert cpu.shards_failed == sum(tallies.failures.values())
    durations = [value for (name, _), value in told.items() if name == "docfleet_shard_duration_seconds_count"]
    assert sum(durations) == cpu.shards_done
    assert tallies.events[Event.WORKER_EXIT] == {"SIGKILL": 2}
    progress = served.get("/status")["progress"]
    assert progress["documents"] == {"done": 4, "failed": 1, "waiting": 0, "running": 0}
    assert progress["pages"] == {"done": 8, "failed": 2, "waiting": 0}
    assert (progress["devices"][0]["device"], progress["devices"][0]["pages_done"]) == ("cpu", 8)


def test_processes_devices_and_disk_are_told_as_they_are(served: Serving) -> None:
    told = numbers_in(scrape(served))
    main = psutil.Process(served.process.pid).memory_info().rss
    assert main / 2 < one(told, "docfleet_process_resident_bytes", process="main") < main * 2
    for process in ("api", "helpers"):
        assert one(told, "docfleet_process_resident_bytes", process=process) > 2**20
    assert one(told, "docfleet_worker_resident_bytes", slot="0") > 2**20
    assert (
        0
        < one(told, "docfleet_device_memory_free_bytes", device="cpu")
        <= one(told, "docfleet_device_memory_bytes", device="cpu")
    )
    assert one(told, "docfleet_disk_free_limit_bytes") == 512 * 2**20
    assert one(told, "docfleet_workers_planned", device="cpu") == 1


def test_nothing_of_documents_callers_or_folders_is_told(served: Serving) -> None:
    text = scrape(served)
    assert not [word for word in ("good", ".pdf", "127.0.0.1", str(served.data)) if word in text]


@pytest.mark.needs("promtool")
def test_prometheus_own_checker_finds_nothing_to_say(served: Serving) -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=scrape(served), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_was_done_outlives_a_killed_api_process_and_its_own_counts_begin_anew(served: Serving) -> None:
    before = settled(served)
    begun = served.get("/status")["progress"]["since"]
    api = served.api()
    api.send_signal(signal.SIGKILL)
    api.wait(30)
    wait_ready(served)
    after = numbers_in(scrape(served))
    kept = ("docfleet_jobs", "docfleet_pages_read", "docfleet_shards", "docfleet_worker_kills")
    for (name, labels), value in before.items():
        if name.startswith(kept):
            assert after[name, labels] == value, name
    predict = {"method": "POST", "route": "/predict", "status": "2xx"}
    requested = "docfleet_http_requests_total"
    assert one(before, requested, **predict) == 3
    assert one(after, requested, **predict) == 0
    assert one(after, "docfleet_start_time_seconds") == one(before, "docfleet_start_time_seconds")
    assert one(after, "docfleet_api_start_time_seconds") > one(before, "docfleet_api_start_time_seconds")
    assert served.get("/status")["progress"]["since"] == begun
