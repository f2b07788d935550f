"""Formats that carry their own text, legacy ones without LibreOffice; images; documents that are damaged."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pikepdf
import pytest
from docx import Document
from openpyxl import Workbook
from PIL import Image, ImageDraw

from docfleet.engine.mineru.documents import page_methods, read_flash_only, read_pdf_flash, write_outputs
from docfleet.engine.mineru.sources import image_to_pdf
from docfleet.errors import BrokenDocument, DocumentTooLarge, EncryptedDocument, HostileDocument, UnsupportedType
from docfleet.options import ParseOptions
from tests.mineru_support import SAMPLES, loaded_engine, make_pdf, parse


@pytest.fixture(autouse=True)
def without_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Whatever is parsed here is parsed without LibreOffice or any other program.
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    loaded_engine()


def sample(name: str, folder: Path) -> Path:
    target = folder / name
    packed = SAMPLES / f"{name}.gz"
    target.write_bytes(gzip.decompress(packed.read_bytes()) if packed.exists() else (SAMPLES / name).read_bytes())
    return target


TEXT = ["# Quarterly harvest report", "- second item", "| North | 4210 | 1800 |", "北部果园", "Bold **words**", "plums"]
SHEETS = ["## Harvest", "| North | 4210 | 51.4% |", "| Sum | 8187 | 100.0% |", "merged remark 备注", "## Notes"]
SLIDES = ["Harvest in brief", "- Pears steady 梨稳定", "Plums next year."]


@pytest.mark.parametrize(
    ("name", "expected", "pages"),
    [
        ("harvest.doc", TEXT, 1),
        ("harvest.odt", TEXT, 1),
        ("harvest.xls", SHEETS, 2),
        ("harvest.ods", SHEETS, 2),
        ("harvest.ppt", SLIDES, 2),
        ("harvest.pptx", SLIDES, 2),
        ("harvest.odp", SLIDES, 2),
        ("harvest.rtf", ["**Harvest note**", "| North | 4210 |", "梨"], 1),
    ],
)
def test_office_formats_are_read_natively(name: str, expected: list[str], pages: int, tmp_path: Path) -> None:
    report, output, counted = parse(sample(name, tmp_path), tmp_path)
    markdown = (output / "document.md").read_text(encoding="utf-8")
    assert [text for text in expected if text not in markdown] == []
    assert (report.tier, report.pages, counted) == ("flash", pages, [1])
    if expected is TEXT:
        assert any(file.startswith("images/") for file in report.files)


def test_docx_of_python_docx_and_xlsx_of_openpyxl_are_read(tmp_path: Path) -> None:
    document = Document()
    document.add_heading("Harvest", 1)
    document.add_paragraph("Apples 苹果 & pears < plums")
    document.save(str(tmp_path / "a.docx"))
    book = Workbook()
    book.active.append(["orchard", "apples"])
    book.active.append(["north", 4210])
    book.save(tmp_path / "a.xlsx")
    _, output, _ = parse(tmp_path / "a.docx", tmp_path)
    assert "Apples 苹果" in (output / "document.md").read_text(encoding="utf-8")
    _, output, _ = parse(tmp_path / "a.xlsx", tmp_path)
    assert "| north | 4210 |" in (output / "document.md").read_text(encoding="utf-8")


def test_html_csv_and_epub_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<html><body><h1>Harvest</h1><p>Ripe &amp; sweet</p></body></html>")
    (tmp_path / "a.csv").write_text("果园,产量\n北部果园的苹果,4210\n", encoding="gb18030")
    make_epub(tmp_path / "a.epub", "<h1>Harvest</h1><p>A chapter.</p>")
    for name, expected in (
        ("a.html", "Ripe & sweet"),
        ("a.csv", "| 北部果园的苹果 | 4210 |"),
        ("a.epub", "A chapter."),
    ):
        _, output, _ = parse(tmp_path / name, tmp_path)
        assert expected in (output / "document.md").read_text(encoding="utf-8")


def make_epub(path: Path, body: str) -> Path:
    container = (
        '<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
    )
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id">'
        '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:identifier id="id">x</dc:identifier>'
        "<dc:title>Harvest</dc:title><dc:language>en</dc:language></metadata>"
        '<manifest><item id="c" href="c.xhtml" media-type="application/xhtml+xml"/></manifest>'
        '<spine><itemref idref="c"/></spine></package>'
    )
    with ZipFile(path, "w", ZIP_DEFLATED) as book:
        book.writestr("mimetype", "application/epub+zip", compress_type=0)
        book.writestr("META-INF/container.xml", container)
        book.writestr("book.opf", package)
        book.writestr("c.xhtml", f'<html xmlns="http://www.w3.org/1999/xhtml"><body>{body}</body></html>')
    return path


def rewritten(source: Path, part: str, change: Callable[[bytes], bytes | None]) -> bytes:
    buffer = BytesIO()
    with ZipFile(source) as old, ZipFile(buffer, "w", ZIP_DEFLATED) as new:
        for name in old.namelist():
            data = change(old.read(name)) if name == part else old.read(name)
            if data is not None:
                new.writestr(name, data)
    return buffer.getvalue()


def damaged_documents(folder: Path) -> dict[str, bytes]:
    Document().save(str(folder / "whole.docx"))
    docx = folder / "whole.docx"
    word = "word/document.xml"
    return {
        "half.doc": (SAMPLES / "harvest.doc").read_bytes()[:9000],
        "half.odt": (SAMPLES / "harvest.odt").read_bytes()[:6000],
        "half.pptx": (SAMPLES / "harvest.pptx").read_bytes()[:9000],
        "half.docx": docx.read_bytes()[:9000],
        "xls.docx": (SAMPLES / "harvest.xls").read_bytes(),
        "pptx.xlsx": (SAMPLES / "harvest.pptx").read_bytes(),
        "xml.docx": rewritten(docx, word, lambda data: data[: len(data) // 2]),
        "hollow.docx": rewritten(docx, word, lambda _: None),
        "noise.csv": bytes(range(256)) * 8,
        "noise.epub": b"PK" + bytes(99),
    }


def test_damaged_packages_are_broken_documents_and_the_message_shows_no_path(tmp_path: Path) -> None:
    for name, data in damaged_documents(tmp_path).items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(BrokenDocument) as caught:
            read_flash_only(path, path.suffix[1:])
        assert str(tmp_path) not in caught.value.message, name


def test_a_text_node_without_end_is_too_large(tmp_path: Path) -> None:
    Document().save(str(tmp_path / "whole.docx"))
    bomb = rewritten(tmp_path / "whole.docx", "word/document.xml", lambda _: b"<a>" + b" " * 20_000_000)
    (tmp_path / "bomb.docx").write_bytes(bomb)
    with pytest.raises(DocumentTooLarge):
        read_flash_only(tmp_path / "bomb.docx", "docx")


def test_an_unknown_type_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.exe").write_bytes(b"MZ")
    with pytest.raises(UnsupportedType):
        read_flash_only(tmp_path / "a.exe", "exe")


def test_pdfs_that_cannot_be_opened_say_why(tmp_path: Path) -> None:
    whole = make_pdf(tmp_path / "whole.pdf", pages=2)
    with pikepdf.open(whole) as pdf:
        pdf.save(tmp_path / "locked.pdf", encryption=pikepdf.Encryption(user="secret", owner="secret"))
        pdf.save(tmp_path / "owner.pdf", encryption=pikepdf.Encryption(user="", owner="secret"))
    (tmp_path / "half.pdf").write_bytes(whole.read_bytes()[:1500])
    with pytest.raises(EncryptedDocument, match="password"):
        read_pdf_flash(tmp_path / "locked.pdf")
    with pytest.raises(BrokenDocument):
        read_pdf_flash(tmp_path / "half.pdf")
    assert len(read_pdf_flash(tmp_path / "owner.pdf").middle.pages) == 2


def test_a_page_that_cannot_be_opened_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    source = make_pdf(tmp_path / "report.pdf", pages=4)
    with pikepdf.open(source, allow_overwriting_input=True) as pdf:
        pdf.pages[1].obj["/Type"] = pikepdf.Name("/Nonsense")
        pdf.pages[1].obj["/MediaBox"] = pikepdf.Array([0, 0, 0, 0])
        pdf.save()
    report, output, _ = parse(source, tmp_path, pages=4)
    markdown = (output / "document.md").read_text(encoding="utf-8")
    assert [page for page in range(4) if f"Marker{page:03d}" in markdown] == [0, 2, 3]
    assert (report.pages, [failed.page for failed in report.failed_pages]) == (3, [1])
    assert "damaged" in report.failed_pages[0].cause


def picture(colour: str, size: tuple[int, int] = (300, 200)) -> Image.Image:
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).rectangle((40, 40, 200, 150), fill=colour)
    return image


@pytest.mark.parametrize("suffix", ["png", "jpeg", "tiff", "webp", "bmp", "gif"])
def test_an_image_of_one_frame_becomes_the_pdf_that_mineru_makes(suffix: str) -> None:
    from docvortex.document.pdf import PDFDocument

    buffer = BytesIO()
    picture("red").save(buffer, format=suffix.upper())
    made, direct = image_to_pdf(buffer.getvalue(), (0, 0)), PDFDocument.from_image(buffer.getvalue()).bytes
    assert len(made) == len(direct)
    assert len(PDFDocument(made)) == 1


@pytest.mark.parametrize("suffix", ["tiff", "gif"])
def test_every_frame_that_is_wanted_becomes_a_page(suffix: str) -> None:
    from docvortex.document.pdf import PDFDocument

    frames = [picture(colour) for colour in ("red", "green", "blue")]
    buffer = BytesIO()
    frames[0].save(buffer, format=suffix.upper(), save_all=True, append_images=frames[1:])
    with PDFDocument(image_to_pdf(buffer.getvalue(), (0, 2))) as document:
        assert document.page_count == 3
    with PDFDocument(image_to_pdf(buffer.getvalue(), (1, 1))) as document:
        assert document.page_count == 1
        drawn = document.render_image(0) if hasattr(document, "render_image") else None
        assert drawn is not None


def test_pictures_that_cannot_be_decoded_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from docfleet.engine.mineru.failures import translated

    with pytest.raises(BrokenDocument), translated():
        image_to_pdf(b"\x89PNG\r\n\x1a\n" + bytes(50), (0, 0))
    buffer = BytesIO()
    picture("red").save(buffer, format="PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(HostileDocument), translated():
        image_to_pdf(buffer.getvalue(), (0, 0))


def test_pages_are_judged_one_by_one_for_recognition(tmp_path: Path) -> None:
    picture("black", (400, 600)).save(tmp_path / "p.png")
    source = make_pdf(tmp_path / "mixed.pdf", pages=2, picture=tmp_path / "p.png", first_is_picture=True)
    assert page_methods(source) == {0: "ocr", 1: "txt", 2: "txt"}
    assert page_methods(source, [2]) == {2: "txt"}


def test_a_rebuilt_pdf_carries_the_numbers_of_the_pages_it_stands_for(tmp_path: Path) -> None:
    middle = read_pdf_flash(make_pdf(tmp_path / "rebuilt.pdf", pages=3), original_pages=[4, 7, 8]).middle
    assert [page.page_idx for page in middle.pages] == [4, 7, 8]
    (tmp_path / "output").mkdir()
    written = write_outputs(middle, None, ParseOptions(), tmp_path / "output", "rebuilt.pdf")
    assert written.files[:2] == ("document.md", "content_list.json")
    assert written.warnings == ()
    assert "page_4_table" in "".join(written.files)
    shutil.rmtree(tmp_path / "output")
