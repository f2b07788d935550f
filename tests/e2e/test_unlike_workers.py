"""Workers that cannot read the same: each document is read by whoever can, and by one engine from end to end."""

from __future__ import annotations

import concurrent.futures
import os
import signal
from pathlib import Path
from typing import Any

import requests

from tests.serving import FAULTY, Serving, blank_pdf, running, wait_ready, wait_until

LATE = "tests.engines:LateEngine"
TWO = ("--workers", "2", "--engines", f"{LATE},{FAULTY}")


def prepared(tmp_path: Path, *files: str) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    for file in files:
        (data / file).touch()
    return data


def in_background(serving: Serving, name: str, pages: int, **options: str) -> concurrent.futures.Future[Any]:
    pool = concurrent.futures.ThreadPoolExecutor(1)
    future = pool.submit(serving.predict, blank_pdf(pages), name, 180, **options)
    pool.shutdown(wait=False)
    return future


def lines_of(response: requests.Response) -> list[str]:
    assert response.status_code == 200, response.text
    text: str = response.json()["markdown"]
    return [line for line in text.split("\n\n") if line.startswith(("page ", "digest "))]


def replace_workers(serving: Serving) -> None:
    """Kill one worker after the other; each time another process has taken its place, loaded, before this goes on."""
    for slot in (0, 1):
        pid = serving.workers()[slot]["pid"]
        os.kill(pid, signal.SIGKILL)

        def served(slot: int = slot, pid: int = pid) -> bool:
            worker = serving.workers()[slot]
            return worker["pid"] != pid and worker["state"] in ("ready", "busy")

        wait_until(served, seconds=60)


def test_documents_of_a_tier_that_one_worker_has_are_all_read_by_it(tmp_path: Path) -> None:
    with running(prepared(tmp_path, "weights-0"), *TWO) as serving:
        wait_ready(serving, workers=2)
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            names = [f"sleep-0.05-{number}.pdf" for number in range(12)]
            answers = list(pool.map(lambda name: serving.predict(blank_pdf(1), name, tier="basic"), names))
        assert [answer.status_code for answer in answers] == [200] * 12, [answer.text for answer in answers]
        assert {answer.json()["tier"] for answer in answers} == {"basic"}
        assert len({answer.json()["markdown"].partition("pid ")[2].split()[0] for answer in answers}) == 1
        assert serving.get("/status")["totals"]["retries"] == 0
        # What nobody can read is refused at once, unlike as the workers are.
        refused = serving.predict(blank_pdf(1), "a.pdf", tier="advanced", timeout=5)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "tier_unavailable")


def test_a_document_that_was_cut_is_read_by_one_kind_of_worker_alone(tmp_path: Path) -> None:
    with running(prepared(tmp_path, "weights-0"), *TWO) as serving:
        wait_ready(serving, workers=2)
        documents = [in_background(serving, f"cut-sleep-0.3-{number}.pdf", 24) for number in range(3)]
        for answer in [document.result() for document in documents]:
            assert lines_of(answer)[:-1] == [f"page {page}" for page in range(24)]
            job = serving.get(f"/jobs/{answer.json()['job_id']}")
            assert len([shard for shard in job["shards"] if shard["stage"] == "pages"]) > 2


def test_a_document_is_finished_by_who_began_it_though_all_workers_were_replaced(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    with running(data, *TWO, "--reuse-results") as serving:
        wait_ready(serving, workers=2)
        document = in_background(serving, "cut-sleep-1-a.pdf", 24)
        wait_until(lambda: partly_read(serving))
        (data / "weights").touch()
        replace_workers(serving)
        assert not document.done()
        answer = document.result(180)
        assert answer.json()["tier"] == "flash"
        assert lines_of(answer) == [f"page {page}" for page in range(24)] + lines_of(answer)[-1:]
        # What workers of before made is not what those of today would make.
        again = serving.predict(blank_pdf(24), "cut-sleep-1-a.pdf")
        assert again.json()["tier"] == "basic"
        assert not again.json()["cached"]
        assert lines_of(again) == lines_of(answer)


def test_a_document_whose_reader_is_gone_for_good_ends_with_an_error_that_says_so(tmp_path: Path) -> None:
    data = prepared(tmp_path, "weights")
    with running(data, *TWO) as serving:
        wait_ready(serving, workers=2)
        document = in_background(serving, "cut-sleep-1-a.pdf", 24)
        wait_until(lambda: partly_read(serving))
        (data / "weights").unlink()
        replace_workers(serving)
        answer = document.result(60)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "reader_unavailable"
        assert "Send the document again" in answer.json()["error"]["message"]


def partly_read(serving: Serving) -> bool:
    """Whether the one job that is under way was cut, and some of it is delivered."""
    jobs = serving.get("/jobs?state=running")["jobs"]
    shards = serving.get(f"/jobs/{jobs[0]['job_id']}")["shards"] if jobs else []
    return any(shard["stage"] == "pages" and shard["state"] == "done" for shard in shards)
