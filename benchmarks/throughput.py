"""The running server against a bare pool of parsers, side by side in one run.

    python -m benchmarks.throughput DOCUMENT... [--copies 40] [--workers 2] [--concurrency 16] [--rounds 3]

The pool is the limit of what a server on this engine can do: N processes, each a `MinerUParser`, nothing else. Both get
the same documents in the same order, at tier flash with the files' own text; each is warmed by one document a process.
Rounds alternate, so that a machine whose speed drifts is fair to both. Quote the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import aiohttp

from client import mineru_parse_async
from docfleet.documents.inspection import inspect
from tests.serving import running, wait_ready

_ENVIRONMENT = {"MINERU_MODEL_SOURCE": "local", "MINERU_PDF_RENDER_THREADS": "1", "OMP_NUM_THREADS": "1"}


def prepare() -> None:
    os.environ.update(_ENVIRONMENT, MINERU_LOG_LEVEL="error")


def parse_bare(path: str) -> int:
    from mineru.parser import MinerUParser

    result = MinerUParser(tier="flash", parse_mode="txt").parse(path)
    result.markdown()
    return len(result.pages)


class Pool:
    """The bare pool, kept warm between rounds."""

    def __init__(self, workers: int, warm: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(workers, mp_context=context, initializer=prepare)
        list(self._pool.map(parse_bare, [warm] * workers))

    def round(self, paths: list[str]) -> float:
        started = time.perf_counter()
        for _ in self._pool.map(parse_bare, paths):
            pass
        return time.perf_counter() - started


async def send_all(url: str, paths: list[str], concurrency: int) -> float:
    gate = asyncio.Semaphore(concurrency)

    async def one(session: aiohttp.ClientSession, path: str) -> None:
        async with gate:
            await mineru_parse_async(session, path, url=url, tier="flash", method="txt")

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:
        started = time.perf_counter()
        await asyncio.gather(*(one(session, path) for path in paths))
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("documents", nargs="+")
    parser.add_argument("--copies", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    paths = list(itertools.islice(itertools.cycle(args.documents), args.copies))
    pages = sum(inspect(Path(path), Path(path).name).pages for path in paths)
    print(f"{len(paths)} documents, {pages} pages, {args.workers} workers, concurrency {args.concurrency}")

    pool = Pool(args.workers, args.documents[0])
    options = ("--workers", str(args.workers), "--log-level", "warning")
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data", *options) as serving:
        wait_ready(serving, args.workers)
        asyncio.run(send_all(serving.url, args.documents[:1] * args.workers, args.concurrency))
        ratios = []
        for number in range(args.rounds):
            bare = pages / pool.round(paths)
            served = pages / asyncio.run(send_all(serving.url, paths, args.concurrency))
            ratios.append(served / bare)
            print(f"round {number + 1}: pool {bare:.2f} pages/s, server {served:.2f} pages/s, ratio {ratios[-1]:.3f}")
        shares = [worker["documents_done"] for worker in serving.workers()]
    print(f"ratio: median {statistics.median(ratios):.3f}, minimum {min(ratios):.3f}; documents by worker: {shares}")


if __name__ == "__main__":
    main()
