from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from docfleet.documents import frames
from docfleet.documents.archive import ArchiveLimits, check_archive
from docfleet.documents.entities import PROLOG_LIMIT, check_prolog
from docfleet.documents.inspection import inspect
from docfleet.errors import BrokenDocument, DocfleetError, DocumentTooLarge, HostileDocument
from tests import made_documents as made

MB = 1024 * 1024
SMALL = ArchiveLimits(entries=50, unpacked=4 * MB, ratio=20, ratio_from=2 * MB, depth=1)


def put(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "upload.part"
    path.write_bytes(content)
    return path


def test_an_ordinary_office_file_passes(tmp_path: Path) -> None:
    check_archive(put(tmp_path, made.word()))


def test_an_archive_that_unpacks_to_far_more_than_it_weighs_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, made.office(parts={"word/filler.xml": b"\0" * (80 * MB)}))
    assert path.stat().st_size < MB
    with pytest.raises(HostileDocument, match="150 times"):
        inspect(path, "x.docx")


def test_small_files_may_be_all_blanks(tmp_path: Path) -> None:
    check_archive(put(tmp_path, made.office(parts={"word/filler.xml": b"\0" * MB})), SMALL)


def test_an_archive_over_the_total_is_refused_however_well_it_packs(tmp_path: Path) -> None:
    noise = zlib.compress(b"x") + b"".join(struct.pack("<I", zlib.crc32(b"%d" % n)) for n in range(MB + 10))
    with pytest.raises(HostileDocument, match="more than 4 MB"):
        check_archive(put(tmp_path, made.archive({"a": noise})), SMALL)


def test_what_an_archive_says_of_its_sizes_is_checked_before_anything_is_unpacked(tmp_path: Path) -> None:
    claims = made.with_false_size(made.office(), "word/document.xml", 5 * MB)
    with pytest.raises(HostileDocument):
        check_archive(put(tmp_path, claims), SMALL)


def test_an_archive_that_lies_about_its_sizes_is_refused_before_it_unpacks_more(tmp_path: Path) -> None:
    bomb = made.office(parts={"word/filler.xml": b"\0" * (20 * MB)})
    with pytest.raises(DocfleetError) as caught:
        check_archive(put(tmp_path, made.with_false_size(bomb, "word/filler.xml", 1000)), SMALL)
    assert isinstance(caught.value, BrokenDocument | HostileDocument)


def test_parts_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HostileDocument, match="overlap"):
        inspect(put(tmp_path, made.overlapping()), "x.docx")


def test_an_archive_with_too_many_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HostileDocument, match="more than 50 parts"):
        check_archive(put(tmp_path, made.archive({str(number): "" for number in range(51)})), SMALL)


def test_archives_within_archives_count_with_the_outer_one(tmp_path: Path) -> None:
    inner = made.archive({f"{number}": b"\0" * MB for number in range(3)})
    check_archive(put(tmp_path, made.archive({"a": made.sheet()})), SMALL)
    with pytest.raises(HostileDocument):
        check_archive(put(tmp_path, made.archive({"a": inner, "b": inner})), SMALL)


def test_archives_nested_too_deeply_are_refused(tmp_path: Path) -> None:
    nested = made.archive({"a": made.archive({"a": made.archive({"a": "x"})})})
    with pytest.raises(HostileDocument, match="archives within"):
        check_archive(put(tmp_path, nested), SMALL)


def test_an_attachment_that_cannot_be_read_leaves_the_document_readable(tmp_path: Path) -> None:
    check_archive(put(tmp_path, made.office(parts={"word/embeddings/a.xlsx": made.sheet()[:900]})))


def test_nothing_stays_beside_the_file(tmp_path: Path) -> None:
    check_archive(put(tmp_path, made.archive({"a": made.sheet()})))
    assert [path.name for path in tmp_path.iterdir()] == ["upload.part"]


