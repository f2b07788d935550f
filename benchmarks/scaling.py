"""One long document over N workers: how much faster than over one?

    python -m benchmarks.scaling [--workers 1,2,4,8] [--pages 160] [--seconds 0.5] [--scan-pages 40]

First an engine that only sleeps a fixed time a page, through the real server: what the sharding itself loses. The ideal
is pages x seconds / N. Then a real scan, recognised without models, on 1 and on 2 workers with one thread each, and the
two results compared byte for byte. `--scan-pages 0` leaves the scan out. Quote the ratios.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import requests

from tests.scans import make_scan
from tests.serving import FAULTY, Serving, blank_pdf, running, wait_ready


def timed(serving: Serving, content: bytes, name: str) -> tuple[float, dict[str, object]]:
    """Return the seconds from the first byte sent to the last received, and the answer."""
    started = time.perf_counter()
    response = requests.post(f"{serving.url}/predict", files={"files": (name, content)}, timeout=3600)
    seconds = time.perf_counter() - started
    response.raise_for_status()
    return seconds, response.json()


def sleeping(workers: int, pages: int, seconds: float, folder: Path) -> tuple[float, int]:
    """Return the time for the document that only sleeps, and the number of its shards."""
    options = ("--workers", str(workers), "--overcommit-cpu", "--engines", FAULTY, "--log-level", "warning")
    with running(folder / f"sleep-{workers}", *options) as serving:
        wait_ready(serving, workers)
        timed(serving, blank_pdf(1), "warm.pdf")
        taken, body = timed(serving, blank_pdf(pages), f"cut-sleep-{seconds}-a.pdf")
        return taken, len(serving.get(f"/jobs/{body['job_id']}")["shards"])


def scanned(workers: int, content: bytes, folder: Path) -> tuple[float, bytes, int]:
    """Return the time for the scan, its Markdown and the number of its shards."""
    options = ("--workers", str(workers), "--log-level", "warning")
    with running(folder / f"scan-{workers}", *options, OMP_NUM_THREADS="1") as serving:
        wait_ready(serving, workers)
        taken, body = timed(serving, content, "scan.pdf")
        made = Path(str(body["output_dir"])) / "document.md"
        return taken, made.read_bytes(), len(serving.get(f"/jobs/{body['job_id']}")["shards"])


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", default="1,2,4,8")
    parser.add_argument("--pages", type=int, default=160)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--scan-pages", type=int, default=40)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work = args.pages * args.seconds
        print(
            f"{args.pages} pages that sleep {args.seconds} s each\nworkers  seconds  shards  speed-up  of N", flush=True
        )
        for workers in (int(word) for word in args.workers.split(",") if word):
            taken, shards = sleeping(workers, args.pages, args.seconds, folder)
            gain = work / taken
            print(f"{workers:7d}  {taken:7.2f}  {shards:6d}  {gain:8.2f}  {gain / workers:4.2f}", flush=True)
        if args.scan_pages:
            content = make_scan(folder / "scan.pdf", args.scan_pages).read_bytes()
            print(f"\nscan of {args.scan_pages} pages, embedded recognition\nworkers  seconds  shards", flush=True)
            results = []
            for workers in (1, 2):
                taken, text, shards = scanned(workers, content, folder)
                results.append((taken, text))
                print(f"{workers:7d}  {taken:7.2f}  {shards:6d}", flush=True)
            (alone, text), (both, again) = results
            print(f"speed-up {alone / both:.2f}, results equal: {text == again}")


if __name__ == "__main__":
    main()
