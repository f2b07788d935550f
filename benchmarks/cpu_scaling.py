"""Does the server scale with the cores, and what do more workers than cores cost?

    python -m benchmarks.cpu_scaling [DOCUMENT...] [--workers 1,2,4] [--rounds 3] [--kinds flash,embedded] [--threads 1]

One real server for each number of workers, all up at once; they take turns, each round in the other order, so that a
machine whose speed drifts is fair to all. Flash reads digital documents by their own text; embedded recognises scans.
One thread a worker unless `--threads` says otherwise (0: as the server plans; one worker then has all cores).

Seconds hold for a machine with nothing else to do. CPU seconds a page, of all of a server's processes, hold on a loaded
one too (as long as the load does not fight for caches): what oversubscription costs beyond waiting shows there. More
workers than cores are compared with as many workers as cores, or the next lower number.

Status 1: a request failed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from docfleet.devices import detect
from docfleet.documents.inspection import inspect
from tests.conftest import DOCUMENTS
from tests.equality_set import book
from tests.scans import make_scan
from tests.serving import ROOT, Serving, running, wait_ready

#: What oversubscription may cost.
MOST = 0.05
_CALLERS = 12
_OPTIONS = {"flash": {"tier": "flash", "method": "txt"}, "embedded": {"tier": "flash", "method": "ocr"}}


@dataclass(frozen=True)
class Work:
    """What one server reads in one round."""

    documents: list[tuple[str, bytes]]
    pages: int
    options: dict[str, str]

    @property
    def warming(self) -> list[tuple[str, bytes]]:
        """One small document of each type."""
        smallest: dict[str, tuple[str, bytes]] = {}
        for document in sorted(self.documents, key=lambda document: -len(document[1])):
            smallest[Path(document[0]).suffix] = document
        return list(smallest.values())


@dataclass(frozen=True)
class Turn:
    """One server's round."""

    seconds: float
    cpu_seconds: float
    failed: int


def work_of(paths: list[Path], kind: str) -> Work:
    pages = sum(inspect(path, path.name).pages for path in paths)
    return Work([(path.name, path.read_bytes()) for path in paths], pages, _OPTIONS[kind])


def digital(folder: Path, named: list[Path], number: int) -> Work:
    """Return short digital documents in turn: the samples, a made one, real ones where they are, and those named."""
    made = folder / "book-8.pdf"
    book(made, 8, paragraphs=3)
    kinds = [made, ROOT / "samples" / "report.pdf", ROOT / "samples" / "minutes.docx"]
    kinds += [
        path for path in sorted(DOCUMENTS.glob("*")) if path.suffix in (".pdf", ".docx") and "scan" not in path.name
    ]
    return work_of(list(itertools.islice(itertools.cycle([*kinds, *named]), number)), "flash")


def scanned(folder: Path, number: int) -> Work:
    """Return scans of one page each, made ones, and the real one where it is."""
    made = [make_scan(folder / f"scan-{page}.pdf", 1, lines=3 + page % 3) for page in range(number)]
    return work_of([*sorted(DOCUMENTS.glob("scan-*.pdf")), *made], "embedded")


def spent(serving: Serving) -> float:
    """Return the CPU seconds of all processes of a server, those that ended among them."""
    total = 0.0
    for process in serving.family():
        with contextlib.suppress(psutil.Error):
            total += sum(process.cpu_times()[:4])
    return total


def turn(serving: Serving, work: Work) -> Turn:
    """Have everything read."""

    def good(document: tuple[str, bytes]) -> bool:
        answer = serving.predict(document[1], document[0], timeout=3600, **work.options)
        return answer.status_code == 200 and answer.json()["status"] == "completed"

    before, started = spent(serving), time.perf_counter()
    with ThreadPoolExecutor(_CALLERS) as pool:
        told = list(pool.map(good, work.documents))
    return Turn(time.perf_counter() - started, spent(serving) - before, told.count(False))


def measure(servers: dict[int, Serving], kind: str, work: Work, rounds: int) -> dict[int, list[Turn]]:
    """Return each server's rounds."""
    for number, serving in servers.items():
        # What is loaded with the first document of a kind must not count as work on it.
        turn(serving, Work(work.warming * number, 0, work.options))
    turns: dict[int, list[Turn]] = defaultdict(list)
    print(f"\n{kind}: {len(work.documents)} documents, {work.pages} pages a round")
    print("round  workers  seconds  pages/s  CPU s/page", flush=True)
    for round_ in range(rounds):
        order = list(servers) if round_ % 2 == 0 else list(servers)[::-1]
        for number in order:
            done = turn(servers[number], work)
            turns[number].append(done)
            speed, cost = work.pages / done.seconds, done.cpu_seconds / work.pages
            print(f"{round_ + 1:5d}  {number:7d}  {done.seconds:7.2f}  {speed:7.3f}  {cost:10.3f}", flush=True)
    return turns


def show(kind: str, work: Work, turns: dict[int, list[Turn]], cores: float) -> None:
    """Print medians, ratios to the smallest number of workers, and what oversubscription costs."""
    print(f"\n{kind}, medians\nworkers  documents/s  pages/s  times the first  CPU s/page")
    numbers = sorted(turns)
    first = numbers[0]
    for number in numbers:
        seconds = statistics.median(done.seconds for done in turns[number])
        gain = statistics.median(_ratios(turns[first], turns[number]))
        cost = statistics.median(done.cpu_seconds for done in turns[number]) / work.pages
        speeds = f"{len(work.documents) / seconds:11.3f}  {work.pages / seconds:7.3f}"
        print(f"{number:7d}  {speeds}  {gain:15.2f}  {cost:10.3f}")
    enough = max((number for number in numbers if number <= cores), default=first)
    for number in (number for number in numbers if number > max(enough, cores)):
        slower = statistics.median(_ratios(turns[number], turns[enough])) - 1
        work_more = statistics.median(
            many.cpu_seconds / few.cpu_seconds for many, few in zip(turns[number], turns[enough], strict=True)
        )
        verdict = "within" if slower <= MOST else "OVER"
        print(
            f"{number} workers on {cores:g} cores against {enough}: {slower:+.1%} time ({verdict} {MOST:.0%}), "
            f"{work_more - 1:+.1%} CPU"
        )


def _ratios(these: list[Turn], those: list[Turn]) -> list[float]:
    return [this.seconds / that.seconds for this, that in zip(these, those, strict=True)]


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("documents", nargs="*", type=Path, help="digital documents to read besides")
    parser.add_argument("--workers", default="1,2,4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", default="flash,embedded")
    parser.add_argument("--threads", type=int, default=1, help="of each worker; 0: as planned")
    parser.add_argument("--number", type=int, default=16, help="digital documents a round")
    parser.add_argument("--scans", type=int, default=7, help="made scans a round")
    args = parser.parse_args()
    environment: dict[str, Any] = {"OMP_NUM_THREADS": str(args.threads)} if args.threads else {}
    cores = detect().cpu.cores
    failed = 0
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        servers = {}
        for number in sorted(int(word) for word in args.workers.split(",")):
            options = ("--workers", str(number), "--overcommit-cpu", "--log-level", "warning")
            servers[number] = stack.enter_context(running(folder / f"workers-{number}", *options, **environment))
            wait_ready(servers[number], number, seconds=300)
        for kind in args.kinds.split(","):
            work = digital(folder, args.documents, args.number) if kind == "flash" else scanned(folder, args.scans)
            turns = measure(servers, kind, work, args.rounds)
            show(kind, work, turns, cores)
            failed += sum(done.failed for rounds in turns.values() for done in rounds)
    print(f"\n{failed} requests failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
