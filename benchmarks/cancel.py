"""How soon is a worker free when its work is no longer wanted? `python -m benchmarks.cancel [--rounds 5] [--spares 1]`.

Work is ended by DELETE, and by a `/predict` caller who hangs up; in the middle of short pages, in an endless page, and
while it waits in the queue. Printed are seconds from that moment, median and most, until `/status` shows the worker
ready (or at other work), and until a one-page document that was sent in the same moment is answered. For work in the
queue there is no worker to be free: the seconds are those until the backlog is one less, and until another is let in.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from tests.serving import FAULTY, Serving, blank_pdf, running, wait_ready, wait_until

#: What is being read when it is ended: name, which tells the engine what to do, and pages.
WORK = {"between pages": ("sleep-0.2-a.pdf", 1000), "endless page": ("hang.pdf", 1)}
_LOOK = 0.01


@dataclass
class Ending:
    """A piece of work, and how to end it."""

    job: str
    end: Callable[[], object]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--spares", type=int, default=1)
    args = parser.parse_args()
    # Two documents at most: so that a place in the queue is seen to be free.
    options = ("--workers", "1", "--spares", str(args.spares), "--engines", FAULTY, "--max-backlog-jobs", "2")
    print(f"1 worker, {args.spares} spare(s), {args.rounds} rounds; seconds as median / most")
    print(f"{'what':<14} {'ended by':<9} {'free':>13} {'next answered':>15}")
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data", *options) as serving:
        for what, (name, pages) in WORK.items():
            for how, begin in (("DELETE", by_delete), ("hang-up", by_hanging_up)):
                show(what, how, [once(serving, begin, name, pages) for _ in range(args.rounds)])
        for how, begin in (("DELETE", by_delete), ("hang-up", by_hanging_up)):
            show("in the queue", how, [queued(serving, begin) for _ in range(args.rounds)])


def show(what: str, how: str, seconds: list[tuple[float, float]]) -> None:
    free, answered = ([pair[n] for pair in seconds] for n in (0, 1))
    told = [f"{statistics.median(values):.2f} / {max(values):.2f}" for values in (free, answered)]
    print(f"{what:<14} {how:<9} {told[0]:>13} {told[1]:>15}", flush=True)


Begin = Callable[[Serving, str, bytes], AbstractContextManager[Ending]]


@contextmanager
def by_delete(serving: Serving, name: str, content: bytes) -> Iterator[Ending]:
    """Send a job, to be ended by DELETE."""
    response = requests.post(f"{serving.url}/jobs", files={"files": (name, content)}, timeout=60)
    response.raise_for_status()
    job = str(response.json()["job_id"])
    yield Ending(job, lambda: requests.delete(f"{serving.url}/jobs/{job}", timeout=60).raise_for_status())


@contextmanager
def by_hanging_up(serving: Serving, name: str, content: bytes) -> Iterator[Ending]:
    """Send a document whose caller waits, to be ended by closing the connection."""
    known = {job["job_id"] for job in serving.get("/jobs?limit=500")["jobs"]}
    host, port = serving.url.removeprefix("http://").split(":")
    head = f"POST /predict?filename={name} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head.encode() + content)

        def job() -> str | None:
            found = serving.get("/jobs?limit=500")["jobs"]
            return next((str(one["job_id"]) for one in found if one["job_id"] not in known), None)

        yield Ending(wait_until(job, seconds=60), connection.close)


def once(serving: Serving, begin: Begin, name: str, pages: int) -> tuple[float, float]:
    """Return the seconds from the end of the work until its worker is free, and until the next document is done."""
    rested(serving)
    with ThreadPoolExecutor(1) as pool, begin(serving, name, blank_pdf(pages)) as work:
        wait_until(lambda: serving.get("/status")["workers"][0]["job_id"] == work.job, seconds=60)
        # In the middle of it, and not where it begins.
        time.sleep(0.3)
        content, began = blank_pdf(1), time.perf_counter()
        work.end()
        answer = pool.submit(lambda: (serving.predict(content, "next.pdf"), time.perf_counter())[1])
        wait_until(lambda: free(serving, work.job), seconds=60)
        return time.perf_counter() - began, answer.result() - began


def queued(serving: Serving, begin: Begin) -> tuple[float, float]:
    """Return the seconds from the end of work that waits until its place is free, and until another is let in."""
    rested(serving)
    with by_delete(serving, "sleep-0.2-first.pdf", blank_pdf(1000)) as first:
        wait_until(lambda: serving.get("/status")["workers"][0]["job_id"] == first.job, seconds=60)
        with begin(serving, "waits.pdf", blank_pdf(1)) as work:
            began = time.perf_counter()
            work.end()
            wait_until(lambda: serving.get("/status")["queue"]["backlog_jobs"] == 1, seconds=60)
            gone = time.perf_counter() - began
            with by_delete(serving, "next.pdf", blank_pdf(1)) as later:
                let_in = time.perf_counter() - began
                later.end()
        first.end()
    return gone, let_in


def free(serving: Serving, ended: str) -> bool:
    """Return whether the worker is ready, or at other work already."""
    time.sleep(_LOOK)
    worker = serving.workers()[0]
    return worker["state"] == "ready" or (worker["state"] == "busy" and worker["job_id"] not in (None, ended))


def rested(serving: Serving) -> None:
    """Wait until the worker is ready, with nothing to do and a warm spare where there is to be one."""
    wait_ready(serving)
    wait_until(lambda: serving.get("/status")["queue"]["backlog_jobs"] == 0, seconds=60)
    wait_until(lambda: all(spare["state"] == "spare" for spare in serving.spares()), seconds=60)


if __name__ == "__main__":
    main()
