"""New PDF files: pages taken over from another file as they are, and fresh pages of text, rules and pictures.

Text is drawn, not hidden, in one font that is embedded once: whatever reads the file must take it for the page's own.
Each character is its own code with its own entry in the font's Unicode map, so that a character for which the font has
no shape still reads back as itself.
"""

from __future__ import annotations

import ctypes
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pypdfium2
import pypdfium2.raw as pdfium_c

from docfleet.documents.pdf import PDFIUM, Pdf
from docfleet.errors import InternalError

#: Left, top, right, bottom in points, from the page's top left corner.
Box = tuple[float, float, float, float]

_RULE_WIDTH = 0.7
#: Stands for characters that the font has no shape for.
_STAND_IN = "\u25a1"
_EM = 1000.0
#: Where the baseline lies in a line, as a share of the type's size from its top.
_BASELINE = 0.8


@dataclass(frozen=True, kw_only=True)
class TextRun:
    """Characters in a row, stretched to fill their box."""

    text: str
    box: Box
    #: Height of the font in points.
    size: float
    #: Degrees clockwise: 0 reads to the right, 90 down, 270 up.
    turned: int = 0


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A JPEG stretched to its box."""

    path: Path
    box: Box


@dataclass(frozen=True, kw_only=True)
class FreshPage:
    """A page made from nothing; sizes in points."""

    width: float
    height: float
    runs: Sequence[TextRun] = ()
    rules: Sequence[Box] = ()
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True)
class TrueTypeFont:
    """A TrueType font file and what a writer has to know of it."""

    data: bytes
    #: Glyph number by code point.
    glyphs: Mapping[int, int]
    #: Advance width by code point, in thousandths of the font's size.
    widths: Mapping[int, float]
    default_width: float

    def glyph(self, char: str) -> int:
        """Return the glyph that shows a character, or a stand-in."""
        return self.glyphs.get(ord(char)) or self.glyphs.get(ord(_STAND_IN), 0)

    def width(self, char: str) -> float:
        """Return the advance width of what shows a character, in thousandths of the font's size."""
        shown = char if ord(char) in self.glyphs else _STAND_IN
        return float(self.widths.get(ord(shown), self.default_width))


