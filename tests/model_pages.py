"""Pages for the model path: on each a header, prose, a formula, a table, a page number; on some a heading or picture.

The blocks stand apart, as the made layout detector wants it, and what is on a page is drawn by its number alone. The
last paragraph of every other page goes on over the break, so that the document stage has something to join.
"""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path
from random import Random

import pypdfium2
from PIL import Image, ImageDraw
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, Paragraph, Table

_WORDS = ("sluice", "meadow", "ledger", "culvert", "gauge", "harbour", "lantern", "survey", "timber", "quarry")
_LEFT, _WIDTH = 72, 450
_STYLES = getSampleStyleSheet()


def make_pages(path: Path, pages: int, *, scanned: bool = False, black: Collection[int] = ()) -> Path:
    """Write a PDF.

    Args:
        path: where to.
        pages: how many.
        scanned: each page is a picture of itself, without text of its own.
        black: pages that are black all over; the made layout detector fails on them.
    """
    canvas = Canvas(str(path), pagesize=A4, invariant=1)
    for page in range(pages):
        if page in black:
            canvas.rect(0, 0, *A4, fill=1)
        elif scanned:
            canvas.drawImage(ImageReader(_picture_of(page)), 0, 0, *A4)
        else:
            _typeset(canvas, page)
        canvas.showPage()
    canvas.save()
    return path


def _picture_of(page: int) -> io.BytesIO:
    typeset, out = io.BytesIO(), io.BytesIO()
    canvas = Canvas(typeset, pagesize=A4, invariant=1)
    _typeset(canvas, page)
    canvas.save()
    pypdfium2.PdfDocument(typeset)[0].render(scale=150 / 72).to_pil().convert("L").save(out, "PNG")
    out.seek(0)
    return out


def _typeset(canvas: Canvas, page: int) -> None:
    prose = Random(page)
    top = 770.0

    def place(flowable: Flowable, gap: float = 30) -> None:
        nonlocal top
        _, height = flowable.wrap(_WIDTH, 700)
        top -= height + gap
        flowable.drawOn(canvas, _LEFT, top)

    canvas.setFont("Helvetica", 8)
    canvas.drawString(_LEFT, 812, "Survey of the lower valley")
    canvas.drawCentredString(297, 20, str(page + 1))
    if page % 2 == 0:
        place(Paragraph(f"{page + 1} The {prose.choice(_WORDS)} and the {prose.choice(_WORDS)}", _STYLES["Heading1"]))
    else:
        place(_two_halves(page - 1)[1])
    place(Paragraph(f"Marker{page:03d} " + _sentences(prose, 5), _STYLES["BodyText"]))
    canvas.setFont("Times-Italic", 13)
    top -= 45
    canvas.drawCentredString(297, top, f"{prose.choice('abcd')}{page} = {prose.choice('uvwx')} + {page * page}")
    rows = [[prose.choice(_WORDS), str(prose.randrange(1000)), f"{page}.{row}"] for row in range(1 + page % 4, 6)]
    place(Table([["Place", "Metres", "Grade"], *rows], colWidths=[150] * 3, style=[("GRID", (0, 0), (-1, -1), 1, 0)]))
    if page % 3 == 0:
        top -= 130
        canvas.drawImage(ImageReader(_drawing(page)), _LEFT + 90, top, 240, 100)
    place(Paragraph(_sentences(prose, 4), _STYLES["BodyText"]) if page % 2 else _two_halves(page)[0])


def _two_halves(page: int) -> list[Flowable]:
    """A paragraph that is cut in the middle of a sentence: what is on this page, and what is on the next."""
    words = " ".join(f"and the {word}" for word in _WORDS)
    paragraph = Paragraph(
        f"Part {page} of the survey is about the keeper {words} {words} {words}.", _STYLES["BodyText"]
    )
    halves: list[Flowable] = paragraph.split(_WIDTH, 3 * 12)
    return halves


def _drawing(page: int) -> Image.Image:
    picture = Image.new("RGB", (480, 200), (20, 40 + page, 90))
    draw = ImageDraw.Draw(picture)
    for number in range(page + 2):
        draw.ellipse((20 * number, 10 * number, 20 * number + 30, 10 * number + 30), fill=(90, 90, 9 * number % 100))
    return picture


def _sentences(prose: Random, count: int) -> str:
    return " ".join(
        f"The {prose.choice(_WORDS)} stands {prose.randrange(2, 90)} metres from the {prose.choice(_WORDS)}."
        for _ in range(count)
    )
