"""An engine in the place of models: deterministic, cut at windows, with a document stage that needs every page.

The page stage takes the lines of each page with their heights and places. The document stage decides over all pages
which lines are running headers and footers (they stand on two pages or more), what the body's type is (the height of
most characters), which rank a heading has (the order of all larger heights), and joins paragraphs over pages: one page
more or less changes what is made of the others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pypdfium2

from docfleet.engine.interface import EngineContext, ParseReport, ParseRequest, Progress
from docfleet.options import ParseOptions, Tier
from docfleet.sharding.cutting import Cuts

#: Pages of a window: shards begin where one does.
WINDOW = 2
_SECONDS = 2.0


class ReadingEngine:
    """Reads the own text of PDFs at tier basic and flash."""

    name: ClassVar[str] = "reading"
    version = "1"

    def load(self, context: EngineContext) -> None:
        pass

    def missing(self, tier: Tier, suffix: str, options: ParseOptions) -> str | None:
        return None if tier in (Tier.BASIC, Tier.FLASH) and suffix == "pdf" else "only PDF, basic and flash."

    def cuts(self, request: ParseRequest, tier: Tier) -> Cuts | None:
        pages = range(request.first_page, request.last_page + 1)
        starts = frozenset(page for page in pages if (page - request.first_page) % WINDOW == 0)
        return Cuts(costs=(_SECONDS,) * len(pages), starts=starts, decisions={"window": WINDOW})

    def check(self, request: ParseRequest, tier: Tier, part: Path) -> None:
        held = [page["page"] for page in _pages([part])]
        if held != [page for page in range(request.first_page, request.last_page + 1) if page not in request.skipped]:
            raise ValueError("pages are missing")

    def read_pages(self, request: ParseRequest, tier: Tier, part: Path, progress: Progress) -> None:
        pages = []
        with pypdfium2.PdfDocument(request.source) as pdf:
            for number in range(request.first_page, request.last_page + 1):
                if number not in request.skipped:
                    pages.append({"page": number, "lines": _lines(pdf[number])})
                progress(1)
        (part / "pages.json").write_text(json.dumps(pages))

    def finish(
        self, request: ParseRequest, tier: Tier, parts: Sequence[Path], output: Path, progress: Progress
    ) -> ParseReport:
        pages = _pages(parts)
        blocks = _blocks(pages)
        marks = {0: ""} | {rank: "#" * rank + " " for rank in range(1, 40)}
        text = "\n\n".join(f"{marks[block['rank']]}{block['text']}" for block in blocks)
        (output / "document.md").write_text(text, encoding="utf-8")
        (output / "content_list.json").write_text(json.dumps(blocks, ensure_ascii=False), encoding="utf-8")
        return ParseReport(
            tier=tier,
            engine=self.name,
            engine_version=self.version,
            pages=len(pages),
            failed_pages=request.failed_pages,
            files=("document.md", "content_list.json"),
        )


def _lines(page: pypdfium2.PdfPage) -> list[dict[str, Any]]:
    text = page.get_textpage()
    found = []
    for number in range(text.count_rects()):
        left, bottom, right, top = text.get_rect(number)
        words = text.get_text_bounded(left, bottom, right, top).strip()
        if words:
            found.append({"text": words, "height": round(top - bottom), "top": round(top)})
    return found


def _pages(parts: Sequence[Path]) -> list[dict[str, Any]]:
    pages = [page for part in parts for page in json.loads((part / "pages.json").read_text())]
    return sorted(pages, key=lambda page: int(page["page"]))


def _blocks(pages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    stands = Counter((line["text"], line["top"]) for page in pages for line in page["lines"])
    heights = Counter[int]()
    for page in pages:
        for line in page["lines"]:
            heights[line["height"]] += len(line["text"])
    body = max(heights, key=lambda height: (heights[height], height), default=0)
    larger = sorted((height for height in heights if height > body + 1), reverse=True)
    blocks: list[dict[str, Any]] = []
    for page in pages:
        for line in page["lines"]:
            if stands[line["text"], line["top"]] > 1:
                continue
            rank = larger.index(line["height"]) + 1 if line["height"] in larger else 0
            open_end = blocks and not blocks[-1]["rank"] and not blocks[-1]["text"].endswith(".")
            if rank == 0 and open_end:
                blocks[-1]["text"] += " " + line["text"]
            else:
                blocks.append({"page": page["page"], "rank": rank, "text": line["text"]})
    return blocks