class PdfWriter:
    """A PDF under construction. Only `new_pdf` makes one."""

    def __init__(self, handle: Any, font: TrueTypeFont, characters: Iterable[str]) -> None:
        self._handle = handle
        self._font = font
        #: Code 0 is every font's "no such character".
        self._codes = {char: code for code, char in enumerate(sorted(set(characters)), start=1)}
        self._pdf_font: Any = None

    def take_over(self, source: Pdf, page: int) -> None:
        """Append a page of another file, with all that is on it.

        Raises:
            BrokenDocument: the page cannot be taken over.
        """
        source.copy_page(page, self._handle)

    def add(self, page: FreshPage) -> None:
        """Append a fresh page."""
        made = self._handle.new_page(page.width, page.height)
        try:
            for picture in page.pictures:
                self._draw_picture(made, picture, page.height)
            for rule in page.rules:
                self._draw_rule(made, rule, page.height)
            for run in page.runs:
                self._draw_run(made, run, page.height)
            made.gen_content()
        finally:
            made.close()

    def save(self, path: Path) -> None:
        """Write the file."""
        with path.open("wb") as file:
            self._handle.save(file)

    def _draw_picture(self, page: Any, picture: Picture, height: float) -> None:
        left, top, right, bottom = picture.box
        item = pypdfium2.PdfImage.new(self._handle)
        item.load_jpeg(io.BytesIO(picture.path.read_bytes()), inline=True)
        item.set_matrix(pypdfium2.PdfMatrix(right - left, 0, 0, bottom - top, left, height - bottom))
        page.insert_obj(item)

    def _draw_rule(self, page: Any, rule: Box, height: float) -> None:
        left, top, right, bottom = rule
        path = pdfium_c.FPDFPageObj_CreateNewPath(left, height - top)
        pdfium_c.FPDFPath_LineTo(path, right, height - bottom)
        pdfium_c.FPDFPath_SetDrawMode(path, pdfium_c.FPDF_FILLMODE_NONE, True)
        pdfium_c.FPDFPageObj_SetStrokeWidth(path, _RULE_WIDTH)
        pdfium_c.FPDFPage_InsertObject(page, path)

    def _draw_run(self, page: Any, run: TextRun, height: float) -> None:
        natural = sum(self._font.width(char) for char in run.text) * run.size / _EM
        if natural <= 0:
            return
        left, top, right, bottom = run.box
        length, depth = (right - left, bottom - top) if run.turned in (0, 180) else (bottom - top, right - left)
        stretch = length / natural
        drop = (depth - run.size) / 2 + _BASELINE * run.size
        x, y = {
            0: (left, height - top - drop),
            90: (right - drop, height - top),
            180: (right, height - bottom + drop),
            270: (left + drop, height - bottom),
        }[run.turned]
        angle = -math.radians(run.turned)
        cos, sin = round(math.cos(angle)), round(math.sin(angle))
        item = pdfium_c.FPDFPageObj_CreateTextObj(self._handle, self._loaded_font(), run.size)
        codes = [self._codes[char] for char in run.text]
        pdfium_c.FPDFText_SetCharcodes(item, (ctypes.c_uint32 * len(codes))(*codes), len(codes))
        matrix = pdfium_c.FS_MATRIX(cos * stretch, sin * stretch, -sin, cos, x, y)
        pdfium_c.FPDFPageObj_SetMatrix(item, ctypes.byref(matrix))
        pdfium_c.FPDFPage_InsertObject(page, item)

    def _loaded_font(self) -> Any:
        if self._pdf_font is None:
            glyphs = bytearray(2)
            for char in self._codes:
                glyphs += self._font.glyph(char).to_bytes(2, "big")
            self._pdf_font = pdfium_c.FPDFText_LoadCidType2Font(
                self._handle,
                (ctypes.c_uint8 * len(self._font.data)).from_buffer_copy(self._font.data),
                len(self._font.data),
                _unicode_map(self._codes),
                (ctypes.c_uint8 * len(glyphs)).from_buffer(glyphs),
                len(glyphs),
            )
            if not self._pdf_font:
                raise InternalError("The font for recognised text cannot be loaded.")
        return self._pdf_font


@contextmanager
def new_pdf(font: TrueTypeFont, characters: Iterable[str]) -> Iterator[PdfWriter]:
    """Begin a PDF whose fresh pages will use no other characters than these."""
    with PDFIUM:
        handle = pypdfium2.PdfDocument.new()
        writer = PdfWriter(handle, font, characters)
        try:
            yield writer
        finally:
            if writer._pdf_font:
                pdfium_c.FPDFFont_Close(writer._pdf_font)
            handle.close()


def _unicode_map(codes: dict[str, int]) -> bytes:
    lines = [f"<{code:04X}> <{char.encode('utf-16-be').hex().upper()}>" for char, code in codes.items()]
    # A block of a CMap holds at most 100 entries.
    blocks = [lines[start : start + 100] for start in range(0, len(lines), 100)]
    body = "\n".join(f"{len(block)} beginbfchar\n" + "\n".join(block) + "\nendbfchar" for block in blocks)
    return (
        "/CIDInit /ProcSet findresource begin\n12 dict begin\nbegincmap\n"
        "/CIDSystemInfo << /Registry (Adobe) /Ordering (UCS) /Supplement 0 >> def\n"
        "/CMapName /Adobe-Identity-UCS def\n/CMapType 2 def\n"
        f"1 begincodespacerange\n<0000> <FFFF>\nendcodespacerange\n{body}\n"
        "endcmap\nCMapName currentdict /CMap defineresource pop\nend\nend"
    ).encode("ascii")
