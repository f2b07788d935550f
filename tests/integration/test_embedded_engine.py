"""Scans and pictures through the whole engine, with no model and no network."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pikepdf
import pytest
from PIL import Image

from docfleet.documents.frames import frame_count
from docfleet.documents.pdf import page_count
from docfleet.engine.embedded import EmbeddedEngine
from docfleet.engine.interface import EngineContext, ParseReport
from docfleet.errors import ParseFailed
from docfleet.options import Method, ParseOptions, Tier
from tests import making
from tests.mineru_support import request_for


@cache
def _engine() -> EmbeddedEngine:
    engine = EmbeddedEngine()
    folder = Path(tempfile.gettempdir())
    engine.load(EngineContext(device="cpu", threads=2, model_source="embedded", vlm_server_url=None, scratch=folder))
    return engine


class Parsed:
    """A document that went through both stages, cut where `cuts` says."""

    def __init__(
        self, source: Path, work: Path, options: ParseOptions | None = None, cuts: Sequence[tuple[int, int]] = ()
    ) -> None:
        suffix = source.suffix[1:]
        pages = page_count(source) if suffix == "pdf" else frame_count(source, suffix)
        options = options or ParseOptions()
        self.parts = []
        self.progress: list[int] = []
        shutil.rmtree(work, ignore_errors=True)
        first, last = options.page_range(pages)
        for number, (start, end) in enumerate(cuts or [(first, last)]):
            part = work / f"part-{number}"
            part.mkdir(parents=True)
            shard = request_for(source, pages=pages, first=start, last=end, options=options)
            _engine().read_pages(shard, Tier.FLASH, part, self.progress.append)
            self.parts.append(part)
        self.output = work / "result"
        self.output.mkdir(parents=True)
        whole = request_for(source, pages=pages, first=first, last=last, options=options)
        self.report: ParseReport = _engine().finish(whole, Tier.FLASH, self.parts, self.output, lambda pages: None)

    @property
    def markdown(self) -> str:
        return (self.output / "document.md").read_text(encoding="utf-8")

    @property
    def warnings(self) -> str:
        return " | ".join(self.report.warnings)

    def files(self) -> dict[str, bytes]:
        return {name: (self.output / name).read_bytes() for name in self.report.files}


def test_an_english_scan_comes_back_as_its_sentences(tmp_path: Path) -> None:
    parsed = Parsed(making.scanned(tmp_path / "scan.pdf", making.english_page), tmp_path / "work")
    for sentence in making.ENGLISH:
        assert sentence in parsed.markdown
    assert parsed.markdown.startswith("The Harbour and its Rules\n\n")
    assert (parsed.report.engine, parsed.report.tier, parsed.report.pages) == ("embedded", "flash", 1)
    assert "page 1 recognised without models" in parsed.warnings
    assert not (parsed.output / "rebuilt.pdf").exists()


def test_a_chinese_scan_comes_back_as_clean_paragraphs(tmp_path: Path) -> None:
    parsed = Parsed(making.scanned(tmp_path / "scan.pdf", making.chinese_page), tmp_path / "work")
    paragraphs = parsed.markdown.split("\n\n")
    assert "".join(making.CHINESE[:3]) in paragraphs
    assert "".join(making.CHINESE[3:]) in paragraphs


@pytest.mark.needs("documents")
def test_a_real_chinese_scan_has_no_false_headings_and_whole_sentences(documents: Path, tmp_path: Path) -> None:
    parsed = Parsed(documents / "scan-zh-3p.pdf", tmp_path / "work", ParseOptions(end_page_id=0))
    assert "物的有用性使物成为使用价值" in parsed.markdown
    assert "不论财富的社会形式如何，使用价值构成财富的物质。" in parsed.markdown
    assert not re.search(r"^#+ .*。", parsed.markdown, re.MULTILINE)


def test_in_a_mixed_document_digital_pages_keep_their_own_text(tmp_path: Path) -> None:
    digital = making.drawn(tmp_path / "digital.pdf", making.two_columns_page)
    scan = making.scanned(tmp_path / "scan.pdf", making.chinese_page)
    parsed = Parsed(making.mixed(tmp_path / "mixed.pdf", digital, scan), tmp_path / "work")
    records = [json.loads(line) for line in (parsed.parts[0] / "pages.jsonl").read_text().splitlines()]
    assert [record["state"] for record in records] == ["digital", "recognised"]
    assert making.ENGLISH[0] in parsed.markdown
    assert making.CHINESE[0] in parsed.markdown
    assert "page 2 recognised" in parsed.warnings


def test_a_digital_document_is_left_to_mineru(tmp_path: Path) -> None:
    parsed = Parsed(making.drawn(tmp_path / "digital.pdf", making.english_page), tmp_path / "work")
    assert parsed.report.engine == "mineru"
    assert parsed.report.warnings == ()
    assert making.ENGLISH[3] in parsed.markdown


@pytest.mark.parametrize(
    ("degrees", "flagged"), [(90, False), (180, False), (270, False), (90, True)], ids=["90", "180", "270", "flag"]
)
def test_a_page_that_lies_or_stands_on_its_head_is_turned_upright(tmp_path: Path, degrees: int, flagged: bool) -> None:
    digital = making.drawn(tmp_path / "digital.pdf", making.short_page)
    image = making.page_image(digital, dpi=110).rotate(degrees, expand=True)
    source = making.scan_of([image], tmp_path / "turned.pdf", 110)
    if flagged:
        # The pixels lie, and the page says how to show them upright.
        with pikepdf.open(source, allow_overwriting_input=True) as pdf:
            pdf.pages[0].rotate(degrees, relative=False)
            pdf.save(source)
    parsed = Parsed(source, tmp_path / "work")
    assert " ".join(making.ENGLISH[:4]) in parsed.markdown
    assert ("page 1: turned upright" in parsed.warnings) is not flagged


def test_a_page_that_leans_is_read_in_order(tmp_path: Path) -> None:
    digital = making.drawn(tmp_path / "digital.pdf", making.two_columns_page)
    leaning = making.page_image(digital).rotate(2.5, resample=Image.Resampling.BICUBIC, fillcolor=255)
    parsed = Parsed(making.scan_of([leaning], tmp_path / "leaning.pdf"), tmp_path / "work")
    assert " ".join(making.ENGLISH[:4]) in parsed.markdown
    assert " ".join(making.ENGLISH[4:]) in parsed.markdown


def test_two_columns_are_read_one_after_the_other(tmp_path: Path) -> None:
    parsed = Parsed(making.scanned(tmp_path / "scan.pdf", making.two_columns_page), tmp_path / "work")
    text = parsed.markdown
    for part in (making.ENGLISH[:4], making.ENGLISH[4:]):
        assert " ".join(part) in text
    assert text.index(making.ENGLISH[3]) < text.index(making.ENGLISH[4])


def test_a_table_with_rules_comes_back_as_a_table(tmp_path: Path) -> None:
    parsed = Parsed(making.scanned(tmp_path / "scan.pdf", making.table_page), tmp_path / "work")
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in parsed.markdown.splitlines()]
    assert ["Port", "Ships", "Tonnes"] in rows
    assert ["Kiel", "287", "64 150"] in rows
    assert making.ENGLISH[1] in parsed.markdown


def test_a_picture_is_kept_as_an_image_between_its_paragraphs(tmp_path: Path) -> None:
    parsed = Parsed(making.scanned(tmp_path / "scan.pdf", making.picture_page), tmp_path / "work")
    (name,) = re.findall(r"!\[[^]]*\]\((images/[^)]+)\)", parsed.markdown)
    assert name in parsed.report.files
    with Image.open(parsed.output / name) as image:
        assert image.width / image.height == pytest.approx(300 / 220, rel=0.1)
    before, after = parsed.markdown.split(name)
    assert making.ENGLISH[2] in before
    assert making.ENGLISH[3] in after
    assert "page 1: a picture" in parsed.warnings


def test_a_photograph_without_text_is_kept_as_an_image(tmp_path: Path) -> None:
    making.landscape().resize((900, 660)).save(tmp_path / "photo.jpg")
    parsed = Parsed(tmp_path / "photo.jpg", tmp_path / "work")
    assert re.search(r"!\[[^]]*\]\(images/", parsed.markdown)
    assert "page 1: no text was found" in parsed.warnings


def test_each_frame_of_a_tiff_is_a_page(tmp_path: Path) -> None:
    digital = making.drawn(tmp_path / "digital.pdf", making.english_page, making.chinese_page)
    frames = [making.page_image(digital, number) for number in range(2)]
    parsed = Parsed(making.scan_of(frames, tmp_path / "frames.tiff"), tmp_path / "work")
    assert parsed.report.pages == 2
    assert parsed.progress == [1, 1]
    assert making.ENGLISH[0] in parsed.markdown
    assert making.CHINESE[0] in parsed.markdown


@pytest.mark.parametrize(("dpi", "suffix"), [(75, "png"), (300, "jpg"), (150, "jp2")])
def test_pictures_of_a_page_are_read_at_any_resolution(tmp_path: Path, dpi: int, suffix: str) -> None:
    digital = making.drawn(tmp_path / "digital.pdf", making.short_page)
    source = tmp_path / f"page.{suffix}"
    making.page_image(digital, dpi=dpi).save(source)
    read = Counter(Parsed(source, tmp_path / "work").markdown.split())
    wanted = Counter(" ".join(making.ENGLISH[:4]).split())
    assert (read & wanted).total() >= 0.95 * wanted.total()


def test_any_cut_of_a_document_gives_the_same_bytes(tmp_path: Path) -> None:
    pages = making.short_page, making.picture_page
    scan = making.scanned(tmp_path / "scan.pdf", *pages, dpi=100)
    source = making.mixed(tmp_path / "mixed.pdf", scan, making.drawn(tmp_path / "d.pdf", making.two_columns_page))
    whole = Parsed(source, tmp_path / "whole")
    cut = Parsed(source, tmp_path / "cut", cuts=[(0, 0), (1, 1), (2, 2)])
    assert whole.files() == cut.files()
    assert whole.report.warnings == cut.report.warnings


def test_a_page_range_keeps_the_numbers_of_the_document(tmp_path: Path) -> None:
    source = making.scanned(tmp_path / "scan.pdf", making.short_page, making.chinese_page, making.table_page, dpi=100)
    options = ParseOptions(start_page_id=1, end_page_id=2)
    parsed = Parsed(source, tmp_path / "work", options, cuts=[(1, 1), (2, 2)])
    blocks = json.loads((parsed.output / "content_list.json").read_text())
    assert {block["page_idx"] for block in blocks} == {1, 2}
    assert parsed.report.pages == 2
    assert making.ENGLISH[3] not in parsed.markdown


def test_method_decides_whether_pages_are_recognised(tmp_path: Path) -> None:
    digital = making.drawn(tmp_path / "digital.pdf", making.short_page)
    scan = making.scanned(tmp_path / "scan.pdf", making.short_page, dpi=100)
    forced = Parsed(digital, tmp_path / "forced", ParseOptions(method=Method.OCR))
    assert forced.report.engine == "embedded"
    assert making.ENGLISH[0] in forced.markdown
    left = Parsed(scan, tmp_path / "left", ParseOptions(method=Method.TXT))
    assert left.report.engine == "mineru"
    assert making.ENGLISH[0] not in left.markdown


def test_a_damaged_page_fails_alone_and_says_why(tmp_path: Path) -> None:
    digital = making.drawn(tmp_path / "digital.pdf", making.english_page, making.chinese_page)
    source = tmp_path / "frames.tiff"
    first, second = (making.page_image(digital, number, 100) for number in range(2))
    first.save(source, save_all=True, append_images=[second, second.resize((200, 290))], compression="tiff_deflate")
    with Image.open(source) as image:
        image.seek(1)
        offset = image.tag_v2[273][0]  # StripOffsets
    data = bytearray(source.read_bytes())
    data[offset : offset + 400] = b"\xff" * 400
    source.write_bytes(data)
    parsed = Parsed(source, tmp_path / "work")
    (failed,) = parsed.report.failed_pages
    assert failed.page == 1
    assert "cannot be decoded" in failed.cause
    assert parsed.report.pages == 2
    assert making.ENGLISH[0] in parsed.markdown


def test_a_document_of_which_no_page_can_be_read_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "cut.tiff"
    making.landscape().save(source, compression="tiff_deflate")
    work = tmp_path / "part"
    source.write_bytes(source.read_bytes().replace(b"\x78", b"\xff"))
    request = request_for(source)
    _engine().read_pages(request, Tier.FLASH, work, lambda pages: None)
    with pytest.raises(ParseFailed, match="Page 1"):
        _engine().finish(request, Tier.FLASH, [work], tmp_path / "result", lambda pages: None)


def test_a_blank_scan_and_a_page_of_absurd_size_are_delivered(tmp_path: Path) -> None:
    blank = making.scan_of([Image.new("L", (600, 850), 250)], tmp_path / "blank.pdf", 72)
    source = tmp_path / "odd.pdf"
    with pikepdf.open(blank) as pdf:
        pdf.add_blank_page(page_size=(14_400, 14_400))
        pdf.save(source)
    parsed = Parsed(source, tmp_path / "work", ParseOptions(method=Method.OCR))
    assert parsed.report.pages == 2
    assert "pages 1-2: no text was found" in parsed.warnings
