"""Workers are replaced before they grow, one at a time, and nobody notices."""

from __future__ import annotations

import concurrent.futures
import itertools
import threading
from pathlib import Path

from tests.serving import FAULTY, Serving, blank_pdf, running, wait_ready, wait_until


def recycled(serving: Serving) -> int:
    return int(serving.get("/status")["totals"]["recycled"])


def test_workers_are_replaced_under_load_one_at_a_time_and_no_request_fails(tmp_path: Path) -> None:
    options = ("--workers", "2", "--recycle-documents", "5", "--engines", FAULTY)
    with running(tmp_path / "data", *options) as serving:
        wait_ready(serving, workers=2)
        before = {worker["pid"] for worker in serving.workers()}
        away, over = [], threading.Event()

        def look() -> None:
            while not over.is_set():
                workers = serving.workers()
                away.append(sum(worker["state"] not in ("ready", "busy") for worker in workers))

        looking = threading.Thread(target=look)
        looking.start()
        try:
            with concurrent.futures.ThreadPoolExecutor(6) as pool:
                names = [f"sleep-0.1-{number}.pdf" for number in range(120)]
                answers = list(pool.map(lambda name: serving.predict(blank_pdf(1), name), names))
        finally:
            over.set()
            looking.join()
        assert {answer.status_code for answer in answers} == {200}
        assert recycled(serving) >= 3
        wait_ready(serving, workers=2)
        assert max(away) == 1
        more = itertools.count()

        def all_replaced() -> bool:
            # Who is due first takes the turn: one of the two may have had it each time.
            assert serving.predict(blank_pdf(1), f"more-{next(more)}.pdf").status_code == 200
            return before.isdisjoint(worker["pid"] for worker in serving.workers())

        wait_until(all_replaced, 120)
        attempts = [serving.get(f"/jobs/{answer.json()['job_id']}")["shards"][0]["attempt"] for answer in answers]
        assert set(attempts) == {1}, "a worker left with a shard in hand"


def test_a_worker_that_grows_is_replaced_and_one_that_does_not_is_kept(tmp_path: Path) -> None:
    options = ("--workers", "1", "--recycle-rss-mb", "1", "--engines", FAULTY)
    with running(tmp_path / "data", *options) as serving:
        (before,) = serving.workers()
        for number in range(5):
            assert serving.predict(blank_pdf(1), f"{number}.pdf").status_code == 200
        assert [worker["pid"] for worker in serving.workers()] == [before["pid"]]
        assert serving.predict(blank_pdf(1), "leak-200.pdf").status_code == 200
        wait_until(lambda: recycled(serving) == 1)
        assert serving.predict(blank_pdf(1), "after.pdf").status_code == 200
        (after,) = serving.workers()
        assert after["pid"] != before["pid"]
        assert after["rss"] < before["rss"] + 100 * 2**20


def test_a_worker_is_replaced_for_its_age_once_it_has_worked(tmp_path: Path) -> None:
    options = ("--workers", "1", "--recycle-hours", "0.0001", "--engines", FAULTY)
    with running(tmp_path / "data", *options) as serving:
        (before,) = serving.workers()
        assert serving.predict(blank_pdf(1), "a.pdf").status_code == 200
        wait_until(lambda: recycled(serving) == 1)
        assert serving.predict(blank_pdf(1), "b.pdf").status_code == 200
        assert before["pid"] not in [worker["pid"] for worker in serving.workers()]
