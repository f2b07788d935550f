"""Results are reused: the real server, the store and the files under SIGKILL, upgrades and removal."""

from __future__ import annotations

import concurrent.futures
import os
import signal
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import requests

from docfleet.files import DataFolder, remove_tree
from docfleet.store.sqlite import open_store
from tests.serving import FAULTY, Serving, blank_pdf, running, wait_ready, wait_until

OPTIONS = ("--reuse-results", "--engines", FAULTY)


#: The same bytes each time: a saved PDF has an id of its own.
pdf = cache(blank_pdf)


def reads(serving: Serving) -> list[str]:
    """The documents that an engine really read, one line each: process and name."""
    log = serving.data / "read.log"
    return log.read_text().splitlines() if log.exists() else []


def answer(serving: Serving, content: bytes, name: str = "a.pdf", **options: str) -> dict[str, Any]:
    response = serving.predict(content, name, **options)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def at_once(serving: Serving, number: int, content: bytes, name: str) -> list[concurrent.futures.Future[Any]]:
    pool = concurrent.futures.ThreadPoolExecutor(number)
    futures = [pool.submit(serving.predict, content, name) for _ in range(number)]
    pool.shutdown(wait=False)
    return futures


def no_leftovers(data: Path) -> bool:
    return not [*data.glob("incoming/*"), *data.glob("jobs/*/work")]


