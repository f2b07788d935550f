"""Engines with faults, for tests of everything around the engine. The file's name says what shall happen.

`sleep-0.5-x.pdf` sleeps half a second a page; `die-once`, `die-always` SIGKILL the worker in mid-page; `raise`, `exit`
and `hang` do what they say; `leak-50` keeps 50 MB for ever; `children` starts a render child that outlives the page,
as MinerU's pools do.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from docfleet.engine.interface import EngineContext, ParseReport, ParseRequest, Progress
from docfleet.options import ParseOptions, Tier


class FaultyEngine:
    """Makes one line of Markdown a page."""

    name: ClassVar[str] = "faulty"
    version = os.environ.get("FAULTY_VERSION", "1")

    def load(self, context: EngineContext) -> None:
        self._context = context
        self._leaked: list[bytes] = []

    def missing(self, tier: Tier, suffix: str, options: ParseOptions) -> str | None:
        return None if tier is Tier.FLASH else "only flash."

    def read_pages(self, request: ParseRequest, tier: Tier, part: Path, progress: Progress) -> None:
        name = request.filename
        # Beside the folder of jobs: one line for each document that was really read.
        with (request.source.parents[2] / "read.log").open("a") as log:
            log.write(f"{os.getpid()} {name}\n")
        if "children" in name:
            code = "import time; time.sleep(600)"
            child = subprocess.Popen([sys.executable, "-c", code])
            (request.source.parent / "child.pid").write_text(str(child.pid))
        lines = []
        for page in range(request.first_page, request.last_page + 1):
            self._misbehave(request)
            lines.append(f"page {page}")
            progress(1)
        (part / "lines.json").write_text(json.dumps(lines))

    def _misbehave(self, request: ParseRequest) -> None:
        name = request.filename
        pause = re.search(r"sleep-([0-9.]+)-", name)
        if pause:
            time.sleep(float(pause[1]))
        died = request.source.parent / "died"
        if "die-always" in name or ("die-once" in name and not died.exists()):
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        leak = re.search(r"leak-([0-9]+)", name)
        if leak:
            self._leaked.append(os.urandom(int(leak[1]) * 2**20))
        if "raise" in name:
            raise RuntimeError("a fault on purpose")
        if "exit" in name:
            sys.exit(3)
        while "hang" in name:
            time.sleep(1)

    def finish(
        self, request: ParseRequest, tier: Tier, parts: Sequence[Path], output: Path, progress: Progress
    ) -> ParseReport:
        lines = [line for part in parts for line in json.loads((part / "lines.json").read_text())]
        # The process is named so that tests see which worker did the work.
        (output / "document.md").write_text("\n\n".join([*lines, f"pid {os.getpid()}", self._context.device]))
        return ParseReport(
            tier="flash", engine=self.name, engine_version=self.version, pages=len(lines), files=("document.md",)
        )
