from __future__ import annotations

import gzip
import shutil
import struct
from pathlib import Path

import olefile
import pytest

from docfleet.documents.inspection import Inspection, inspect
from docfleet.documents.kinds import KINDS
from docfleet.errors import BrokenDocument, DocfleetError, EmptyDocument, EncryptedDocument, UnsupportedType
from tests import made_documents as made

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
MACRO_WORD = "ms-word.document.macroEnabled.main+xml"
SLIDES = "openxmlformats-officedocument.presentationml.slideshow.main+xml"
MHTML = (
    b"From: <Saved by Browser>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/related;\r\n\tboundary=x\r\n\r\n--x--"
)


def look(tmp_path: Path, content: bytes, filename: str = "x") -> Inspection:
    path = tmp_path / "upload.part"
    path.write_bytes(content)
    return inspect(path, filename)


def refusal(tmp_path: Path, content: bytes, filename: str = "x") -> DocfleetError:
    with pytest.raises(DocfleetError) as caught:
        look(tmp_path, content, filename)
    return caught.value


GOOD = {
    "pdf": made.pdf(),
    "png": made.image("PNG"),
    "jpg": made.image("JPEG"),
    "tiff": made.image("TIFF"),
    "webp": made.image("WEBP"),
    "bmp": made.image("BMP"),
    "gif": made.image("GIF"),
    "jp2": made.image("JPEG2000"),
    "docx": made.word(),
    "xlsx": made.sheet(),
    "pptx": made.office(SLIDES, "ppt/presentation.xml"),
    "odt": made.open_document("text"),
    "ods": made.open_document("spreadsheet-template"),
    "odp": made.open_document("presentation"),
    "epub": made.book(),
    "ofd": made.archive({"OFD.xml": "<OFD/>", "Doc_0/Document.xml": "<Document/>"}),
    "rtf": rb"{\rtf1\ansi hello}",
    "html": b"<!DOCTYPE html><p>hello</p>",
    "mhtml": MHTML,
    "csv": b"name,age\nAda,36\n",
    "tsv": b"name\tage\nAda\t36\n",
}


@pytest.mark.parametrize("suffix", sorted(GOOD))
@pytest.mark.parametrize("filename", ["x", "x.pdf", "x.docx", "x.png"])
def test_the_type_is_told_by_the_content_whatever_the_name(tmp_path: Path, suffix: str, filename: str) -> None:
    assert look(tmp_path, GOOD[suffix], filename) == Inspection(suffix=suffix, pages=1)


@pytest.mark.parametrize("name", ["doc", "xls", "ppt", "odt", "ods", "odp", "pptx", "rtf"])
def test_files_of_a_real_office_program_are_recognised(tmp_path: Path, name: str) -> None:
    packed = SAMPLES / f"harvest.{name}.gz"
    content = gzip.decompress(packed.read_bytes()) if packed.exists() else (SAMPLES / f"harvest.{name}").read_bytes()
    assert look(tmp_path, content).suffix == name


def test_every_type_that_is_promised_is_tried_here() -> None:
    assert set(GOOD) | {"doc", "xls", "ppt"} == KINDS


def test_every_type_is_one_that_the_parser_knows() -> None:
    from mineru.filetypes import PARSEABLE_EXTENSIONS

    assert KINDS <= PARSEABLE_EXTENSIONS


@pytest.mark.parametrize(
    ("content", "filename", "suffix"),
    [
        (made.office(MACRO_WORD), "x.docm", "docx"),
        (made.office(main="custom/place.xml"), "x", "docx"),
        (b"\r\n%PDF-" + made.pdf()[5:], "x", "pdf"),
        (b"%!PJL job\r\n" + made.pdf(), "x", "pdf"),
        (b"BM,kg\n1,2\n", "x", "csv"),
        ("\ufeffa;b\n1;2\n".encode(), "x.txt", "csv"),
        ("a\tb\n1\t2\n".encode("utf-16"), "x", "tsv"),
        ("名称,年龄\n王,36\n".encode("gb18030"), "x", "csv"),
        (b'"a, with comma","b\nand line"\n1,2\n', "x", "csv"),
        (b"just one column\nof words\n", "x.csv", "csv"),
        (b"a,b\n1,2\n", "x.tsv", "tsv"),
        (b"<p>a,b</p>", "x.csv", "html"),
        (b"<!-- saved --><?xml version='1.0'?>\n<HTML>", "x", "html"),
        (b"hello <b>world</b>", "x.html", "html"),
    ],
)
def test_odd_but_good_files_are_recognised(tmp_path: Path, content: bytes, filename: str, suffix: str) -> None:
    assert look(tmp_path, content, filename).suffix == suffix


@pytest.mark.parametrize(
    ("content", "filename"),
    [
        (b"Dear Sir, or Madam,\nhello\n", "x.txt"),
        (b"a, b\nc, d\n", "notes.md"),
        (b'{"a": 1, "b": 2}\n{"a": 3, "b": 4}\n', "x"),
        (b"hello <b>world</b>", "x"),
        (b"plain", "x.html"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "x.csv"),
        (b"a,b\n1,\0\n", "x.csv"),
        (b"\x00\x01\x02" * 99, "x.pdf"),
        (made.archive({"a.pdf": made.pdf()}), "x.docx"),
        (made.archive({}), "x.docx"),
        (made.office("ms-excel.sheet.binary.macroEnabled.main"), "x.xlsb"),
        (b"Rar!\x1a\x07\x01\x00", "x.pdf"),
        (b"\0\0\0\x1cftypheic" + b"\0" * 20, "x.jpg"),
        (b"\x7fELF" + b"\0" * 60, "x"),
    ],
)
def test_what_nobody_reads_is_refused_with_the_list_of_what_is(tmp_path: Path, content: bytes, filename: str) -> None:
    error = refusal(tmp_path, content, filename)
    assert isinstance(error, UnsupportedType)
    assert "Word" in error.message


