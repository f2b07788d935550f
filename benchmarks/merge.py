"""What does a document stage need? `python -m benchmarks merge [--pages 100 300 1000] [--kinds scan digital models]`.

For each kind and length a document goes through its engine's real document stage (`Engine.finish`) in a process of
its own, with its engines loaded, as a worker has them:

    scan      recognised pages, rebuilt as one PDF and read by MinerU flash; every third has a picture
    digital   a PDF with its own text, read by MinerU flash as a whole
    models    MinerU's windows of pages gathered into one (flash analysis in the place of models, whose weights are not
              part of the project: the same files and the same joining); one window is analysed and repeated

Prints the process's resident memory before and at its peak, what each page adds from one length to the next, and the
peak of the processes that draw pictures.
Memory is the same on a busy machine; seconds are not.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import psutil

# MinerU's render children import this module too: what is heavy is imported where it is used.
if TYPE_CHECKING:
    from docfleet.engine.interface import Engine

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("scan", "digital", "models")
_LINES = 45
_WINDOW = 16
_WORDS = ("orchard", "valley", "harvest", "ledger", "winter", "keeper", "ladder", "meadow", "market", "barrel")


def make(kind: str, pages: int, folder: Path) -> None:
    """Make the document and its parts as the page stage leaves them."""
    from docfleet.engine.mineru import MinerUEngine
    from docfleet.engine.mineru.analysis import analyse_windows
    from docfleet.options import Tier
    from tests.mineru_support import make_pdf, request_for
    from tests.serving import blank_pdf

    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "source.pdf"
    if kind == "scan":
        source.write_bytes(blank_pdf(pages))
        for first in range(0, pages, _WINDOW):
            write_scan(folder / f"part-{first:06d}", range(first, min(first + _WINDOW, pages)))
    else:
        make_pdf(source, pages=pages if kind == "digital" else _WINDOW)
    if kind == "digital":
        (folder / "part-000000").mkdir()
    if kind == "models":
        os.environ["MINERU_PROCESSING_WINDOW_SIZE"] = str(_WINDOW)
        loaded(MinerUEngine())
        one = folder / "one"
        one.mkdir()
        request = request_for(source, pages=_WINDOW)
        analyse_windows(request, source.read_bytes(), Tier.FLASH, "txt", one, lambda _: None, None)
        repeat_window(json.loads((one / "pages-000000.json").read_bytes()), pages, folder / "part-000000")


def repeat_window(window: dict[str, Any], pages: int, part: Path) -> None:
    """Write as many windows as the document has, each with the pages of the one that was really analysed."""
    part.mkdir()
    for first in range(0, pages, _WINDOW):
        numbers = list(range(first, min(first + _WINDOW, pages)))
        model = copy.deepcopy(window["model"])
        model["pages"], model["page_index_map"] = model["pages"][: len(numbers)], numbers
        layout = model["extensions"]["docvortex_layout"]
        layout["pages"] = [{**page, "page_idx": page["page_idx"] + first} for page in layout["pages"][: len(numbers)]]
        (part / f"pages-{first:06d}.json").write_text(json.dumps({"broken": [], "model": model}))


def write_scan(part: Path, pages: range) -> None:
    """Write recognised pages as the page stage does: a heading, lines of text, now and then a picture."""
    from docfleet.engine.embedded.parts import LineRecord, PageRecord, PageState, PartWriter, PictureRecord

    writer = PartWriter(part)
    for page in pages:
        prose, lines = Random(page), []
        for number in range(_LINES):
            text, top = " ".join(prose.choices(_WORDS, k=11)), 60.0 + number * 15
            size = 18.0 if number == 0 else 10.0
            box = (60.0, top, 535.0, top + 12)
            lines.append(LineRecord(text=text, confidence=0.98, box=box, size=size))
        pictures: tuple[PictureRecord, ...] = ()
        if page % 3 == 0:
            pictures = (PictureRecord(box=(100, 740, 400, 830), file=writer.picture(page, 0, photograph(page))),)
        writer.page(
            PageRecord(
                page=page,
                state=PageState.RECOGNISED,
                width=595.0,
                height=842.0,
                lines=tuple(lines),
                pictures=pictures,
            )
        )


def photograph(page: int) -> bytes:
    """Return a JPEG of 900 x 270, about 60 kB."""
    from PIL import Image

    noise = Image.frombytes("L", (180, 54), Random(page).randbytes(180 * 54)).resize((900, 270))
    sink = io.BytesIO()
    noise.save(sink, "JPEG", quality=90)
    return sink.getvalue()


def loaded(engine: Engine) -> Engine:
    """Load an engine as a worker on the CPU does."""
    from docfleet.engine.interface import EngineContext

    folder = Path(tempfile.gettempdir())
    engine.load(EngineContext(device="cpu", threads=1, model_source="embedded", vlm_server_url=None, scratch=folder))
    return engine


def finish(kind: str, pages: int, folder: Path) -> dict[str, float]:
    """Run the document stage in this process; return its figures in MB and seconds."""
    # Sets the environment of a worker, before MinerU reads it.
    from tests.mineru_support import request_for  # noqa: I001

    from docfleet.engine.embedded import EmbeddedEngine
    from docfleet.engine.mineru import MinerUEngine
    from docfleet.options import Format, Method, ParseOptions, Tier
    from docfleet.process.memory import give_back, settle

    embedded, mineru = loaded(EmbeddedEngine()), loaded(MinerUEngine())
    engine = embedded if kind == "scan" else mineru
    settle()
    method = Method.OCR if kind == "models" else Method.AUTO
    options = ParseOptions(method=method, formats=(Format.MARKDOWN, Format.CONTENT_LIST))
    request = request_for(folder / "source.pdf", pages=pages, options=options)
    parts = sorted(folder.glob("part-*"))
    before = resident()[0]
    peak = Peak()
    started = time.perf_counter()
    with peak:
        report = engine.finish(request, Tier.FLASH, parts, folder / "result", lambda _: None)
    seconds = time.perf_counter() - started
    if report.pages != pages:
        raise SystemExit(f"{report.pages} of {pages} pages came out")
    give_back()
    megabyte = 2**20
    return {
        "before": before / megabyte,
        "peak": max(peak.highest, before) / megabyte,
        "children": peak.children / megabyte,
        "after": resident()[0] / megabyte,
        "source": (folder / "source.pdf").stat().st_size / megabyte,
        "parts": sum(path.stat().st_size for part in parts for path in part.rglob("*")) / megabyte,
        "seconds": seconds,
    }


class Peak:
    """The highest resident memory of this process, and of its children, looked at every 20 ms, while in the block."""

    def __init__(self) -> None:
        self.highest = 0
        self.children = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            own, children = resident()
            self.highest, self.children = max(self.highest, own), max(self.children, children)


def resident() -> tuple[int, int]:
    """Return the resident bytes of this process and of its children."""
    process, children = psutil.Process(), 0
    for child in process.children(recursive=True):
        try:
            children += child.memory_info().rss
        except psutil.Error:
            continue
    return int(process.memory_info().rss), children


def measured(kind: str, pages: int, folder: Path) -> dict[str, float]:
    """Make the document in one fresh process and finish it in another."""
    for step in ("make", "finish"):
        command = [sys.executable, "-m", "benchmarks.merge", "--step", step, "--kinds", kind, "--pages", str(pages)]
        ran = subprocess.run([*command, "--folder", str(folder)], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pages", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--step", choices=("make", "finish"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    from docfleet import logs

    logs.configure("error", "merge")
    if args.step == "make":
        make(args.kinds[0], args.pages[0], args.folder)
        return
    if args.step == "finish":
        print(json.dumps(finish(args.kinds[0], args.pages[0], args.folder)))
        return
    print(
        "kind     pages  file MB  parts MB  before MB  peak MB  added MB  MB/page  after MB  children MB  seconds",
        flush=True,
    )
    for kind in args.kinds:
        last: tuple[int, float] | None = None
        for pages in args.pages:
            with tempfile.TemporaryDirectory() as name:
                found = measured(kind, pages, Path(name))
            added = found["peak"] - found["before"]
            grown = f"{(added - last[1]) / (pages - last[0]):8.3f}" if last and pages != last[0] else "       -"
            last = (pages, added)
            print(
                f"{kind:8} {pages:5d} {found['source']:8.1f} {found['parts']:9.1f} {found['before']:10.0f} "
                f"{found['peak']:8.0f} {added:9.0f} {grown} {found['after']:9.0f} {found['children']:12.0f} "
                f"{found['seconds']:8.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
