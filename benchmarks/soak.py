"""Does memory stay flat? `python -m benchmarks.soak [DOCUMENT...] [--number 500] [--workers 2] [--recycle N]`.

Sends the documents in turn until so many were answered and prints the resident memory of every process over time, by
documents done. At the end the mean of the last quarter beside that of the second: flat is within 10 %. Without
`--recycle` no worker is replaced, so that growth is seen.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.serving import ROOT, Serving, running, wait_ready

#: Rows of the table.
ROWS = 16


@dataclass
class Samples:
    """Resident megabytes of each process or slot over time, and how many documents were done."""

    at: list[tuple[float, int, dict[str, float]]] = field(default_factory=list)
    done: int = 0
    failed: int = 0

    def mean(self, name: str, first: float, last: float) -> float:
        """Return the mean over a part of the documents: 0.25 to 0.5 is the second quarter."""
        found = [rss[name] for _, done, rss in self.at if name in rss and first <= done / max(self.done, 1) <= last]
        return statistics.mean(found) if found else float("nan")


def look(serving: Serving, api: psutil.Process) -> dict[str, float]:
    """Return resident megabytes: main, the API process, its inspectors, each worker with its children."""
    found = {"main": megabytes(psutil.Process(serving.process.pid)), "api": megabytes(api)}
    found["inspectors"] = sum(megabytes(child) for child in api.children(recursive=True))
    for worker in serving.workers():
        if worker["state"] in ("ready", "busy"):
            found[f"worker {worker['slot']}"] = worker["rss"] / 2**20
    return found


def megabytes(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss / 2**20)
    except psutil.Error:
        return 0.0


def soak(serving: Serving, paths: list[Path], number: int, concurrency: int) -> Samples:
    """Send the documents and watch."""
    samples, over, lock = Samples(), threading.Event(), threading.Lock()
    api, started = serving.api(), time.perf_counter()
    contents = [(path.name, path.read_bytes()) for path in paths]

    def watch() -> None:
        while not over.wait(0.5):
            samples.at.append((time.perf_counter() - started, samples.done, look(serving, api)))

    def send(document: tuple[str, bytes]) -> None:
        response = serving.predict(document[1], document[0], timeout=600)
        with lock:
            samples.done += 1
            samples.failed += response.status_code != 200

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        with ThreadPoolExecutor(concurrency) as pool:
            list(pool.map(send, itertools.islice(itertools.cycle(contents), number)))
    finally:
        over.set()
        watching.join()
    return samples


def show(samples: Samples) -> None:
    names = sorted({name for _, _, rss in samples.at for name in rss})
    print("   seconds  documents " + "".join(f"{name:>12}" for name in names))
    step = max(1, len(samples.at) // ROWS)
    for seconds, done, rss in samples.at[::step]:
        print(f"{seconds:10.1f} {done:10} " + "".join(f"{rss.get(name, float('nan')):12.0f}" for name in names))
    for name in names:
        second, last = samples.mean(name, 0.25, 0.5), samples.mean(name, 0.75, 1.0)
        print(f"{name:<12} second quarter {second:6.0f} MB, last quarter {last:6.0f} MB: {last / second - 1:+.1%}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("documents", nargs="*", help="by default the project's samples")
    parser.add_argument("--number", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--recycle", type=int, default=0, help="documents after which a worker is replaced; 0 is never")
    args = parser.parse_args()
    paths = [Path(name) for name in args.documents] or [*sorted((ROOT / "samples").glob("*.*[fgx]"))]
    options = ("--workers", str(args.workers), "--recycle-documents", str(args.recycle), "--log-level", "warning")
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data", *options) as serving:
        wait_ready(serving, args.workers)
        started = time.perf_counter()
        samples = soak(serving, paths, args.number, args.concurrency)
        seconds = time.perf_counter() - started
        totals = serving.get("/status")["totals"]
    print(f"{samples.done} documents ({len(paths)} different) in {seconds:.0f} s, {samples.failed} failed")
    print(f"{args.workers} workers, {totals['recycled']} replaced, {totals['retries']} attempts repeated")
    show(samples)


if __name__ == "__main__":
    sys.exit(main())
