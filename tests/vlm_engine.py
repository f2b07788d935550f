"""An engine that does nothing but ask VLM servers, with MinerU's own client as MinerU's engine sets it up.

It reads at tier advanced, a blank picture for each page, so that what is measured or killed is the way to the servers
and not this machine's processor.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from docfleet.engine.interface import EngineContext, ParseReport, ParseRequest, Progress
from docfleet.engine.mineru.failures import translated
from docfleet.engine.mineru.readiness import Readiness
from docfleet.options import ParseOptions, Tier
from docfleet.sharding.cutting import Cuts

#: Pages at once from one worker, as MinerU's windows on a CPU.
WINDOW = 16


class PageAsker:
    """One paragraph a page: whatever the server says."""

    name: ClassVar[str] = "page-asker"
    version = "1"

    def load(self, context: EngineContext) -> None:
        from mineru.model.vlm.client import get_vlm_predictor
        from PIL import Image

        self._readiness = Readiness(context)
        self._page = Image.new("RGB", (60, 80), "white")
        if context.vlm_server_url is not None:
            # Seconds of the first document's time otherwise.
            get_vlm_predictor(self._readiness.vlm_config(ParseOptions()))

    def missing(self, tier: Tier, suffix: str, options: ParseOptions) -> str | None:
        return None if tier is Tier.ADVANCED else "only advanced."

    def cuts(self, request: ParseRequest, tier: Tier) -> Cuts | None:
        return None

    def check(self, request: ParseRequest, tier: Tier, part: Path) -> None:
        assert len(_lines(part)) == request.last_page - request.first_page + 1 - len(request.skipped)

    def read_pages(self, request: ParseRequest, tier: Tier, part: Path, progress: Progress) -> None:
        from mineru.model.vlm.client import get_vlm_predictor

        pages = [page for page in range(request.first_page, request.last_page + 1) if page not in request.skipped]
        lines: list[str] = []
        with translated(), self._readiness.vlm_client(request.options):
            predictor, _ = get_vlm_predictor(self._readiness.vlm_config(request.options))
            for start in range(0, len(pages), WINDOW):
                asked = pages[start : start + WINDOW]
                read = predictor.batch_two_step_extract([self._page] * len(asked))
                lines += ["".join(block["content"] for block in page) for page in read]
                progress(len(asked))
        (part / "lines.json").write_text(json.dumps(lines))

    def finish(
        self, request: ParseRequest, tier: Tier, parts: Sequence[Path], output: Path, progress: Progress
    ) -> ParseReport:
        lines = [line for part in parts for line in _lines(part)]
        (output / "document.md").write_text("\n\n".join(lines))
        return ParseReport(
            tier=str(tier),
            engine=self.name,
            engine_version=self.version,
            pages=len(lines),
            failed_pages=request.failed_pages,
            files=("document.md",),
        )


def _lines(part: Path) -> list[str]:
    return [str(line) for line in json.loads((part / "lines.json").read_text())]
