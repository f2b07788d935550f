"""A warm process takes over where a worker dies or leaves; one that dies at its start is tried later each time."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import requests

from tests.serving import FAULTY, Serving, blank_pdf, gone, running, start, stop, wait_ready, wait_until

FRAGILE = "tests.engines:FragileEngine"
ONE_AND_A_SPARE = ("--workers", "1", "--spares", "1", "--engines", FAULTY)


def in_background(serving: Serving, name: str, pages: int = 1) -> concurrent.futures.Future[requests.Response]:
    pool = concurrent.futures.ThreadPoolExecutor(1)
    future = pool.submit(serving.predict, blank_pdf(pages), name, 180)
    pool.shutdown(wait=False)
    return future


def warm(serving: Serving, besides: int = 0) -> int:
    """Wait for a spare that has loaded, another than process `besides`; return its number."""

    def look() -> int | None:
        return next((s["pid"] for s in serving.spares() if s["state"] == "spare" and s["pid"] != besides), None)

    return int(wait_until(look, seconds=120))


def reader(response: requests.Response) -> int:
    """The process that made the result."""
    assert response.status_code == 200, response.text
    return int(response.json()["markdown"].partition("pid ")[2].split()[0])


def test_a_spare_takes_over_from_a_killed_worker_whatever_else_is_killed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    serving = start(data, *ONE_AND_A_SPARE)
    spare = warm(serving)
    answer = in_background(serving, "sleep-0.5-a.pdf", pages=3)
    busy = wait_until(lambda: next((w["pid"] for w in serving.workers() if w["state"] == "busy"), None))
    os.kill(busy, signal.SIGKILL)
    assert reader(answer.result(180)) == spare

    # The spare that came next dies: the worker is left alone, and another spare comes.
    second = warm(serving, besides=spare)
    os.kill(second, signal.SIGKILL)
    third = warm(serving, besides=second)
    assert [worker["pid"] for worker in serving.workers()] == [spare]

    # Killed in the moment of taking over, and again: whoever comes next serves, and there is one worker and one spare.
    os.kill(spare, signal.SIGKILL)
    wait_until(lambda: serving.workers()[0]["pid"] == third)
    os.kill(third, signal.SIGKILL)
    assert reader(serving.predict(blank_pdf(1), "b.pdf", timeout=180)) not in (busy, spare, second, third)

    # Everything is killed and started again.
    answer = in_background(serving, "sleep-1-d.pdf", pages=2)
    (job,) = wait_until(lambda: [found["job_id"] for found in serving.get("/jobs?state=running")["jobs"]])
    family = serving.family()
    for process in family:
        process.kill()
    gone(family)
    with running(data, *ONE_AND_A_SPARE) as again:
        wait_until(lambda: again.get(f"/jobs/{job}")["state"] == "completed", seconds=120)
        warm(again)
        assert (len(again.workers()), len(again.spares())) == (1, 1)
        family = again.family()
        again.process.kill()
        again.process.wait()
        gone(family)


def test_a_worker_that_is_replaced_leaves_when_a_spare_has_its_slot_and_there_is_always_one(tmp_path: Path) -> None:
    with running(tmp_path / "data", *ONE_AND_A_SPARE, "--recycle-documents", "3") as serving:
        seen: list[list[str]] = []
        over = threading.Event()

        def look() -> None:
            while not over.is_set():
                seen.append([worker["state"] for worker in serving.workers()])

        looking = threading.Thread(target=look)
        looking.start()
        answers = []
        try:
            deadline = time.monotonic() + 120
            while serving.get("/status")["totals"]["recycled"] < 2 and time.monotonic() < deadline:
                answers.append(serving.predict(blank_pdf(1), "sleep-0.1-a.pdf", timeout=180))
        finally:
            over.set()
            looking.join()
        assert serving.get("/status")["totals"]["recycled"] >= 2
        assert len({reader(answer) for answer in answers}) >= 2
        attempts = [serving.get(f"/jobs/{answer.json()['job_id']}")["attempts"] for answer in answers]
        assert set(attempts) == {1}
        assert {state for states in seen for state in states} <= {"ready", "busy"}
        assert {len(states) for states in seen} == {1}
        warm(serving)
        assert stop(serving) == 0


def test_a_worker_that_dies_while_it_loads_is_tried_later_each_time_and_the_other_serves(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "die-1").write_text(str(int(signal.SIGSEGV)))
    began = time.monotonic()
    with running(data, "--workers", "2", "--engines", FRAGILE) as serving:
        failed = wait_until(lambda: next((w for w in serving.workers() if w["crashes"] >= 2), None), seconds=90)
        # One second lies between the first and the second death: the machine may be slow, never too fast.
        assert time.monotonic() - began >= 1
        starts = (data / "starts-1").read_text().split()
        assert failed["crashes"] <= len(starts) <= failed["crashes"] + 1
        failed = wait_until(lambda: next((w for w in serving.workers() if w["state"] == "failed"), None), seconds=60)
        assert failed["exit"] == "signal SIGSEGV"
        assert failed["next_try"] >= 0
        assert "died before its engines were loaded" in failed["detail"]
        assert serving.predict(blank_pdf(1), "a.pdf").status_code == 200
        assert requests.get(f"{serving.url}/readyz", timeout=10).status_code == 200

        (data / "die-1").unlink()
        wait_ready(serving, workers=2)
        assert [worker["crashes"] for worker in serving.workers()] == [0, 0]


#: Python runs it before anything else: a worker ends here like one whose libraries cannot be loaded.
BROKEN_INSTALLATION = """
import os, sys
if "multiprocessing.spawn" in " ".join(sys.orig_argv) and os.path.exists({mark!r}):
    with open({starts!r}, "a") as log:
        log.write("x")
    os._exit(7)
"""


def test_workers_that_end_before_any_code_of_ours_runs_are_tried_later_each_time(tmp_path: Path) -> None:
    mark, starts = tmp_path / "broken", tmp_path / "starts"
    mark.touch()
    code = BROKEN_INSTALLATION.format(mark=str(mark), starts=str(starts))
    (tmp_path / "sitecustomize.py").write_text(code, encoding="utf-8")
    options = ("--workers", "1", "--engines", FAULTY)
    serving = start(tmp_path / "data", *options, wait=False, PYTHONPATH=str(tmp_path))
    try:

        def crashed() -> dict[str, object] | None:
            with contextlib.suppress(requests.RequestException, KeyError):
                return next((one for one in serving.workers() if one["crashes"] >= 2), None)
            return None

        failed = wait_until(crashed, seconds=120)
        assert (failed["state"], failed["exit"]) == ("failed", "status 7")
        assert "next try after" in str(failed["detail"])
        # Each try is a death that counts, and no other process was started beside it.
        assert len(starts.read_text()) <= serving.workers()[0]["crashes"] + 1
        assert requests.get(f"{serving.url}/readyz", timeout=10).status_code == 503
        mark.unlink()
        wait_ready(serving)
        assert serving.predict(blank_pdf(1), "a.pdf").status_code == 200
        assert [worker["crashes"] for worker in serving.workers()] == [0]
    finally:
        assert stop(serving) == 0
