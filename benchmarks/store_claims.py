"""How many shards a second can be claimed, and claimed and completed, by many processes at once?

    python -m benchmarks.store_claims [--processes 8] [--seconds 5] [--folder DIR]

The folder should lie on the disk that the server will use: completing waits for it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import sqlite3
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path

from rich.console import Console
from rich.table import Table

from docfleet.files import new_job_id
from docfleet.options import ParseOptions
from docfleet.records import Document, ProcessIdentity, ShardPlan, Stage
from docfleet.store.sqlite import SqliteStore, open_store

#: Page shards in a job; one job more than any process can claim in the time.
JOB_PAGES = 200
#: Shards made ready for each second of the run.
STOCK_PER_SECOND = 16_000
REPORT = {"tier": "flash", "engine": "mineru", "engine_version": "4.0.12", "pages": 1, "failed_pages": [], "files": []}


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one kind of work came to."""

    work: str
    #: Seconds of every call, and how many calls each process made, over all processes.
    latencies: list[float]
    shares: list[int]
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--folder", type=Path, default=None, help="where to make the database (default: here)")
    given = parser.parse_args()
    runs = [
        measure(work, given.processes, given.seconds, given.folder or Path.cwd())
        for work in ("claim", "claim + complete", "claim, nothing queued", "changed")
    ]
    show(runs, given.processes)


def measure(work: str, processes: int, seconds: float, folder: Path) -> Run:
    """Let `processes` processes do `work` at once on a fresh database."""
    with tempfile.TemporaryDirectory(prefix="store-claims-", dir=folder) as scratch:
        path = Path(scratch) / "docfleet.db"
        with open_store(path) as store:
            if work.startswith("claim") and "nothing" not in work:
                fill(store, int(STOCK_PER_SECOND * seconds))
        context = multiprocessing.get_context("spawn")
        start, results = context.Barrier(processes), context.SimpleQueue()
        workers = [
            context.Process(target=_labour, args=(work, path, seconds, slot, start, results))
            for slot in range(processes)
        ]
        for worker in workers:
            worker.start()
        latencies = [results.get() for _ in workers]
        for worker in workers:
            worker.join()
    if None in latencies:
        raise SystemExit(f"{work}: the queue ran dry; raise STOCK_PER_SECOND")
    return Run(
        work=work,
        latencies=sorted(latency for own in latencies for latency in own),
        shares=sorted(len(own) for own in latencies),
        seconds=seconds,
    )


def fill(store: SqliteStore, shards: int) -> None:
    """Queue at least `shards` page shards of one page each."""
    document = Document(filename="a.pdf", suffix="pdf", size=1, sha256="0" * 64, pages=JOB_PAGES)
    plan = [ShardPlan(stage=Stage.PAGES, first_page=page, last_page=page) for page in range(JOB_PAGES)]
    plan.append(ShardPlan(stage=Stage.DOCUMENT, first_page=0, last_page=JOB_PAGES - 1))
    for _ in range(shards // JOB_PAGES + 1):
        store.accept(new_job_id(), document, ParseOptions(), plan)


def _labour(work: str, path: Path, seconds: float, slot: int, start: Barrier, results) -> None:  # type: ignore[no-untyped-def]
    latencies: list[float] = []
    me = ProcessIdentity(pid=os.getpid(), started=slot)
    with open_store(path) as store:
        start.wait()
        end = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < end:
            if work == "changed":
                store.changed()
            else:
                claim = store.claim(me, slot)
                if "nothing" not in work and claim is None:
                    # It ran out of work before the time was over.
                    results.put(None)
                    return
                if claim is not None and "complete" in work:
                    assert store.complete(claim, output="jobs/x/part", report=REPORT)
            latencies.append(time.perf_counter() - begun)
    results.put(latencies)


def show(runs: list[Run], processes: int) -> None:
    """Print the table."""
    title = f"{processes} processes, {os.cpu_count()} cores, {platform.machine()}, SQLite {sqlite3.sqlite_version}"
    table = Table(title=title)
    for column in ("work", "a second", "p50 ms", "p99 ms", "max ms", "least / most busy process"):
        table.add_column(column, justify="left" if column == "work" else "right")
    for run in runs:
        calls = run.latencies
        points = (calls[len(calls) // 2], calls[int(len(calls) * 0.99)], calls[-1])
        table.add_row(
            run.work,
            f"{len(calls) / run.seconds:,.0f}",
            *(f"{point * 1000:.2f}" for point in points),
            f"{run.shares[0]:,} / {run.shares[-1]:,}",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
