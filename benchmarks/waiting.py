"""How late does a waiting request learn that its job has ended, and what does waiting cost?

    python -m benchmarks.waiting [--jobs 500] [--seconds 5]

A second process ends jobs one after the other and notes the moment of each commit; the waiters note when they wake.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from docfleet.files import new_job_id
from docfleet.options import ParseOptions
from docfleet.process.identity import identify
from docfleet.records import Document, ShardPlan, Stage
from docfleet.store.sqlite import open_store
from docfleet.web.waiting import PERIOD, JobWatch

DOCUMENT = Document(filename="a.pdf", suffix="pdf", size=1, sha256="0" * 64, pages=1)
WHOLE = ShardPlan(stage=Stage.WHOLE, first_page=0, last_page=0)


def end_jobs(database: Path, jobs: int, pause: float, sink: Connection) -> None:
    """Claim and complete every job, and send when each commit was done (CLOCK_MONOTONIC: one for all processes)."""
    store = open_store(database)
    owner = identify()
    ended: dict[str, float] = {}
    report = {"pages": 1, "failed_pages": [], "files": []}
    while len(ended) < jobs:
        claim = store.claim(owner, 0)
        assert claim is not None
        assert store.complete(claim, output=f"jobs/{claim.job_id}/result-1", report=report)
        ended[claim.job_id] = time.monotonic()
        time.sleep(pause)
    sink.send(ended)


async def wake_times(watch: JobWatch, names: list[str]) -> dict[str, float]:
    woken: dict[str, float] = {}

    async def one(name: str) -> None:
        await watch.wait(name, 600)
        woken[name] = time.monotonic()

    await asyncio.gather(*(one(name) for name in names))
    return woken


def measure(jobs: int, seconds: float) -> str:
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder, "docfleet.db")
        store = open_store(database)
        names = [new_job_id() for _ in range(jobs)]
        for name in names:
            store.accept(name, DOCUMENT, ParseOptions(), [WHOLE])
        source, sink = multiprocessing.Pipe(duplex=False)
        context = multiprocessing.get_context("spawn")
        ender = context.Process(target=end_jobs, args=(database, jobs, seconds / jobs, sink))
        ender.start()
        cpu, wall = time.process_time(), time.monotonic()
        woken = asyncio.run(wake_times(JobWatch(store), names))
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        ended = source.recv()
        ender.join()
    late = sorted((woken[name] - ended[name]) * 1000 for name in names)
    p95 = late[int(len(late) * 0.95)]
    return (
        f"{jobs:>5} waiters, a job ends each {seconds / jobs * 1000:.0f} ms: "
        f"median {statistics.median(late):.1f} ms, p95 {p95:.1f} ms, worst {late[-1]:.1f} ms late; "
        f"{cpu / wall:.1%} of a core"
    )


def cost_of_a_check() -> str:
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder, "docfleet.db"))
        rounds = 20_000
        begin = time.perf_counter()
        for _ in range(rounds):
            store.changed()
        microseconds = (time.perf_counter() - begin) / rounds * 1e6
    return f"change check: {microseconds:.1f} microseconds"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=500, help="jobs waited for at once (default: 500)")
    parser.add_argument("--seconds", type=float, default=5, help="how long the jobs take to end, all in all")
    arguments = parser.parse_args()
    print(f"{cost_of_a_check()}; looked at each {PERIOD * 1000:.0f} ms while somebody waits")
    for jobs in sorted({20, arguments.jobs}):
        print(measure(jobs, arguments.seconds))


if __name__ == "__main__":
    main()