@pytest.mark.parametrize("content", [b"", b" \n\t\r\n", "\ufeff\n".encode()])
def test_a_file_without_content_is_empty(tmp_path: Path, content: bytes) -> None:
    assert isinstance(refusal(tmp_path, content, "x.csv"), EmptyDocument)


@pytest.mark.parametrize("suffix", sorted(set(GOOD) - {"rtf", "html", "mhtml", "csv", "tsv", "jp2"}))
def test_a_file_that_was_cut_off_is_broken(tmp_path: Path, suffix: str) -> None:
    content = GOOD[suffix]
    assert isinstance(refusal(tmp_path, content[: len(content) * 2 // 3]), BrokenDocument)


def test_an_office_file_without_its_main_description_is_broken(tmp_path: Path) -> None:
    assert isinstance(refusal(tmp_path, made.archive({"[Content_Types].xml": "<Types/>"})), BrokenDocument)
    assert isinstance(refusal(tmp_path, made.office(parts={"_rels/.rels": "<a"})), BrokenDocument)


def test_pages_of_a_pdf_and_frames_of_an_image_are_counted(tmp_path: Path) -> None:
    assert look(tmp_path, made.pdf(7)).pages == 7
    assert look(tmp_path, made.image("TIFF", frames=3)).pages == 3
    assert look(tmp_path, made.image("GIF", frames=2)).pages == 2
    assert look(tmp_path, made.image("WEBP", frames=4)).pages == 4


MANIFEST = '<manifest xmlns:m="urn:x"><m:file-entry m:full-path="content.xml">{}</m:file-entry></manifest>'
PROTECTED = '<encryption><EncryptedData><EncryptionMethod Algorithm="{}"/></EncryptedData></encryption>'


@pytest.mark.parametrize(
    "content",
    [
        made.pdf(password="secret"),
        made.open_document("text", MANIFEST.format("<m:encryption-data/>")),
        made.book({"META-INF/encryption.xml": PROTECTED.format("http://www.w3.org/2001/04/xmlenc#aes128-cbc")}),
        # Bit 0 of the flags of every part.
        made.word().replace(b"PK\x03\x04\x14\0\0", b"PK\x03\x04\x14\0\1").replace(b"\x14\0\0\0\x08", b"\x14\0\1\0\x08"),
    ],
)
def test_a_file_that_asks_for_a_password_is_told_apart(tmp_path: Path, content: bytes) -> None:
    error = refusal(tmp_path, content)
    assert isinstance(error, EncryptedDocument), error


def test_a_book_whose_fonts_are_scrambled_asks_for_no_password(tmp_path: Path) -> None:
    scrambled = PROTECTED.format("http://www.idpf.org/2008/embedding")
    assert look(tmp_path, made.book({"META-INF/encryption.xml": scrambled})).suffix == "epub"
    assert look(tmp_path, made.open_document("text", MANIFEST.format(""))).suffix == "odt"


def test_older_office_files_that_ask_for_a_password_are_told_apart(tmp_path: Path) -> None:
    changes = {
        "doc": ("WordDocument", 10, struct.pack("<H", 0x0100)),
        # The second record of the workbook becomes FILEPASS.
        "xls": ("Workbook", 20, struct.pack("<H", 0x002F)),
    }
    for suffix, (stream, place, change) in changes.items():
        path = tmp_path / f"x.{suffix}"
        shutil.copy(SAMPLES / f"harvest.{suffix}", path)
        with olefile.OleFileIO(str(path), write_mode=True) as compound:
            content = bytearray(compound.openstream(stream).read())
            content[place : place + len(change)] = change
            compound.write_stream(stream, bytes(content))
        with pytest.raises(EncryptedDocument):
            inspect(path, "x")


def test_a_new_office_file_with_a_password_is_told_apart(tmp_path: Path) -> None:
    # Office wraps such a file into a compound file with a stream of this name.
    content = bytearray((SAMPLES / "harvest.doc").read_bytes())
    entry = content.index("WordDocument".encode("utf-16-le"))
    name = "EncryptedPackage".encode("utf-16-le") + b"\0\0"
    content[entry : entry + len(name)] = name
    struct.pack_into("<H", content, entry + 64, len(name))
    assert isinstance(refusal(tmp_path, bytes(content)), EncryptedDocument)


def test_a_compound_file_of_another_program_is_no_document(tmp_path: Path) -> None:
    content = (SAMPLES / "harvest.doc").read_bytes()
    other = content.replace("WordDocument".encode("utf-16-le"), "WordDocumenX".encode("utf-16-le"))
    assert isinstance(refusal(tmp_path, other), UnsupportedType)


def test_a_compound_file_that_was_cut_off_is_broken(tmp_path: Path) -> None:
    content = (SAMPLES / "harvest.xls").read_bytes()
    assert isinstance(refusal(tmp_path, content[:1500]), BrokenDocument)
