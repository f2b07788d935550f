"""Engines with faults, for tests of everything around the engine. The file's name says what shall happen.

`sleep-0.5-x.pdf` sleeps half a second a page; `die-once`, `die-always` SIGKILL the worker in mid-page; `raise`, `exit`
and `hang` do what they say; `leak-50` keeps 50 MB for ever; `children` starts a render child that outlives the page,
as MinerU's pools do.
`page-3-hang`, `page-3-die`, `page-3-raise`, `page-3-slow`, `page-3-broken`, `page-3-garbage`, `page-3-eat` do it on
page 3 (from 0) alone, whoever reads it, and `finish-3-hang` and so on in the document stage, while page 3 is in the
document (`finish-any-raise`: while any is).
`cut` lets the document be cut at any page, `cut4` at every fourth; `long` without it says how long it takes.
`oom-above-0.25-x.pdf` runs out of memory while it may take more than a quarter of its share; each try is a line of
`shares.log`.
Finished pages of a `shelf` document go to its shelf; each page that is really read is a line of `pages.log`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from docfleet.engine.interface import EngineContext, NoShelf, ParseReport, ParseRequest, Progress
from docfleet.errors import BrokenDocument, TooSlow
from docfleet.options import ParseOptions, Tier
from docfleet.sharding.cutting import Cuts


class FaultyEngine:
    """Makes one line of Markdown a page."""

    name: ClassVar[str] = "faulty"
    version = os.environ.get("FAULTY_VERSION", "1")

    def load(self, context: EngineContext) -> None:
        self._context = context
        self._leaked: list[bytes] = []

    def missing(self, tier: Tier, suffix: str, options: ParseOptions) -> str | None:
        return None if tier is Tier.FLASH else "only flash."

    def cuts(self, request: ParseRequest, tier: Tier) -> Cuts | None:
        step = _step(request)
        pages = range(request.first_page, request.last_page + 1)
        if "cut" not in request.filename:
            pause = _pause(request)
            return Cuts(costs=(pause,) * len(pages), starts=frozenset()) if "long" in request.filename else None
        return Cuts(
            costs=(_pause(request) or 1.0,) * len(pages),
            starts=frozenset(page for page in pages if page % step == 0),
            decisions={"decided by": os.getpid()},
        )

    def check(self, request: ParseRequest, tier: Tier, part: Path) -> None:
        wanted = [page for page in range(request.first_page, request.last_page + 1) if page not in request.skipped]
        if [page for page, _ in _lines(part)] != wanted:
            raise ValueError("pages are missing")

    def read_pages(self, request: ParseRequest, tier: Tier, part: Path, progress: Progress) -> None:
        name = request.filename
        # Beside the folder of jobs: one line for each document that was really read.
        with (request.source.parents[2] / "read.log").open("a") as log:
            log.write(f"{os.getpid()} {name}\n")
        if "children" in name:
            code = "import time; time.sleep(600)"
            child = subprocess.Popen([sys.executable, "-c", code])
            (request.source.parent / "child.pid").write_text(str(child.pid))
        lines: list[Any] = []
        step, done = _step(request), 0
        (part / "engine").write_text(self.name)
        (part / "worker").write_text(f"{os.getpid()} {request.decisions.get('decided by')}")
        for page in range(request.first_page, request.last_page + 1):
            if page not in request.skipped:
                lines.append(self._line(request, page))
            (part / "lines.json").write_text(json.dumps(lines))
            done += 1
            if (page + 1) % step == 0 or page == request.last_page:
                progress(done)
                done = 0

    def _line(self, request: ParseRequest, page: int) -> Any:
        shelf = request.shelf if "shelf" in request.filename else NoShelf()
        piece = {"page": page, "method": request.options.method}
        if kept := shelf.get(piece):
            return "garbage" if kept == b"garbage" else (page, kept.decode())
        self._misbehave(request)
        line = f"page {page}" if self._read(request, page) else "garbage"
        shelf.put(piece, line.encode())
        # After it was put: whoever sees the line and kills this process knows that the page is on the shelf.
        with (request.source.parents[2] / "pages.log").open("a") as log:
            log.write(f"{page}\n")
        return "garbage" if line == "garbage" else (page, line)

    def _read(self, request: ParseRequest, page: int, step: str = "page") -> bool:
        found = re.search(step + r"-(\d+|any)-(hang|die|raise|slow|broken|garbage|eat)", request.filename)
        if found is None or found[1] not in (str(page), "any"):
            return True
        if found[2] == "hang":
            time.sleep(600)
        if found[2] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if found[2] == "slow":
            raise TooSlow(f"page {page} takes too long to draw")
        if found[2] == "broken":
            raise BrokenDocument(f"page {page} cannot be opened")
        if found[2] == "raise":
            raise RuntimeError(f"page {page} cannot be read")
        hoard = []
        while found[2] == "eat":
            hoard.append(os.urandom(8 * 1024 * 1024))
            time.sleep(0.005)
        return False

    def _misbehave(self, request: ParseRequest) -> None:
        name = request.filename
        time.sleep(_pause(request))
        died = request.source.parent / "died"
        if "die-always" in name or ("die-once" in name and not died.exists()):
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        leak = re.search(r"leak-([0-9]+)", name)
        if leak:
            self._leaked.append(os.urandom(int(leak[1]) * 2**20))
        if found := re.search(r"oom-above-([0-9.]+)-", name):
            with (request.source.parents[2] / "shares.log").open("a") as log:
                log.write(f"{request.memory_share:g}\n")
            if request.memory_share > float(found[1]):
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.00 GiB free")
        if "page-" in name or "finish-" in name:
            return
        if "raise" in name:
            raise RuntimeError("a fault on purpose")
        if "exit" in name:
            sys.exit(3)
        while "hang" in name:
            time.sleep(1)

    def finish(
        self, request: ParseRequest, tier: Tier, parts: Sequence[Path], output: Path, progress: Progress
    ) -> ParseReport:
        if {(part / "engine").read_text() for part in parts} != {self.name}:
            raise ValueError("only the engine that wrote a part reads it")
        kept = [(page, line) for part in parts for page, line in _lines(part) if page not in request.skipped]
        for page, _ in kept:
            self._read(request, page, "finish")
        lines = [line for _, line in kept]
        # The document stage depends on every page; the processes are named so that tests see who did the work.
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        readers = " ".join(sorted({(part / "worker").read_text() for part in parts}))
        told = [*lines, f"digest {digest}", f"pid {os.getpid()}", self._context.device, f"readers {readers}"]
        (output / "document.md").write_text("\n\n".join(told))
        return ParseReport(
            tier="flash",
            engine=self.name,
            engine_version=self.version,
            pages=len(lines),
            failed_pages=request.failed_pages,
            files=("document.md",),
        )


def _step(request: ParseRequest) -> int:
    found = re.search(r"cut(\d+)", request.filename)
    return int(found[1]) if found else 1


class TellingEngine(FaultyEngine):
    """Writes what its process was given into the data folder: `given-<number>.json`."""

    name: ClassVar[str] = "telling"

    def load(self, context: EngineContext) -> None:
        given = {"environment": dict(os.environ), "device": context.device, "threads": context.threads}
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        data, number = context.scratch.parents[1], context.scratch.name
        (data / f"given-{number}.json").write_text(json.dumps({**given, "cores": cores, "pid": os.getpid()}))
        super().load(context)


class LateEngine(FaultyEngine):
    """Reads at tier basic, if the data folder holds `weights` or `weights-<number>` when it is loaded."""

    name: ClassVar[str] = "late"

    def load(self, context: EngineContext) -> None:
        super().load(context)
        data, number = context.scratch.parents[1], context.scratch.name
        self._able = (data / "weights").exists() or (data / f"weights-{number}").exists()

    def missing(self, tier: Tier, suffix: str, options: ParseOptions) -> str | None:
        return None if tier is Tier.BASIC and self._able else "its weights are not here."

    def finish(
        self, request: ParseRequest, tier: Tier, parts: Sequence[Path], output: Path, progress: Progress
    ) -> ParseReport:
        return replace(super().finish(request, tier, parts, output, progress), tier="basic")


class FragileEngine(FaultyEngine):
    """Its process dies in `load` if the data folder holds `die-<number>` for it, of the signal that the file names."""

    name: ClassVar[str] = "fragile"

    def load(self, context: EngineContext) -> None:
        data, number = context.scratch.parents[1], context.scratch.name
        with (data / f"starts-{number}").open("a") as log:
            log.write(f"{os.getpid()}\n")
        fault = data / f"die-{number}"
        if fault.exists():
            os.kill(os.getpid(), int(fault.read_text()))
        super().load(context)


def _pause(request: ParseRequest) -> float:
    found = re.search(r"sleep-([0-9.]+)-", request.filename)
    return float(found[1]) if found else 0.0


def _lines(part: Path) -> list[tuple[int, str]]:
    return [(int(page), str(line)) for page, line in json.loads((part / "lines.json").read_text())]
