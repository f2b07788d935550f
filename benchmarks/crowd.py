"""Many requests at once: who is answered, who is refused, and what the server is like meanwhile.

    python -m benchmarks.crowd [--requests 10 50 100 200 500] [--workers 2] [--backlog 100] [--obey] [--megabytes 0]

Each request sends a document of one page to /predict; the engine sleeps 10 ms. Over the bound of the backlog it is
refused at once (429 with Retry-After), unless `--wait` seconds are given. With `--obey` whoever was refused comes back
after the time it was told, and its latency counts from the first try. With `--megabytes` each document weighs so much
and has 350 pages. /livez is asked from another process all the while; memory is the API process's own.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from tests.crowds import crowd, padded_pdf, watched
from tests.serving import FAULTY, blank_pdf, running, wait_ready


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, nargs="+", default=[10, 50, 100, 200, 500])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--backlog", type=int, default=100, help="documents accepted and not done, at most")
    parser.add_argument("--wait", type=float, default=0.0, help="seconds that the server lets callers wait for room")
    parser.add_argument("--obey", action="store_true", help="come back after Retry-After until let in")
    parser.add_argument("--megabytes", type=int, default=0, help="size of each document; 350 pages then")
    args = parser.parse_args()
    content = padded_pdf(blank_pdf(350), args.megabytes * 2**20) if args.megabytes else blank_pdf(1)
    name = "{}.pdf" if args.megabytes else "sleep-0.01-{}.pdf"
    options = ("--workers", str(args.workers), "--overcommit-cpu", "--engines", FAULTY, "--log-level", "warning")
    bounds = ("--max-backlog-jobs", str(args.backlog), "--admission-wait", str(args.wait))
    print(f"{args.workers} workers, backlog of {args.backlog} documents, {len(content):,} bytes each")
    print("requests  answered  refusals  errors   p50 s   p95 s  worst /livez ms  median  API MB")
    for number in args.requests:
        # A server of its own each time: memory of the crowd before would be counted, too.
        with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data", *options, *bounds) as serving:
            wait_ready(serving, args.workers)
            with watched(serving) as vitals:
                seen = asyncio.run(crowd(serving.url, content, number, name=name, obey=args.obey))
            answered = seen.statuses[200] + seen.statuses[202]
            failed = sum(seen.statuses.values()) - answered - seen.statuses[429] + len(seen.errors) + len(seen.unclear)
            livez = sorted(vitals.livez)
            print(
                f"{number:8d}  {answered:8d}  {seen.statuses[429]:8d}  {failed:6d}  {seen.percentile(0.5):6.2f}"
                f"  {seen.percentile(0.95):6.2f}  {livez[-1] * 1e3:15.0f}  {livez[len(livez) // 2] * 1e3:6.0f}"
                f"  {vitals.rss / 2**20:6.0f}",
                flush=True,
            )
            for line in (*seen.errors[:3], *seen.unclear[:3]):
                print(f"          {line}")


if __name__ == "__main__":
    main()
