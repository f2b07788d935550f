"""Document stage: one PDF of digital pages as they are and recognised pages as text, read by MinerU flash as a whole.

Recognised text must be drawn: hidden behind the scan, MinerU takes the page for a picture.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import resources
from pathlib import Path

from docfleet.documents.pdf import open_pdf
from docfleet.documents.pdf_writer import FreshPage, PdfWriter, Picture, TextRun, TrueTypeFont, new_pdf
from docfleet.engine.embedded.ordering import aligned_rows, column_order
from docfleet.engine.embedded.parts import Box, GatheredPage, PageState
from docfleet.errors import BrokenDocument, InternalError

#: An open font with Latin, Greek, Cyrillic, Chinese, Japanese and Korean shapes; MinerU's PDF library ships it.
_FONT = ("docvortex", "resources/fonts/DroidSansFallbackFull.ttf")


def rebuild(source: Path, pages: Sequence[GatheredPage], target: Path) -> dict[int, str]:
    """Write the PDF.

    Args:
        source: the document as it came.
        pages: pages that did not fail, in order.
        target: the new file.

    Returns:
        Pages that turned out not to be copyable, with the cause; they are not in the file.
    """
    failed: dict[int, str] = {}
    characters = {char for page in pages for line in page.record.lines for char in line.text}
    with ExitStack() as stack:
        digital = any(page.record.state is PageState.DIGITAL for page in pages)
        original = stack.enter_context(open_pdf(source)) if digital else None
        writer = stack.enter_context(new_pdf(load_font(), characters))
        for page in pages:
            if page.record.state is PageState.RECOGNISED:
                _add_recognised(writer, page)
                continue
            try:
                assert original is not None
                writer.take_over(original, page.record.page)
            except BrokenDocument as exc:
                failed[page.record.page] = exc.message
        writer.save(target)
    return failed


def load_font() -> TrueTypeFont:
    """Load the font for recognised text.

    Raises:
        InternalError: the installation lacks it.
    """
    from reportlab.pdfbase.ttfonts import TTFontFile

    package, name = _FONT
    path = resources.files(package).joinpath(*name.split("/"))
    if not path.is_file():
        raise InternalError("The font for recognised text is not installed: install mineru anew.")
    with resources.as_file(path) as file:
        font = TTFontFile(str(file))
    return TrueTypeFont(
        data=with_extent(path.read_bytes(), ascent=0.8, descent=0.2),
        glyphs=font.charToGlyph,
        widths=font.charWidths,
        default_width=font.defaultWidth,
    )


def with_extent(font: bytes, *, ascent: float, descent: float) -> bytes:
    """Return a TrueType font that claims to reach so far above and below the baseline (shares of its size).

    Fonts for many scripts claim 1.3 times their size: lines of ordinary pitch would overlap, and MinerU would take
    lines side by side in two columns for one.
    """
    data = bytearray(font)
    tables = {}
    for index in range(struct.unpack_from(">H", data, 4)[0]):
        tag, _, offset, _ = struct.unpack_from(">4sIII", data, 12 + 16 * index)
        tables[tag] = offset
    (units,) = struct.unpack_from(">H", data, tables[b"head"] + 18)
    above, below = round(ascent * units), round(descent * units)
    struct.pack_into(">hh", data, tables[b"hhea"] + 4, above, -below)
    struct.pack_into(">hh", data, tables[b"OS/2"] + 68, above, -below)
    struct.pack_into(">HH", data, tables[b"OS/2"] + 74, above, below)
    return bytes(data)


def _add_recognised(writer: PdfWriter, page: GatheredPage) -> None:
    record = page.record
    level = [index for index, line in enumerate(record.lines) if not line.turned]
    boxes = [line.box for line in record.lines]
    for index, box in zip(level, aligned_rows([boxes[index] for index in level]), strict=True):
        boxes[index] = box
    order = column_order([_core(box) for box in boxes])
    runs = [
        TextRun(text=line.text, box=boxes[index], size=line.size, turned=line.turned)
        for index, line in ((index, record.lines[index]) for index in order)
    ]
    writer.add(
        FreshPage(
            width=record.width,
            height=record.height,
            runs=runs,
            rules=record.rules,
            pictures=[Picture(path=page.folder / item.file, box=item.box) for item in record.pictures],
        )
    )


def _core(box: Box) -> Box:
    """Boxes of neighbouring lines overlap at their edges; their cores do not."""
    margin = (box[3] - box[1]) / 4
    return box[0], box[1] + margin, box[2], box[3] - margin
