"""What an idle server costs, and how soon it is ready: `python -m benchmarks.idle [--seconds 20] [--spares 1]`."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.serving import running, wait_ready, wait_until


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--spares", type=int, default=1)
    args = parser.parse_args()
    started = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder) / "data", "--workers", str(args.workers), "--spares", str(args.spares)) as serving,
    ):
        print(f"first worker ready after {time.perf_counter() - started:.1f} s")
        wait_ready(serving, args.workers)
        print(f"all {args.workers} workers ready after {time.perf_counter() - started:.1f} s")
        wait_until(lambda: all(spare["state"] == "spare" for spare in serving.spares()), seconds=60)
        print(f"all {args.spares} spares ready after {time.perf_counter() - started:.1f} s")
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
