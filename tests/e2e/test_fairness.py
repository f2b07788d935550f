"""Short documents beside long ones, on the real server."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path
from typing import Any

import requests

from tests.serving import FAULTY, Serving, blank_pdf, running, wait_ready, wait_until

TWO = ("--workers", "2", "--overcommit-cpu", "--engines", FAULTY)


def submit(serving: Serving, name: str, pages: int) -> str:
    # The lane of those who wait: long documents of the batch lane would be overtaken anyway.
    files, data = {"files": (name, blank_pdf(pages))}, {"lane": "interactive"}
    response = requests.post(f"{serving.url}/jobs", files=files, data=data, timeout=60)
    assert response.status_code == 202, response.text
    return str(response.json()["job_id"])


def job(serving: Serving, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = serving.get(f"/jobs/{job_id}")
    return found


def page_shards(serving: Serving, job_id: str) -> list[tuple[int, int]]:
    shards = job(serving, job_id)["shards"]
    return [(shard["first_page"], shard["last_page"]) for shard in shards if shard["stage"] == "pages"]


def reading(serving: Serving, job_id: str) -> int:
    shards = job(serving, job_id)["shards"]
    return sum(shard["stage"] == "pages" and shard["state"] == "running" for shard in shards)


def test_a_short_document_is_done_before_any_long_one_that_holds_all_workers(tmp_path: Path) -> None:
    with running(tmp_path / "data", *TWO) as serving:
        wait_ready(serving, workers=2)
        # So long that they could not end while this test runs, in shards that are long, too.
        long = [submit(serving, f"cut-sleep-0.2-{number}.pdf", 1000) for number in range(2)]
        # Both workers read pages of long shards, of one document or of both.
        wait_until(lambda: sum(reading(serving, one) for one in long) == 2)
        before = [page_shards(serving, one) for one in long]
        assert max(last - first for shards in before for first, last in shards) > 100
        for number in range(3):
            assert serving.predict(blank_pdf(1), f"sleep-0.2-short-{number}.pdf", 60).status_code == 200
        assert not {job(serving, one)["state"] for one in long} - {"queued", "running"}
        after = [page_shards(serving, one) for one in long]
        # Room was made within a shard: what was read of it stays, the rest is a shard of its own.
        assert after != before
        for shards in after:
            pages = [page for first, last in shards for page in range(first, last + 1)]
            assert pages in ([], list(range(1000)))
        for one in long:
            assert requests.delete(f"{serving.url}/jobs/{one}", timeout=10).status_code == 200


def test_a_document_that_made_room_again_and_again_is_whole_and_read_once(tmp_path: Path) -> None:
    with running(tmp_path / "data", *TWO) as serving:
        wait_ready(serving, workers=2)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            long = pool.submit(serving.predict, blank_pdf(60), "cut-sleep-0.2-a.pdf", 120)
            wait_until(lambda: any(worker["state"] == "busy" for worker in serving.workers()))
            shorts = [pool.submit(serving.predict, blank_pdf(1), f"short-{number}.pdf", 60) for number in range(20)]
            assert {short.result().status_code for short in shorts} == {200}
            body = long.result().json()
        lines = [line for line in body["markdown"].split("\n\n") if line.startswith("page ")]
        assert lines == [f"page {page}" for page in range(60)]
        assert max(shard["attempt"] for shard in job(serving, body["job_id"])["shards"]) == 1
        assert job(serving, body["job_id"])["pages_done"] == 60
        assert sum(worker["pages_done"] for worker in serving.workers()) <= 80


def test_of_long_documents_that_cannot_be_cut_one_fewer_is_read_than_there_are_workers(tmp_path: Path) -> None:
    with running(tmp_path / "data", *TWO) as serving:
        wait_ready(serving, workers=2)
        long = [submit(serving, f"long-sleep-0.2-{number}.pdf", 350) for number in range(4)]
        wait_until(lambda: any(worker["state"] == "busy" for worker in serving.workers()))
        scan = submit(serving, "cut-sleep-0.1-scan.pdf", 50)
        for number in range(3):
            assert serving.predict(blank_pdf(1), f"short-{number}.pdf", 60).status_code == 200
        # The worker that is left reads what can be cut; it makes room at every page.
        wait_until(lambda: job(serving, scan)["state"] == "completed", 60)
        states = [job(serving, one) for one in long]
        assert sorted(one["state"] for one in states) == ["queued", "queued", "queued", "running"]
        assert {one["attempts"] for one in states} == {0, 1}
        running_one = next(one["job_id"] for one in states if one["state"] == "running")
        # Where the one that is read leaves, the next is read.
        assert requests.delete(f"{serving.url}/jobs/{running_one}", timeout=10).status_code == 200
        wait_until(lambda: sum(job(serving, one)["state"] == "running" for one in long) == 1)
