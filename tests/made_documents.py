"""Documents of the tests' own making, good and bad."""

from __future__ import annotations

import io
import itertools
import struct
import zipfile
from collections.abc import Mapping

import docx
import openpyxl
import pikepdf
from PIL import Image


def pdf(pages: int = 1, password: str | None = None) -> bytes:
    with pikepdf.new() as made:
        for _ in range(pages):
            made.add_blank_page(page_size=(200, 300))
        out = io.BytesIO()
        if password is None:
            made.save(out)
        else:
            made.save(out, encryption=pikepdf.Encryption(owner=password, user=password))
        return out.getvalue()


def image(kind: str, frames: int = 1, size: tuple[int, int] = (40, 30)) -> bytes:
    shades = [Image.effect_noise(size, 40 + 10 * number).convert("L") for number in range(frames)]
    out = io.BytesIO()
    more = {"save_all": True, "append_images": shades[1:]} if frames > 1 else {}
    shades[0].save(out, kind, **more)
    return out.getvalue()


def archive(parts: Mapping[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as made:
        for name, content in parts.items():
            made.writestr(name, content)
    return out.getvalue()


def word(text: str = "Good morning.") -> bytes:
    made = docx.Document()
    made.add_paragraph(text)
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()


def sheet() -> bytes:
    made = openpyxl.Workbook()
    assert made.active is not None
    made.active["A1"] = 42
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()


RELATIONS = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1" '
    'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="{}"/>'
    "</Relationships>"
)
TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="xml" ContentType="application/xml"/>'
    '<Override PartName="/{}" ContentType="application/vnd.{}"/></Types>'
)
WORD_TYPE = "openxmlformats-officedocument.wordprocessingml.document.main+xml"


def office(
    content_type: str = WORD_TYPE, main: str = "word/document.xml", parts: Mapping[str, bytes | str] | None = None
) -> bytes:
    """A package with the given main part; `parts` are added or take the place of its own."""
    own: dict[str, bytes | str] = {
        "[Content_Types].xml": TYPES.format(main, content_type),
        "_rels/.rels": RELATIONS.format(main),
        main: "<document/>",
    }
    return archive({**own, **(parts or {})})


def open_document(kind: str, manifest: str | None = None) -> bytes:
    parts = {"mimetype": f"application/vnd.oasis.opendocument.{kind}", "content.xml": "<office/>"}
    return archive(parts if manifest is None else parts | {"META-INF/manifest.xml": manifest})


def book(parts: Mapping[str, bytes | str] | None = None) -> bytes:
    doctype = '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.1//EN" "http://www.w3.org/TR/xhtml11/DTD/xhtml11.dtd">'
    own: dict[str, bytes | str] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": "<container/>",
        "text.xhtml": f"{doctype}<html/>",
    }
    return archive({**own, **(parts or {})})


def laughs() -> str:
    """Ten entities, each naming the one before ten times."""
    names = [f"lol{number}" for number in range(10)]
    declared = [f'<!ENTITY {names[0]} "lol">']
    declared += [f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in itertools.pairwise(names)]
    return f'<?xml version="1.0"?><!DOCTYPE lolz [{"".join(declared)}]><document>&{names[-1]};</document>'


def overlapping(copies: int = 50, size: int = 1024 * 1024) -> bytes:
    """An archive whose directory names the same packed bytes many times."""
    single = office(parts={"word/filler.xml": b"\0" * size})
    end = single.rindex(b"PK\x05\x06")
    directory_size, directory_at = struct.unpack_from("<II", single, end + 12)
    directory = single[directory_at : directory_at + directory_size]
    last = directory[directory.rindex(b"PK\x01\x02") :]
    longer = directory + last * copies
    count = struct.unpack_from("<H", single, end + 10)[0] + copies
    tail = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(longer), directory_at, 0)
    return single[:directory_at] + longer + tail


def with_false_size(data: bytes, part: str, size: int) -> bytes:
    """The archive, with a part that claims to unpack to `size` bytes, in the directory and in its own header."""
    with zipfile.ZipFile(io.BytesIO(data)) as made:
        header = made.getinfo(part).header_offset
        directory = made.start_dir
    changed = bytearray(data)
    struct.pack_into("<I", changed, header + 22, size)
    entry = data.index(part.encode(), directory) - 46
    struct.pack_into("<I", changed, entry + 24, size)
    return bytes(changed)
