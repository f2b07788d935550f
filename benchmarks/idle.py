"""What an idle server costs, and how long it takes to be ready: `python -m benchmarks.idle [--seconds 20]`."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.serving import running, wait_ready


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    started = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder) / "data", "--workers", str(args.workers)) as serving,
    ):
        print(f"first worker ready after {time.perf_counter() - started:.1f} s")
        wait_ready(serving, args.workers)
        print(f"all {args.workers} workers ready after {time.perf_counter() - started:.1f} s")
        time.sleep(3)
        family = serving.family()
        before = {process.pid: sum(process.cpu_times()[:2]) for process in family}
        time.sleep(args.seconds)
        total = 0.0
        for process in family:
            share = (sum(process.cpu_times()[:2]) - before[process.pid]) / args.seconds
            total += share
            name = " ".join(process.cmdline())[-60:]
            print(f"{share:7.2%} CPU, {process.memory_info().rss / 2**20:6.0f} MB  {process.pid} {name}")
        print(f"{total:7.2%} CPU of one core in all")


if __name__ == "__main__":
    main()
