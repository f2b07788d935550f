"""Which page keeps its own text, and what the page stage hands over."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from docfleet.documents.pdf import PageFacts
from docfleet.engine.embedded import EmbeddedEngine
from docfleet.engine.embedded.pages import has_own_text
from docfleet.engine.embedded.parts import LineRecord, PageRecord, PageState, PartWriter, gather
from docfleet.errors import InternalError, NotReady
from docfleet.options import ParseOptions, Tier
from tests.mineru_support import request_for


def _facts(**more: float) -> PageFacts:
    plain = {"chars": 1800, "unusable_chars": 0, "image_share": 0.0, "objects": 40, "drawings": 0}
    return PageFacts(**(plain | more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("facts", "method", "own"),
    [
        (_facts(), "txt", True),
        (_facts(chars=0, image_share=1.0, objects=1), "ocr", False),
        (_facts(chars=0, objects=0), "ocr", True),
        (_facts(chars=12, objects=2), "ocr", True),
        (_facts(chars=12, objects=2, image_share=0.9), "ocr", False),
        (_facts(chars=120, objects=9, image_share=0.95), "txt", False),
        (_facts(chars=900, unusable_chars=200), "txt", False),
        (_facts(chars=0, objects=4000, drawings=4000), "ocr", False),
        (_facts(chars=1500), "ocr", False),
    ],
    ids=[
        "a page of text",
        "a scan",
        "a blank page",
        "a title page",
        "a scan with a stamped page number",
        "a scan with a footer of its library",
        "a text layer of control characters",
        "text drawn as outlines",
        "a text layer that MinerU mistrusts",
    ],
)
def test_each_page_is_judged_by_itself(facts: PageFacts, method: str, own: bool) -> None:
    assert has_own_text(facts, method) is own


def test_pages_come_back_from_parts_as_they_were_written_in_page_order(tmp_path: Path) -> None:
    line = LineRecord(text="面朝大海 & <b>", confidence=0.98, box=(1.0, 2.0, 3.5, 4.0), size=10.5, turned=90)
    pages = [
        PageRecord(page=0, state=PageState.DIGITAL),
        PageRecord(page=1, state=PageState.RECOGNISED, width=595.0, lines=(line,), rules=((0.0, 1.0, 9.0, 1.0),)),
        PageRecord(page=2, state=PageState.FAILED, cause="damaged"),
    ]
    for folder, held in (("late", pages[2:]), ("early", pages[:2])):
        writer = PartWriter(tmp_path / folder)
        for page in held:
            writer.page(page)
    found = gather([tmp_path / "late", tmp_path / "early"], 0, 2)
    assert [page.record for page in found] == pages


@pytest.mark.parametrize("numbers", [[0], [0, 1, 1], [0, 2]], ids=["one missing", "one twice", "another one"])
def test_parts_that_do_not_hold_each_page_once_are_refused(tmp_path: Path, numbers: list[int]) -> None:
    writer = PartWriter(tmp_path / "part")
    for number in numbers:
        writer.page(PageRecord(page=number, state=PageState.DIGITAL))
    with pytest.raises(InternalError):
        gather([tmp_path / "part"], 0, 1)


def test_the_engine_reads_pdf_and_pictures_at_flash_and_says_what_else_needs() -> None:
    engine = EmbeddedEngine()
    assert engine.missing(Tier.FLASH, "pdf", ParseOptions()) is None
    assert engine.missing(Tier.FLASH, "tiff", ParseOptions()) is None
    assert "needs model weights" in str(engine.missing(Tier.BASIC, "pdf", ParseOptions()))
    assert "mineru reads them" in str(engine.missing(Tier.FLASH, "docx", ParseOptions()))


def test_an_engine_that_is_not_loaded_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotReady):
        EmbeddedEngine().read_pages(request_for(tmp_path / "a.pdf"), Tier.FLASH, tmp_path / "part", lambda pages: None)


def test_importing_the_engine_imports_nothing_heavy() -> None:
    heavy = "cv2", "onnxruntime", "rapidocr", "mineru", "docvortex", "numpy"
    code = f"import sys, docfleet.engine.embedded; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
