"""What one bad page costs its document, and what it costs the others.

    python -m benchmarks.bad_pages [--pages 20] [--workers 2] [--base 2] [--page-seconds 0.5] [--attempts 2]

Documents with one page that hangs, kills its process, eats memory, cannot be read or gives garbage, cut into shards or
read in one piece, and for comparison one with no bad page; short documents are sent beside each, one after the other.
The budget is what the deadlines allow: each attempt at the document, and at each half of the halves that lead to the
page, takes all of its deadline (base + so many seconds a page), and the pauses between attempts. Memory that is eaten
is seen by the memory limit, not by the deadline.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from docfleet.sharding.deadlines import retry_delay
from tests.serving import FAULTY, Serving, blank_pdf, running, wait_ready

BAD_PAGE = 7
FAULTS = ("none", "raise", "garbage", "die", "eat", "hang")


def budget(pages: int, base: float, page_seconds: float, attempts: int) -> float:
    """Return the most seconds that a document with one bad page may take, by its deadlines."""
    total = 0.0
    while True:
        total += sum(base + page_seconds * pages + retry_delay(number) for number in range(1, attempts + 1))
        if pages == 1:
            break
        pages = (pages + 1) // 2
    return total


@contextmanager
def neighbours(serving: Serving) -> Iterator[list[float]]:
    """Send short documents one after the other; the seconds of each. One that is not completed raises in the end."""
    seconds: list[float] = []
    failures: list[str] = []
    over = threading.Event()

    def send() -> None:
        number = 0
        while not over.is_set():
            number += 1
            started = time.perf_counter()
            answer = serving.predict(blank_pdf(1), f"sleep-0.05-{number}.pdf", 120)
            seconds.append(time.perf_counter() - started)
            if answer.status_code != 200 or answer.json()["status"] != "completed":
                failures.append(answer.text)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield seconds
    finally:
        over.set()
        thread.join()
    if failures:
        raise RuntimeError(f"{len(failures)} other documents were harmed: {failures[0]}")


def measure(serving: Serving, name: str, pages: int) -> tuple[float, list[int], list[float]]:
    """Return the seconds of a document, its failed pages, and the seconds of the short ones beside it."""
    with neighbours(serving) as beside:
        started = time.perf_counter()
        answer = serving.predict(blank_pdf(pages), name, 600)
        took = time.perf_counter() - started
    answer.raise_for_status()
    body = answer.json()
    delivered = [f"page {page}" for page in range(pages) if page not in {one["page"] for one in body["failed_pages"]}]
    missing = [line for line in delivered if line not in body["markdown"].split("\n\n")]
    if missing:
        raise RuntimeError(f"{name}: good pages are missing: {missing}")
    return took, [one["page"] for one in body["failed_pages"]], beside


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--base", type=float, default=2.0, help="deadline_base, seconds")
    parser.add_argument("--page-seconds", type=float, default=0.5, help="page_seconds_flash")
    parser.add_argument("--attempts", type=int, default=2)
    parser.add_argument("--spares", type=int, default=1)
    args = parser.parse_args()
    most = budget(args.pages, args.base, args.page_seconds, args.attempts)
    options = ["--workers", str(args.workers), "--overcommit-cpu", "--engines", FAULTY, "--log-level", "warning"]
    options += ["--max-attempts", str(args.attempts), "--worker-memory-mb", "1000", "--spares", str(args.spares)]
    options += ["--deadline-base", str(args.base), "--page-seconds-flash", str(args.page_seconds)]
    print(f"{args.pages} pages of 0.05 s, page {BAD_PAGE} is bad; {args.workers} workers, {args.spares} spare(s);")
    print(f"budget {most:.1f} s: {args.attempts} attempts of {args.base:g} s + {args.page_seconds:g} s a page")
    print("fault     cut    seconds  of budget  failed pages  others: done  median s  worst s")
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data", *options) as serving:
        wait_ready(serving, args.workers)
        for cut in ("cut-", ""):
            for fault in FAULTS:
                mark = "" if fault == "none" else f"page-{BAD_PAGE}-{fault}-"
                took, failed, beside = measure(serving, f"{cut}{mark}sleep-0.05-{fault}.pdf", args.pages)
                print(
                    f"{fault:<8}  {'yes' if cut else 'no ':<3}  {took:9.2f}  {took / most:9.2f}"
                    f"  {','.join(map(str, failed)):>12}  {len(beside):12d}  {statistics.median(beside):8.3f}"
                    f"  {max(beside):7.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
