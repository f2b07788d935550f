"""Reading and writing PDFs, and frames of pictures."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pikepdf
import pypdfium2
import pytest
from PIL import Image

from docfleet.documents.images import read_frame
from docfleet.documents.pdf import open_pdf, page_count
from docfleet.documents.pdf_writer import FreshPage, Picture, TextRun, new_pdf
from docfleet.engine.embedded.rebuild import load_font
from docfleet.errors import BrokenDocument, DocumentTooLarge, EmptyDocument, EncryptedDocument
from tests.making import chinese_page, drawn, english_page, landscape, picture_page, scanned

A_LOT = 100_000_000


@pytest.fixture
def digital(tmp_path: Path) -> Path:
    return drawn(tmp_path / "digital.pdf", english_page, chinese_page, picture_page)


def test_pages_are_counted(digital: Path) -> None:
    assert page_count(digital) == 3


def test_an_empty_file_and_a_file_without_pages_are_no_documents_whatever_came_before(tmp_path: Path) -> None:
    locked = tmp_path / "locked.pdf"
    with pikepdf.new() as pdf:
        pdf.add_blank_page()
        pdf.save(locked, encryption=pikepdf.Encryption(owner="a", user="b"))
    with pytest.raises(EncryptedDocument):
        page_count(locked)
    empty = tmp_path / "empty.pdf"
    empty.touch()
    with pytest.raises(EmptyDocument):
        page_count(empty)
    with pikepdf.new() as pdf:
        pdf.save(empty)
    with pytest.raises((EmptyDocument, BrokenDocument)):
        page_count(empty)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_file_that_was_cut_off_is_broken(digital: Path, share: float) -> None:
    whole = digital.read_bytes()
    digital.write_bytes(whole[: max(20, int(len(whole) * share))])
    with pytest.raises(BrokenDocument, match="Send it again"):
        page_count(digital)


def test_a_password_is_asked_for(digital: Path, tmp_path: Path) -> None:
    with pikepdf.open(digital) as pdf:
        pdf.save(tmp_path / "locked.pdf", encryption=pikepdf.Encryption(owner="o", user="u"))
    with pytest.raises(EncryptedDocument, match="password"):
        page_count(tmp_path / "locked.pdf")


def _pdf_that_claims(pages: int) -> bytes:
    """Write a PDF of one page whose page tree claims more."""
    objects = (
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count %d/Kids[3 0 R]>>" % pages,
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]>>",
    )
    data, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    end = b"trailer\n<</Size 4/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % len(data)
    return data + b"xref\n0 4\n0000000000 65535 f \n" + table + end


def test_a_count_of_pages_that_are_not_there_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "boasting.pdf"
    path.write_bytes(_pdf_that_claims(1))
    assert page_count(path) == 1
    path.write_bytes(_pdf_that_claims(900_000))
    with pytest.raises(BrokenDocument, match="900000"):
        page_count(path)


def test_facts_tell_a_scan_from_a_page_of_text(digital: Path, tmp_path: Path) -> None:
    scan = scanned(tmp_path / "scan.pdf", english_page, dpi=72)
    with open_pdf(digital) as pdf:
        text, picture = pdf.facts(0), pdf.facts(2)
    with open_pdf(scan) as pdf:
        image = pdf.facts(0)
        assert 70 < pdf.image_dpi(0) < 74
    assert text.chars > 500
    assert text.image_share == 0
    assert 0.05 < picture.image_share < 0.25
    assert image.chars == 0
    assert image.image_share > 0.98


def test_a_page_of_absurd_size_is_drawn_within_the_bound(tmp_path: Path) -> None:
    with pikepdf.new() as pdf:
        pdf.add_blank_page(page_size=(14_400, 14_400))
        pdf.add_blank_page(page_size=(3, 14_400))
        pdf.save(tmp_path / "huge.pdf")
    with open_pdf(tmp_path / "huge.pdf") as opened:
        for page in (0, 1):
            height, width, _ = opened.render(page, 200, 1_000_000).shape
            assert height * width <= 1_010_000
            assert max(height, width) <= 4_000


def test_every_character_reads_back_as_itself(tmp_path: Path) -> None:
    lines = ["Plain text, 42 %", "中文测试。", "a − b ≈ c, 10⁻³, H₂O", "Ω (ohm) Ω (omega) µ μ", "𬭎 🚀 ñ ü ß ạ"]
    runs = [
        TextRun(text=text, box=(50, 50 + 30 * row, 300, 64 + 30 * row), size=12, turned=0)
        for row, text in enumerate(lines)
    ]
    with new_pdf(load_font(), "".join(lines)) as writer:
        writer.add(FreshPage(width=595, height=842, runs=runs, rules=[(50, 300, 300, 300)]))
        writer.save(tmp_path / "written.pdf")
    with pypdfium2.PdfDocument(tmp_path / "written.pdf") as pdf:
        assert pdf[0].get_textpage().get_text_range().split("\r\n") == lines


@pytest.mark.parametrize("turned", [0, 90, 180, 270])
def test_a_run_fills_its_box_whichever_way_it_reads(tmp_path: Path, turned: int) -> None:
    box = (100.0, 200.0, 300.0, 214.0) if turned in (0, 180) else (100.0, 200.0, 114.0, 400.0)
    with new_pdf(load_font(), "Hamburg") as writer:
        writer.add(FreshPage(width=595, height=842, runs=[TextRun(text="Hamburg", box=box, size=12, turned=turned)]))
        writer.save(tmp_path / "run.pdf")
    with open_pdf(tmp_path / "run.pdf") as pdf:
        pixels = pdf.render(0, 72, A_LOT)
    rows, columns = np.nonzero(pixels[:, :, 0] < 128)
    assert columns.min() >= box[0] - 2
    assert columns.max() <= box[2] + 2
    assert rows.min() >= box[1] - 2
    assert rows.max() <= box[3] + 2
    assert max(columns.max() - columns.min(), rows.max() - rows.min()) > 180


def test_a_picture_lies_at_its_box_and_a_page_is_taken_over_whole(digital: Path, tmp_path: Path) -> None:
    landscape().save(tmp_path / "picture.jpg")
    placed = Picture(path=tmp_path / "picture.jpg", box=(100, 100, 400, 320))
    with open_pdf(digital) as source, new_pdf(load_font(), "") as writer:
        writer.add(FreshPage(width=595, height=842, pictures=[placed]))
        writer.take_over(source, 0)
        writer.save(tmp_path / "joined.pdf")
    with open_pdf(tmp_path / "joined.pdf") as pdf, open_pdf(digital) as source:
        pixels = pdf.render(0, 72, A_LOT)
        assert np.array_equal(pdf.render(1, 72, A_LOT), source.render(0, 72, A_LOT))
    assert pixels[90, 90].tolist() == [255, 255, 255]
    assert pixels[110, 110].tolist() != [255, 255, 255]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16"])
def test_pictures_of_every_mode_become_colour_upon_white(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "picture.tiff"
    if mode == "I;16":
        image = Image.fromarray(np.full((30, 40), 65535, np.uint16))
    else:
        image = Image.new("RGB", (40, 30), "white").convert(mode)
    image.save(path)
    frame = read_frame(path, 0, A_LOT)
    assert frame.pixels.shape == (30, 40, 3)
    assert frame.pixels.min() >= 250


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert read_frame(tmp_path / "clear.png", 0, A_LOT).pixels.min() == 255


def test_frames_are_read_one_by_one_and_reduced_to_the_bound(tmp_path: Path) -> None:
    shades = [Image.new("L", (200, 100), value) for value in (10, 120, 240)]
    shades[0].save(tmp_path / "many.tiff", save_all=True, append_images=shades[1:], dpi=(300, 300))
    frames = [read_frame(tmp_path / "many.tiff", number, 5000) for number in range(3)]
    assert [int(frame.pixels.mean()) for frame in frames] == [10, 120, 240]
    assert all(frame.pixels.shape == (50, 100, 3) for frame in frames)
    assert frames[0].dpi == pytest.approx(150)


def test_a_screen_resolution_says_nothing_of_paper(tmp_path: Path) -> None:
    Image.new("L", (200, 100)).save(tmp_path / "screen.png", dpi=(72, 72))
    assert read_frame(tmp_path / "screen.png", 0, A_LOT).dpi is None


def test_a_picture_that_would_fill_the_memory_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("RGB", (1, 1)).save(path)
    data = bytearray(path.read_bytes())
    struct.pack_into(">II", data, 16, 15_000, 11_000)
    struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    path.write_bytes(data)
    with pytest.raises(DocumentTooLarge, match="15000 x 11000"):
        read_frame(path, 0, A_LOT)


def test_a_picture_that_was_cut_off_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    landscape().save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BrokenDocument, match="Page 1"):
        read_frame(path, 0, A_LOT)
