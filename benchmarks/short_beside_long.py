"""What does a one-page document wait while long ones hold every worker?

    python -m benchmarks.short_beside_long [--workers 2 4] [--pages 350] [--seconds 0.3] [--samples 40] [--real]

A real server with N workers and an engine that sleeps a fixed time a page. First one-page documents through /predict,
one after the other, on an idle server; then the same while N, and then 2N, documents of 350 pages are under way: such
as are cut into shards, and such as cannot be cut. The ratio is of the p95s; 2 is the most that it should be. Long
documents are stopped when the samples are taken.

`--real` takes the default engines instead, with a digital PDF (flash, not cut) and a scan (cut) of that many pages made
here. Then workers share the cores, and each short document competes for them: run it with as many cores as workers.
"""

from __future__ import annotations

import argparse
import io
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import requests
from reportlab.pdfgen import canvas

from tests.scans import make_scan
from tests.serving import FAULTY, Serving, blank_pdf, running, wait_ready, wait_until


@dataclass(frozen=True)
class Kind:
    """A kind of long document: its name on paper, and its file."""

    told: str
    filename: str
    content: bytes


@dataclass(frozen=True)
class Short:
    """The one-page documents: each a little different, so that none is served from a stored result."""

    filename: str
    content: Callable[[int], bytes]


def digital_pdf(pages: int, mark: str = "") -> bytes:
    """Return a PDF of dense pages of text with a heading each."""
    sink = io.BytesIO()
    sheet = canvas.Canvas(sink)
    for page in range(pages):
        sheet.setFont("Helvetica-Bold", 16)
        sheet.drawString(72, 780, f"{page + 1}. What was found in well {page + 1} {mark}")
        sheet.setFont("Helvetica", 10)
        for line in range(45):
            sheet.drawString(72, 750 - 15 * line, f"Line {line}: the water table fell by {page + line} centimetres.")
        sheet.showPage()
    sheet.save()
    return sink.getvalue()


def sample(serving: Serving, short: Short, samples: int) -> list[float]:
    """Return the seconds of one-page documents sent one after the other, sorted."""
    found = []
    for number in range(samples):
        # At any moment of a page under way.
        time.sleep(random.uniform(0, 0.5))
        content = short.content(number)
        started = time.perf_counter()
        serving.predict(content, short.filename.format(number), 600).raise_for_status()
        found.append(time.perf_counter() - started)
    return sorted(found)


def percentile(seconds: list[float], share: float) -> float:
    return seconds[int((len(seconds) - 1) * share)]


def beside(serving: Serving, kind: Kind, number: int, short: Short, samples: int) -> tuple[list[float], int]:
    """Return the seconds of one-page documents while `number` long ones are under way, and how many still were."""
    jobs = []
    for _ in range(number):
        # The lane of those who wait: in the batch lane they would be overtaken anyway.
        form = {"lane": "interactive", "cache": "false"}
        response = requests.post(
            f"{serving.url}/jobs", files={"files": (kind.filename, kind.content)}, data=form, timeout=60
        )
        response.raise_for_status()
        jobs.append(response.json()["job_id"])
    wait_until(lambda: any(serving.get(f"/jobs/{job}")["pages_done"] for job in jobs) or _busy(serving), 600)
    time.sleep(2)
    found = sample(serving, short, samples)
    states = [serving.get(f"/jobs/{job}")["state"] for job in jobs]
    for job in jobs:
        requests.delete(f"{serving.url}/jobs/{job}", timeout=30)
    wait_until(lambda: not _busy(serving), 60)
    return found, sum(state in ("queued", "running") for state in states)


def _busy(serving: Serving) -> bool:
    return any(worker["state"] not in ("ready", "idle") for worker in serving.workers())


def compare(workers: int, options: tuple[str, ...], kinds: list[Kind], short: Short, samples: int) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder) / "data", "--workers", str(workers), *options, "--log-level", "warning") as serving,
    ):
        wait_ready(serving, workers)
        for number in range(-workers, 0):
            serving.predict(short.content(number), short.filename.format(number), 600).raise_for_status()
        alone = sample(serving, short, samples)
        base = percentile(alone, 0.95)
        row(workers, "none", 0, alone, base, 0)
        for kind in kinds:
            for number in (workers, 2 * workers):
                found, left = beside(serving, kind, number, short, samples)
                row(workers, kind.told, number, found, base, left)


def row(workers: int, told: str, number: int, found: list[float], base: float, left: int) -> None:
    p50, p95 = percentile(found, 0.5), percentile(found, 0.95)
    print(f"{workers:7d}  {told:<24}  {number:4d}  {p50:6.3f}  {p95:6.3f}  {p95 / base:5.2f}  {left:15d}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--pages", type=int, default=350)
    parser.add_argument("--seconds", type=float, default=0.3, help="that the engine sleeps a page")
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--real", action="store_true", help="real engines and documents")
    args = parser.parse_args()
    if args.real:
        options: tuple[str, ...] = ("--overcommit-cpu",)
        with tempfile.TemporaryDirectory() as folder:
            scan = make_scan(Path(folder) / "scan.pdf", args.pages).read_bytes()
        kinds = [Kind("digital, flash", "long.pdf", digital_pdf(args.pages)), Kind("scan", "scan.pdf", scan)]
        short = Short("short-{}.pdf", lambda number: digital_pdf(1, str(number)))
    else:
        options = ("--overcommit-cpu", "--engines", FAULTY)
        blank = blank_pdf(args.pages)
        kinds = [
            Kind("cut into shards", f"cut-sleep-{args.seconds}-a.pdf", blank),
            Kind("cannot be cut", f"long-sleep-{args.seconds}-a.pdf", blank),
        ]
        page = blank_pdf(1)
        short = Short(f"sleep-{args.seconds}-short-{{}}.pdf", lambda number: page)
    print(f"one-page documents beside documents of {args.pages} pages, {args.samples} samples each")
    print("workers  long documents            many   p50 s   p95 s  ratio  still under way")
    for workers in args.workers:
        compare(workers, options, kinds, short, args.samples)


if __name__ == "__main__":
    main()