def test_the_same_document_is_read_once_and_only_for_the_same_options_and_bytes(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--workers", "1", *OPTIONS) as serving:
        first = answer(serving, pdf(2))
        again = answer(serving, pdf(2), "other-name.pdf", start_page_id="0", end_page_id="7", backend="auto")
        assert (first["cached"], again["cached"]) == (False, True)
        assert again["markdown"] == first["markdown"]
        assert again["filename"] == "other-name.pdf"
        assert again["job_id"] != first["job_id"]
        assert len(reads(serving)) == 1
        for content, options in (
            (pdf(3), {}),
            (pdf(2), {"end_page_id": "0"}),
            (pdf(2), {"method": "ocr"}),
            (pdf(2), {"table_enable": "false"}),
            (pdf(2), {"formats": "markdown,html"}),
        ):
            assert not answer(serving, content, **options)["cached"]
        assert len(reads(serving)) == 6
        # The document's name stands in an HTML title.
        assert not answer(serving, pdf(2), "b.pdf", formats="markdown,html")["cached"]
        assert answer(serving, pdf(2), formats="html,markdown")["cached"]
        assert serving.get("/status")["totals"]["cached"] == 2
        assert no_leftovers(serving.data)


def test_cache_false_is_neither_served_nor_serves(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--workers", "1", *OPTIONS) as serving:
        for options in ({"cache": "false"}, {}, {"cache": "false"}):
            assert not answer(serving, pdf(1), **options)["cached"]
        assert len(reads(serving)) == 3
        assert answer(serving, pdf(1))["cached"]


def test_a_server_told_not_to_reuse_reads_every_time(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--workers", "1", "--no-reuse-results", "--engines", FAULTY) as serving:
        assert not answer(serving, pdf(1))["cached"]
        assert not answer(serving, pdf(1))["cached"]


def test_results_outlive_a_restart_and_not_a_change_of_the_engine(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data, "--workers", "1", *OPTIONS) as serving:
        assert not answer(serving, pdf(1))["cached"]
    with running(data, "--workers", "1", *OPTIONS) as serving:
        assert answer(serving, pdf(1))["cached"]
    with running(data, "--workers", "1", *OPTIONS, FAULTY_VERSION="2") as serving:
        renewed = answer(serving, pdf(1))
        assert (renewed["cached"], renewed["engine_version"]) == (False, "2")
        assert answer(serving, pdf(1))["engine_version"] == "2"
        assert len(reads(serving)) == 2


@pytest.mark.parametrize("lost", ["a file", "the folder", "the job's folder"])
def test_a_document_whose_stored_result_vanished_is_read_again(tmp_path: Path, lost: str) -> None:
    with running(tmp_path / "data", "--workers", "1", *OPTIONS) as serving:
        first = answer(serving, pdf(1))
        output = Path(first["output_dir"])
        remove_tree({"a file": output / "document.md", "the folder": output}.get(lost, output.parent))
        again = answer(serving, pdf(1))
        assert not again["cached"]
        assert answer(serving, pdf(1))["cached"]
        assert len(reads(serving)) == 2
        assert no_leftovers(serving.data)


def test_identical_requests_at_once_share_one_parse(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--workers", "2", *OPTIONS) as serving:
        wait_ready(serving, workers=2)
        futures = at_once(serving, 20, pdf(2), "sleep-0.5-a.pdf")
        bodies = [future.result(timeout=60).json() for future in futures]
        assert {body["status"] for body in bodies} == {"completed"}
        assert len({body["job_id"] for body in bodies}) == 20
        assert sorted(body["cached"] for body in bodies) == [False] + [True] * 19
        assert len({body["markdown"] for body in bodies}) == 1
        assert len(reads(serving)) == 1
        assert no_leftovers(serving.data)


def test_all_are_answered_when_the_worker_of_the_shared_parse_is_killed(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--workers", "2", *OPTIONS) as serving:
        wait_ready(serving, workers=2)
        futures = at_once(serving, 8, pdf(2), "sleep-1-a.pdf")
        wait_until(lambda: reads(serving) and serving.get("/status")["queue"]["queued_jobs"] == 7)
        (line,) = reads(serving)
        os.kill(int(line.split()[0]), signal.SIGKILL)
        bodies = [future.result(timeout=60).json() for future in futures]
        assert {body["status"] for body in bodies} == {"completed"}
        assert len(reads(serving)) == 2


def test_when_a_shared_parse_fails_each_follower_gets_its_own_chance(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--workers", "1", *OPTIONS) as serving:
        (failing,) = at_once(serving, 1, pdf(1), "sleep-1-raise.pdf")
        wait_until(lambda: reads(serving))
        followers = at_once(serving, 3, pdf(1), "good.pdf")
        assert failing.result(timeout=60).status_code == 422
        bodies = [future.result(timeout=60).json() for future in followers]
        assert sorted(body["cached"] for body in bodies) == [False, True, True]
        assert len(reads(serving)) == 2


def test_followers_are_served_by_the_next_run_after_everything_was_killed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data, "--workers", "1", *OPTIONS) as serving:
        at_once(serving, 5, pdf(2), "sleep-1-a.pdf")
        wait_until(lambda: reads(serving) and serving.get("/status")["queue"]["queued_jobs"] == 4)
        for process in serving.family():
            process.kill()
        serving.process.wait(timeout=15)
    jobs = [path.name for path in data.glob("jobs/*")]
    assert len(jobs) == 5
    with running(data, "--workers", "1", *OPTIONS) as serving:
        for job in jobs:
            wait_until(lambda name=job: serving.get(f"/jobs/{name}")["state"] == "completed")
            assert "page 1" in serving.get(f"/jobs/{job}/result")["markdown"]
        assert len(reads(serving)) == 2
        assert no_leftovers(data)


def test_removing_a_job_leaves_those_that_share_its_result(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--workers", "1", *OPTIONS) as serving:
        first, second = answer(serving, pdf(1)), answer(serving, pdf(1))
        folder = DataFolder(serving.data)
        with closing(open_store(folder.database)) as store:
            remove_tree(folder.job(first["job_id"]))
            store.remove(first["job_id"])
        kept = serving.get(f"/jobs/{second['job_id']}/result")
        assert kept["markdown"] == first["markdown"]
        third = answer(serving, pdf(1))
        assert third["cached"]
        assert len(reads(serving)) == 1


def test_results_over_the_size_limit_go_and_the_newest_document_is_still_answered(tmp_path: Path) -> None:
    # The limit holds some 5 of these documents.
    limit = str(5 * len(pdf(1)) / 1e9)
    with running(tmp_path / "data", "--workers", "1", "--engines", FAULTY, "--max-results-gb", limit) as serving:
        jobs = [answer(serving, blank_pdf(1), f"{number}.pdf")["job_id"] for number in range(12)]
        wait_until(lambda: len([*serving.data.glob("jobs/*")]) <= 5)
        states = [serving.get(f"/jobs/{job}").get("state") for job in jobs]
        assert states[:7] == [None] * 7
        assert states[-1] == "completed"
        assert {path.name for path in serving.data.glob("jobs/*")} == {
            job for job, state in zip(jobs, states, strict=True) if state
        }


def test_a_key_stands_for_a_stored_result_and_a_cancelled_leader_for_nobody(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--workers", "1", *OPTIONS) as serving:

        def submit(name: str, key: str | None = None) -> dict[str, Any]:
            headers = {} if key is None else {"Idempotency-Key": key}
            files = {"file": (name, pdf(2))}
            response = requests.post(f"{serving.url}/jobs", files=files, headers=headers, timeout=30)
            assert response.status_code == 202, response.text
            body: dict[str, Any] = response.json()
            return body

        leader, follower = submit("hang.pdf"), submit("a.pdf")
        wait_until(lambda: serving.get(f"/jobs/{leader['job_id']}")["state"] == "running")
        stopped = requests.delete(f"{serving.url}/jobs/{leader['job_id']}", timeout=30)
        assert stopped.json()["state"] == "cancelled"
        wait_until(lambda: serving.get(f"/jobs/{follower['job_id']}")["state"] == "completed")
        keyed = submit("c.pdf", "k")
        assert keyed["status"] == "completed"
        assert submit("c.pdf", "k")["job_id"] == keyed["job_id"]
        assert serving.get("/status")["totals"]["cached"] == 1
