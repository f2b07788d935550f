"""Make the three documents of the demo. Run by hand when they should change: `python samples/make.py`."""

from __future__ import annotations

import io
from pathlib import Path

import docx
import pypdfium2
from PIL import Image, ImageFilter
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

HERE = Path(__file__).resolve().parent
STYLES = getSampleStyleSheet()

REPORT = [
    ("Title", "Groundwater in the Lower Valley"),
    ("Heading2", "1. What was measured"),
    (
        "BodyText",
        "Between March and October, forty-two wells were read every Monday morning. The readings were taken by hand "
        "with a tape, written down on site, and entered into the register on the same day. Two wells dried up in "
        "August and were left out from then on.",
    ),
    ("Heading2", "2. What was found"),
    (
        "BodyText",
        "The water table fell by eleven centimetres over the summer, less than in the three years before. Wells "
        "near the river followed its level within a day, wells on the terrace only after a week.",
    ),
]
LEVELS = [
    ["Well", "March (m)", "July (m)", "October (m)"],
    ["North 1", "3.42", "3.51", "3.47"],
    ["North 2", "2.98", "3.10", "3.05"],
    ["Terrace 7", "6.20", "6.24", "6.33"],
]
LETTER = [
    ("Heading2", "To the municipal archive"),
    (
        "BodyText",
        "Dear Madam or Sir, enclosed you will find the logbooks of the pumping station for the years 1961 to 1974. "
        "The bindings are worn, and some pages of the second volume have come loose. Please handle them with care.",
    ),
    (
        "BodyText",
        "We would be glad to receive a copy of the pages that describe the flood of February 1962, because our own "
        "were lost when the cellar was flooded that same night. We thank you for your trouble.",
    ),
    ("BodyText", "With kind regards, the keeper of the station"),
]


def flow(target: io.BytesIO | str, parts: list[tuple[str, str]], table: list[list[str]] | None = None) -> None:
    story = []
    for style, text in parts:
        story += [Paragraph(text, STYLES[style]), Spacer(1, 10)]
    if table:
        grid = TableStyle([("GRID", (0, 0), (-1, -1), 0.5, colors.grey), ("FONT", (0, 0), (-1, 0), "Helvetica-Bold")])
        story.append(Table(table, style=grid, hAlign="LEFT"))
    SimpleDocTemplate(target, pagesize=A4, invariant=1).build(story)


def make_scan(path: Path) -> None:
    typeset = io.BytesIO()
    flow(typeset, LETTER)
    page = pypdfium2.PdfDocument(typeset)[0].render(scale=150 / 72).to_pil().convert("L")
    # A sheet on the glass is never quite straight, nor quite white.
    page = page.rotate(0.6, fillcolor=245, resample=Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(0.6))
    picture = io.BytesIO()
    page.point(lambda value: min(value, 245)).save(picture, "JPEG", quality=55)
    canvas = Canvas(str(path), pagesize=A4, invariant=1)
    canvas.drawImage(ImageReader(picture), 0, 0, *A4)
    canvas.save()


def make_minutes(path: Path) -> None:
    document = docx.Document()
    document.add_heading("Minutes of the spring meeting", level=1)
    document.add_paragraph("Present were nine members and two guests. The minutes of the last meeting were accepted.")
    document.add_heading("Decisions", level=2)
    for decision in ("The pump house gets a new roof.", "The register is to be digitised by the end of the year."):
        document.add_paragraph(decision, style="List Bullet")
    rows = [("Task", "Who", "Until"), ("Offers for the roof", "Ms Brandt", "June"), ("Scanner", "Mr Okoye", "May")]
    table = document.add_table(rows=0, cols=3, style="Table Grid")
    for row in rows:
        for cell, text in zip(table.add_row().cells, row, strict=True):
            cell.text = text
    document.save(str(path))


if __name__ == "__main__":
    flow(str(HERE / "report.pdf"), REPORT, LEVELS)
    make_scan(HERE / "letter-scan.pdf")
    make_minutes(HERE / "minutes.docx")
