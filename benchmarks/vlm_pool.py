"""Many VLM servers: how much faster than one, and what one that is slow or dies costs?

    python -m benchmarks.vlm_pool [--seconds 1] [--pages 160] [--document-pages 20] [--workers 8] [--rows one,four]

Stand-ins that read one page at a time, `--seconds` each, behind the real server: MinerU's own client, the router,
everything but a model. They sleep more than they compute, so that a small machine will do. Quote the ratios.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.serving import Serving, blank_pdf, running, wait_ready, wait_until
from tests.vlm_house import TEXT, Standin, standins

ENGINE = "tests.vlm_engine:PageAsker"


@dataclass
class Result:
    """One row."""

    seconds: float
    good: int
    failed: int
    by_server: list[int]


def send(serving: Serving, pages: int) -> tuple[int, int]:
    """Have one document read. Return pages that came out right, and pages that failed."""
    answer = serving.predict(blank_pdf(pages), "pages.pdf", timeout=3600, tier="advanced")
    body = answer.json()
    if not answer.ok:
        print(body)
        return 0, pages
    return body["markdown"].split("\n\n").count(TEXT), len(body["failed_pages"])


def measure(houses: list[Standin], folder: Path, args: argparse.Namespace, *, how: str) -> Result:
    """Read all documents over these servers."""
    options = ["--workers", str(args.workers), "--overcommit-cpu", "--engines", ENGINE, "--log-level", "warning"]
    options += ["--vlm-endpoints", ",".join(house.url for house in houses), "--wait-timeout", "3600"]
    if how == "serial":
        options += ["--vlm-serial"]
    documents = [args.document_pages] * (args.pages // args.document_pages)
    with running(folder / how.replace(" ", "-"), *options) as serving, ThreadPoolExecutor(len(documents)) as pool:
        wait_ready(serving, args.workers, seconds=300)
        wait_until(lambda: states(serving).count("up") == len(houses), 60)
        send(serving, args.workers)
        before = {house.port: house.seen()["pages"] for house in houses}
        started = time.perf_counter()
        ends = threading.Thread(target=kill_and_return, args=(houses[-1], args, started))
        if how == "killed":
            before[houses[-1].port] = 0
            ends.start()
        told = list(pool.map(lambda pages: send(serving, pages), documents))
        seconds = time.perf_counter() - started
        if how == "killed":
            ends.join()
        by_server = [house.seen()["pages"] - before[house.port] for house in houses]
    return Result(seconds, sum(good for good, _ in told), sum(failed for _, failed in told), by_server)


def states(serving: Serving) -> list[str]:
    return [row["state"] for row in serving.get("/vlm/endpoints")["endpoints"]]


def kill_and_return(house: Standin, args: argparse.Namespace, started: float) -> None:
    """SIGKILL after a quarter of the ideal time, back after half of it."""
    ideal = args.pages * args.seconds / 4
    time.sleep(max(0.0, started + ideal / 4 - time.perf_counter()))
    house.kill()
    time.sleep(max(0.0, started + ideal / 2 - time.perf_counter()))
    house.begin()
    house.wait()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--pages", type=int, default=160)
    parser.add_argument("--document-pages", type=int, default=20)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--rows", default="", help="only these, with commas between")
    args = parser.parse_args()
    normal, slow = ("--seconds", str(args.seconds)), ("--seconds", str(args.seconds * 10))
    plans = {
        "one": [normal],
        "four": [normal] * 4,
        "three": [normal] * 3,
        "one of four 10x slower": [normal] * 3 + [slow],
        "killed": [normal] * 4,
        "serial": [normal] * 4,
    }
    print(f"{args.pages} pages of {args.seconds:g} s, {args.workers} workers; killed: one of four, and returned")
    print(f"{'servers':<23} seconds  pages/s  of one  good  failed  pages by server", flush=True)
    found: dict[str, Result] = {}
    with tempfile.TemporaryDirectory() as folder:
        for how, each in plans.items():
            if args.rows and how not in args.rows.split(","):
                continue
            with standins(len(each), each=each) as houses:
                result = found[how] = measure(houses, Path(folder), args, how=how)
            # Of one server's own time where it was not measured.
            one = found["one"].seconds if "one" in found else args.pages * args.seconds
            speed = one / result.seconds
            print(
                f"{how:<23} {result.seconds:7.2f}  {args.pages / result.seconds:7.2f}  {speed:6.2f}  {result.good:4d}"
                f"  {result.failed:6d}  {' '.join(map(str, result.by_server))}",
                flush=True,
            )
    if "three" in found and SLOW in found:
        print(f"with a slow fourth, of the three good ones: {found['three'].seconds / found[SLOW].seconds:.2f}")


SLOW = "one of four 10x slower"

if __name__ == "__main__":
    main()
