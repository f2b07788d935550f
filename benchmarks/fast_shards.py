"""What `shards=fast` changes in a digital document, and how much sooner it comes.

    python -m benchmarks.fast_shards [DOCUMENT...] [--pages 300] [--workers 2] [--no-server]

First, in shards of 16, 32 and 64 pages (of a short document in halves), the lines of Markdown that differ from those of
the uncut document, as `diff` counts them: for each digital document of the set of tests, real ones at hand, named ones
and a made book. Then the book through the real server with so many workers, whole and cut in turn, three times.
Counts hold on any machine; quote ratios of times only from a quiet one.
"""

from __future__ import annotations

import argparse
import difflib
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from docfleet.options import ParseOptions, Shards
from tests.conftest import DOCUMENTS
from tests.equality import FORMATS, Case, Files, in_shards, pool, whole
from tests.equality_set import SET, book, make
from tests.serving import Serving, running, wait_ready

_ROUNDS = 3
_SIZES = (16, 32, 64)
#: As the embedded engine decides them for a document whose pages all have a text of their own.
_DECISION = "cut"


def differing(left: Files, right: Files) -> tuple[int, int]:
    """Return the lines of Markdown that are not in both, and the lines of the first."""
    before, after = (files["document.md"].decode().splitlines() for files in (left, right))
    found = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    changed = sum(max(high - low, top - base) for tag, low, high, base, top in found if tag != "equal")
    return changed, len(before)


def counted(executor: ProcessPoolExecutor, source: Path, work: Path) -> str:
    """Return the row of a document."""
    case = Case(source, options=ParseOptions(formats=FORMATS, shards=Shards.FAST))
    uncut = whole(executor, case, work / "whole").result()
    cells = []
    for size in _SIZES:
        # A short document would not be cut at all; halves show what a cut does to it.
        step = size if case.pages > size else (case.pages + 1) // 2 if size == _SIZES[0] else 0
        if not step:
            cells.append(f"{'':>8}")
            continue
        ranges = [(first, min(first + step, case.pages) - 1) for first in range(0, case.pages, step)]
        decisions = {"digital": list(range(case.pages)), "flash": _DECISION}
        changed, lines = differing(uncut, in_shards(executor, case, ranges, decisions, work / f"cut-{size}"))
        cells.append(f"{changed:8d}")
    return f"{source.stem:20}  {case.pages:5d}  {lines:5d}  {'  '.join(cells)}"


def timed(serving: Serving, content: bytes, **options: str) -> float:
    """Return the seconds from the first byte sent to the last received."""
    started = time.perf_counter()
    response = serving.predict(content, "book.pdf", 3600, **options)
    response.raise_for_status()
    return time.perf_counter() - started


def through_the_server(content: bytes, pages: int, workers: int, folder: Path) -> None:
    """Print the times and their ratio."""
    settings = ("--workers", str(workers), "--overcommit-cpu", "--log-level", "warning")
    with running(folder / "data", *settings, OMP_NUM_THREADS="1") as serving:
        wait_ready(serving, workers)
        for _ in range(workers):
            serving.predict(Path("samples/report.pdf").read_bytes(), "warm.pdf", 600)
        print(f"\n{pages} pages, {workers} workers\nround    exact     fast  speed-up", flush=True)
        ratios = []
        for number in range(_ROUNDS):
            exact, fast = timed(serving, content), timed(serving, content, shards="fast")
            ratios.append(exact / fast)
            print(f"{number + 1:5d}  {exact:7.2f}  {fast:7.2f}  {ratios[-1]:8.2f}", flush=True)
    print(f"speed-up: median {statistics.median(ratios):.2f}, minimum {min(ratios):.2f}")


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("documents", nargs="*", type=Path)
    parser.add_argument("--pages", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--server", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = [make(name, folder) for name, kind in SET.items() if not kind.scanned]
        real = [path for path in sorted(DOCUMENTS.glob("*.pdf")) if "scan" not in path.name]
        long = folder / f"book-{args.pages}.pdf"
        book(long, args.pages, paragraphs=3)
        print("lines of Markdown that differ, by pages a shard\n")
        print(f"{'document':20}  pages  lines  {'  '.join(f'{size:8d}' for size in _SIZES)}", flush=True)
        with pool() as executor:
            for number, source in enumerate([*made, *real, *args.documents, long]):
                print(counted(executor, source, folder / str(number)), flush=True)
        if args.server:
            through_the_server(long.read_bytes(), args.pages, args.workers, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
