"""Scans of the tests' own making: typeset, drawn as pixels, a little askew and grey, bound into a PDF."""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path
from random import Random

import pypdfium2
from PIL import Image, ImageFilter
from reportlab.lib.pagesizes import A4, landscape
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Paragraph

_WORDS = ("orchard", "valley", "harvest", "ledger", "winter", "keeper", "ladder", "meadow", "market", "barrel")


def make_scan(
    path: Path,
    pages: int,
    *,
    digital: Collection[int] = (),
    turned: Collection[int] = (),
    lines: int = 12,
    picture: int = -1,
) -> Path:
    """A PDF of which the pages of `digital` keep their text; those of `turned` lie on their side.

    The page `picture` has a photograph at its foot.
    """
    canvas = Canvas(str(path), pagesize=A4, invariant=1)
    for page in range(pages):
        if page in digital:
            _typeset(canvas, page, lines)
        else:
            size = landscape(A4) if page in turned else A4
            canvas.setPageSize(size)
            canvas.drawImage(
                ImageReader(_picture(page, lines, on_its_side=page in turned, photograph=page == picture)), 0, 0, *size
            )
        canvas.showPage()
        canvas.setPageSize(A4)
    canvas.save()
    return path


def _typeset(canvas: Canvas, page: int, lines: int) -> None:
    styles, prose, top = getSampleStyleSheet(), Random(page), 780.0
    heading = Paragraph(f"Chapter {page + 1} of the {prose.choice(_WORDS)}", styles["Heading1"])
    body = " ".join(prose.choice(_WORDS) for _ in range(lines * 11))
    for flowable in (heading, Paragraph(f"Marker{page:03d} {body}.", styles["BodyText"])):
        _, height = flowable.wrap(450, 700)
        top -= height + 12
        flowable.drawOn(canvas, 72, top)


def _picture(page: int, lines: int, *, on_its_side: bool, photograph: bool = False) -> io.BytesIO:
    typeset = io.BytesIO()
    canvas = Canvas(typeset, pagesize=A4, invariant=1)
    _typeset(canvas, page, lines)
    canvas.save()
    sheet = pypdfium2.PdfDocument(typeset)[0].render(scale=150 / 72).to_pil().convert("L")
    if photograph:
        noise = Image.frombytes("L", (60, 40), Random(page).randbytes(2400))
        sheet.paste(noise.resize((600, 400), Image.Resampling.BICUBIC), (300, 1100))
    sheet = sheet.rotate(0.4, fillcolor=245, resample=Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(0.5))
    sheet = sheet.rotate(90, expand=True) if on_its_side else sheet
    out = io.BytesIO()
    sheet.point(lambda value: min(value, 245)).save(out, "JPEG", quality=60)
    out.seek(0)
    return out
