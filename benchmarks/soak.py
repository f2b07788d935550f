"""Does memory stay flat? `python -m benchmarks.soak [DOCUMENT...] [--number 500] [--workers 2] [--recycle N]`.

Sends documents of several kinds in turn (by default two samples and an HTML page, a CSV table and a picture of text)
until so many were answered. Prints the resident memory of every process by documents done: main, API, its inspectors,
each worker with its children, and the sum; and the mean of the last quarter beside that of the second: flat is within
10 %, and what is not is marked (of few documents the first fill caches: give it 500). Without `--recycle` no worker is
replaced, so that growth is seen. Status 1: a request failed.
"""

from __future__ import annotations

import argparse
import io
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
import requests

from tests.serving import ROOT, Serving, running, wait_ready

#: Rows of the table, each the mean of so many looks.
ROWS = 20
#: The last quarter's mean over the second's, at most.
FLAT = 1.10
#: Of all processes, at moments when every worker is there.
SUM = "sum"


@dataclass
class Samples:
    """Resident megabytes by process or slot, and how many documents were done."""

    at: list[tuple[float, int, dict[str, float]]] = field(default_factory=list)
    done: int = 0
    failed: int = 0

    def names(self) -> list[str]:
        """Return what was seen, the sum last."""
        found = {name for _, _, rss in self.at for name in rss}
        return [*sorted(found - {SUM}), SUM]

    def mean(self, name: str, first: float, last: float) -> float:
        """Return the mean over a part of the documents: 0.25 to 0.5 is the second quarter."""
        found = [rss[name] for _, done, rss in self.at if name in rss and first <= done / max(self.done, 1) <= last]
        return statistics.mean(found) if found else float("nan")

    def growth(self, name: str) -> float:
        """Return the last quarter's mean over the second's."""
        return self.mean(name, 0.75, 1.0) / self.mean(name, 0.25, 0.5)


def look(serving: Serving, api: psutil.Process, workers: int) -> dict[str, float]:
    """Return resident megabytes: main, the API process, its inspectors, each ready worker with its children, the sum.

    The sum is there when all workers are.
    """
    found = {"main": megabytes([psutil.Process(serving.process.pid)]), "api": megabytes([api])}
    found["inspectors"] = megabytes(api.children(recursive=True))
    ready = [worker for worker in serving.workers() if worker["state"] in ("ready", "busy")]
    for worker in ready:
        try:
            process = psutil.Process(worker["pid"])
            found[f"worker {worker['slot']}"] = megabytes([process, *process.children(recursive=True)])
        except psutil.Error:
            continue
    if len([name for name in found if name.startswith("worker")]) == workers:
        found[SUM] = sum(found.values())
    return found


def megabytes(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        try:
            total += process.memory_info().rss / 2**20
        except psutil.Error:
            continue
    return total


def soak(serving: Serving, documents: list[tuple[str, bytes]], number: int, concurrency: int, workers: int) -> Samples:
    """Send the documents and watch."""
    samples, over, lock = Samples(), threading.Event(), threading.Lock()
    api, started = serving.api(), time.perf_counter()

    def watch() -> None:
        while not over.wait(0.5):
            try:
                rss = look(serving, api, workers)
            except (requests.RequestException, psutil.Error):
                continue
            samples.at.append((time.perf_counter() - started, samples.done, rss))

    def send(document: tuple[str, bytes]) -> None:
        try:
            answered = serving.predict(document[1], document[0], timeout=600)
            good = answered.status_code == 200 and answered.json()["status"] == "completed"
        except requests.RequestException:
            good = False
        with lock:
            samples.done += 1
            samples.failed += not good

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        with ThreadPoolExecutor(concurrency) as pool:
            list(pool.map(send, itertools.islice(itertools.cycle(documents), number)))
    finally:
        over.set()
        watching.join()
    return samples


def show(samples: Samples) -> None:
    """Print the table and the quarters."""
    names = samples.names()
    print("   seconds  documents " + "".join(f"{name:>12}" for name in names))
    size = max(1, -(-len(samples.at) // ROWS))
    for begin in range(0, len(samples.at), size):
        looks = samples.at[begin : begin + size]
        cells = []
        for name in names:
            found = [rss[name] for _, _, rss in looks if name in rss]
            cells.append(f"{statistics.mean(found):12.0f}" if found else f"{'-':>12}")
        print(f"{looks[-1][0]:10.1f} {looks[-1][1]:10} " + "".join(cells))
    for name in names:
        second, last = samples.mean(name, 0.25, 0.5), samples.mean(name, 0.75, 1.0)
        # A few megabytes more or less in a small process are chance.
        held = samples.growth(name) <= FLAT or last - second < 5
        told = "" if held else "  NOT FLAT"
        print(
            f"{name:<12} second quarter {second:6.0f} MB, last quarter {last:6.0f} MB: {last / second - 1:+.1%}{told}"
        )


def made() -> list[tuple[str, bytes]]:
    """Return small documents of several kinds."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", (900, 260), "white")
    font = ImageFont.load_default(size=40)
    ImageDraw.Draw(picture).text((40, 40), "The pump house gets a new roof.\nOffers until June.", "black", font)
    sink = io.BytesIO()
    picture.save(sink, "PNG")
    rows = "\n".join(f"North {number},{number}.42,{number}.51" for number in range(40))
    text = "".join(f"<h2>Part {number}</h2><p>{'The water table fell. ' * 20}</p>" for number in range(10))
    samples = [ROOT / "samples" / name for name in ("report.pdf", "minutes.docx")]
    return [
        *((path.name, path.read_bytes()) for path in samples),
        ("page.html", f"<html><body><h1>Groundwater</h1>{text}</body></html>".encode()),
        ("table.csv", f"well,march,july\n{rows}\n".encode()),
        ("note.png", sink.getvalue()),
    ]


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("documents", nargs="*", type=Path, help="by default small ones of five kinds")
    parser.add_argument("--number", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--recycle", type=int, default=0, help="documents after which a worker is replaced; 0 is never")
    args = parser.parse_args()
    documents = [(path.name, path.read_bytes()) for path in args.documents] or made()
    options = ("--workers", str(args.workers), "--recycle-documents", str(args.recycle), "--log-level", "warning")
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data", *options) as serving:
        wait_ready(serving, args.workers)
        started = time.perf_counter()
        samples = soak(serving, documents, args.number, args.concurrency, args.workers)
        seconds = time.perf_counter() - started
        totals = serving.get("/status")["totals"]
    print(f"{samples.done} documents ({len(documents)} different) in {seconds:.0f} s, {samples.failed} failed")
    print(f"{args.workers} workers, {totals['recycled']} replaced, {totals['retries']} attempts repeated")
    show(samples)
    return int(samples.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