def test_a_damaged_part_makes_the_document_broken(tmp_path: Path) -> None:
    content = bytearray(made.word())
    content[content.index(b"word/document.xml") + 60] ^= 0xFF
    with pytest.raises(BrokenDocument):
        check_archive(put(tmp_path, bytes(content)))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_billion_laughs_are_refused_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    text = made.laughs().replace(' version="1.0"', f' version="1.0" encoding="{encoding.removesuffix("-sig")}"')
    with pytest.raises(HostileDocument, match="entities"):
        inspect(put(tmp_path, made.office(parts={"word/styles.xml": text.encode(encoding)})), "x.docx")


@pytest.mark.parametrize("part", ["[Content_Types].xml", "_rels/.rels", "word/document.xml", "word/any.bin"])
def test_a_billion_laughs_are_refused_in_every_part(tmp_path: Path, part: str) -> None:
    with pytest.raises(HostileDocument):
        inspect(put(tmp_path, made.office(parts={part: made.laughs()})), "x.docx")


@pytest.mark.parametrize(
    "head",
    [
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
        '<!DOCTYPE a [<!ENTITY % x "y">]><a/>',
        f'<!DOCTYPE a [<!ENTITY x "{"y" * 1000}">]><a/>',
        f"<!-- {' ' * PROLOG_LIMIT} --><a/>",
        " " * PROLOG_LIMIT + "<a/>",
        "<!doctype html><p> <br <!ENTITY x 'y'>",
    ],
)
def test_other_xml_that_is_built_to_explode_or_to_hide_is_refused(head: str) -> None:
    with pytest.raises(HostileDocument):
        check_prolog(head.encode()[:PROLOG_LIMIT], "x.xml")


def test_xml_in_ebcdic_is_refused_because_not_every_reader_sees_the_same_in_it() -> None:
    with pytest.raises(HostileDocument):
        check_prolog("<?xml version='1.0' encoding='cp037'?>".encode("cp037"), "x.xml")


@pytest.mark.parametrize(
    "head",
    [
        '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.1//EN" "http://www.w3.org/TR/xhtml11/DTD/xhtml11.dtd"><html/>',
        '<!DOCTYPE svg [<!ENTITY ns_svg "http://www.w3.org/2000/svg">]><svg xmlns="&ns_svg;"/>',
        "<a><![CDATA[<!ENTITY x SYSTEM 'y'>]]></a>",
        "<p>&lt;!ENTITY</p>",
        "<html><br>&nbsp;",
        "<<<",
        "",
        "no xml at all",
    ],
)
def test_harmless_xml_passes(head: str) -> None:
    check_prolog(head.encode(), "x.xml")


def test_a_billion_laughs_in_a_web_page_or_a_book_are_refused(tmp_path: Path) -> None:
    page = made.laughs().replace("<document>", "<html>").replace("</document>", "</html>").replace("lolz", "html")
    for content in (page.encode(), made.book({"text.xhtml": made.laughs()})):
        with pytest.raises(HostileDocument):
            inspect(put(tmp_path, content), "x.html")


def png(width: int, height: int) -> bytes:
    """A PNG that claims any size; its pixels are missing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(30_000, 10_000), (60_000, 60_000)])
def test_an_image_with_more_pixels_than_memory_holds_is_refused_unread(tmp_path: Path, size: tuple[int, int]) -> None:
    with pytest.raises(DocumentTooLarge):
        inspect(put(tmp_path, png(*size)), "x.png")


def test_an_image_without_its_pixels_is_broken(tmp_path: Path) -> None:
    with pytest.raises(BrokenDocument):
        inspect(put(tmp_path, png(100, 100)), "x.png")


def test_an_image_with_too_many_frames_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_FRAMES", 2)
    with pytest.raises(HostileDocument, match="3 frames"):
        inspect(put(tmp_path, made.image("TIFF", frames=3)), "x.tiff")


def test_the_last_frame_of_an_image_is_looked_at_too(tmp_path: Path) -> None:
    content = made.image("GIF", frames=3)
    with pytest.raises(BrokenDocument):
        inspect(put(tmp_path, content[:-200]), "x.gif")
