"""What scraping costs: `python -m benchmarks.metrics [--jobs 2000] [--scrapers 20] [--requests 200]`.

A server with a filled job table and work under way is scraped by one, then by many at once; beside that the time of a
cached answer and of `/livez`, without scrapes and while the many scrape.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import requests

from docfleet.files import new_job_id
from docfleet.options import ParseOptions
from docfleet.process.identity import identify
from docfleet.records import Document, ShardPlan, Stage
from docfleet.store.sqlite import open_store
from tests.serving import FAULTY, Serving, blank_pdf, running

ENDED = {"tier": "flash", "pages": 1, "failed_pages": [], "files": []}


def fill(data: Path, jobs: int) -> None:
    """Have so many documents in the store that have ended."""
    data.mkdir()
    me = identify()
    with closing(open_store(data / "docfleet.db")) as store:
        for number in range(jobs):
            document = Document(filename="old.pdf", suffix="pdf", size=1, sha256=f"{number:064x}", pages=1)
            plan = ShardPlan(stage=Stage.WHOLE, first_page=0, last_page=0)
            store.accept(new_job_id(), document, ParseOptions(), [plan])
            claim = store.claim(me, 0)
            assert claim is not None
            store.complete(claim, output="none", report=ENDED)


def timed(session: requests.Session, method: str, url: str, **more: object) -> float:
    begun = time.perf_counter()
    session.request(method, url, timeout=60, **more).raise_for_status()  # type: ignore[arg-type]
    return time.perf_counter() - begun


def show(name: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p50, p95 = statistics.median(ordered), ordered[int(len(ordered) * 0.95)]
    print(f"{name:<44} p50 {p50 * 1e3:7.2f} ms   p95 {p95 * 1e3:7.2f} ms   max {ordered[-1] * 1e3:7.2f} ms", flush=True)


@contextmanager
def scraping(serving: Serving, scrapers: int) -> Iterator[None]:
    """Scrape without a pause, so many at once, until the block ends."""
    end = threading.Event()

    def scrape() -> None:
        with requests.Session() as session:
            while not end.wait(0.05):
                timed(session, "GET", f"{serving.url}/metrics")

    with ThreadPoolExecutor(scrapers) as pool:
        tasks = [pool.submit(scrape) for _ in range(scrapers)]
        try:
            yield
        finally:
            end.set()
            for task in tasks:
                task.result()


def measure(serving: Serving, content: bytes, number: int, name: str) -> None:
    headers = {"Content-Type": "application/pdf"}
    with requests.Session() as session:
        predict = f"{serving.url}/predict?filename=document.pdf"
        cached = [timed(session, "POST", predict, data=content, headers=headers) for _ in range(number)]
        probes = [timed(session, "GET", f"{serving.url}/livez") for _ in range(number)]
    show(f"cached /predict, {name}", cached)
    show(f"/livez, {name}", probes)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=2000, help="documents in the store that have ended")
    parser.add_argument("--scrapers", type=int, default=20)
    parser.add_argument("--requests", type=int, default=200)
    args = parser.parse_args()
    content = blank_pdf(3)
    options = ("--workers", "2", "--overcommit-cpu", "--reuse-results", "--log-level", "warning", "--engines", FAULTY)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        fill(data, args.jobs)
        with running(data, *options) as serving, requests.Session() as session:
            serving.predict(content, "document.pdf").raise_for_status()
            # Work under way while all of this is measured: one of the workers reads it.
            busy = {"files": ("sleep-0.2-busy.pdf", blank_pdf(2000))}
            requests.post(f"{serving.url}/jobs", files=busy, timeout=60).raise_for_status()
            text = requests.get(f"{serving.url}/metrics", timeout=60).text
            print(f"{args.jobs} documents in the store; {len(text)} bytes, {len(text.splitlines())} lines a scrape")
            fresh = []
            for _ in range(10):
                time.sleep(1.05)
                fresh.append(timed(session, "GET", f"{serving.url}/metrics"))
            show("a scrape that collects", fresh)
            shared = [timed(session, "GET", f"{serving.url}/metrics") for _ in range(args.requests)]
            show("scrapes one after the other", shared)
            measure(serving, content, args.requests, "nobody scrapes")
            with scraping(serving, args.scrapers):
                measure(serving, content, args.requests, f"{args.scrapers} scrape 20 times a second")


if __name__ == "__main__":
    main()
