"""PDFs of many shapes, made alike on every machine: what a cut could tear apart is in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pikepdf
from reportlab.lib.pagesizes import A3, A4, A5, landscape
from reportlab.lib.styles import ParagraphStyle, getSampleStyleSheet
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    BaseDocTemplate,
    Frame,
    ListFlowable,
    PageBreak,
    PageTemplate,
    Paragraph,
    SimpleDocTemplate,
    Table,
)

from tests.scans import make_scan

_WORDS = [
    *("orchard", "valley", "harvest", "ledger", "winter", "keeper", "ladder", "meadow", "market", "barrel", "river"),
    *("engine", "report", "pump", "house", "station", "stream", "gauge", "lantern", "harbour", "clerk", "ferry"),
    *("tide", "mill", "council", "tower", "barometer", "shipyard"),
]
_STYLES = getSampleStyleSheet()
_BODY = _STYLES["BodyText"]


def prose(seed: int, sentences: int) -> str:
    """Sentences that no other seed makes."""
    chosen = Random(seed)
    return " ".join(
        " ".join(chosen.choice(_WORDS) for _ in range(chosen.randint(7, 14))).capitalize() + "."
        for _ in range(sentences)
    )


def headings(path: Path) -> None:
    """Headings of eight sizes, numbered and not, the larger ones rare."""
    story: list[object] = []
    for number in range(26):
        size = (26, 22, 19, 17, 15, 14, 13, 12)[number % 8]
        style = ParagraphStyle(f"h{number}", fontName="Helvetica-Bold", fontSize=size, leading=size * 1.3)
        label = f"{number // 8 + 1}.{number % 8} " if number % 2 else ""
        story += [Paragraph(f"{label}{prose(number, 1)[:40].rstrip('. ')}", style), Paragraph(prose(100 + number, 7))]
    _flow(path, story)


def running_lines(path: Path) -> None:
    """A header that changes by chapter and by side, a footer, and page numbers from the third page on."""

    def margins(canvas: Canvas, template: Any) -> None:
        page = template.page
        canvas.setFont("Times-Italic", 9)
        canvas.drawString(72, 806, "The Ledger of the Valley" if page % 2 else f"Chapter {page // 4 + 1}: the mill")
        canvas.line(72, 800, 520, 800)
        canvas.drawString(72, 30, "Printed for the keeper of the station")
        if page > 2:
            canvas.drawRightString(520, 30, str(page - 2))

    story: list[object] = []
    for number in range(30):
        if number % 6 == 0:
            story.append(Paragraph(f"Chapter {number // 6 + 1}", _STYLES["Heading1"]))
        story.append(Paragraph(prose(number, 11), _BODY))
    SimpleDocTemplate(str(path), pagesize=A4, invariant=1).build(story, onFirstPage=margins, onLaterPages=margins)


def table_over_pages(path: Path) -> None:
    """A ruled table of three pages, its header repeated, between two paragraphs."""
    rows = [["Number", "Ship", "Cargo", "Tonnes"]]
    rows += [[str(n), _WORDS[n % len(_WORDS)].title(), _WORDS[n * 7 % len(_WORDS)], str(n * 37)] for n in range(95)]
    table = Table(rows, colWidths=[60, 130, 130, 90], repeatRows=1, style=[("GRID", (0, 0), (-1, -1), 1, "black")])
    _flow(path, [Paragraph(prose(1, 6), _BODY), table, Paragraph(prose(2, 6), _BODY)])


def long_paragraphs(path: Path) -> None:
    """Paragraphs longer than a page, so that each page begins in the midst of one."""
    _flow(path, [Paragraph(prose(number, 75), _BODY) for number in range(4)])


def footnotes(path: Path) -> None:
    """Notes under a rule on each page, their numbers raised in the text."""
    canvas = Canvas(str(path), pagesize=A4, invariant=1)
    for page in range(5):
        text = Paragraph(f"{prose(page, 9)}<super>{page + 1}</super> {prose(50 + page, 9)}", _BODY)
        _, height = text.wrap(451, 600)
        text.drawOn(canvas, 72, 780 - height)
        canvas.line(72, 120, 220, 120)
        note = Paragraph(f"<super>{page + 1}</super> {prose(90 + page, 1)}", ParagraphStyle("note", fontSize=8))
        _, height = note.wrap(451, 100)
        note.drawOn(canvas, 72, 110 - height)
        canvas.showPage()
    canvas.save()


def digital_and_scanned(path: Path) -> None:
    """A paragraph of its own text, two scans, and text again."""
    make_scan(path, 4, digital=(0, 3), lines=3)


def all_scanned(path: Path) -> None:
    """Scans only, one on its side."""
    make_scan(path, 2, turned=(1,), lines=3)


def rotated(path: Path) -> None:
    """Pages that the file turns by 90, 180 and 270 degrees, among upright ones."""
    _flow(path, [part for n in range(6) for part in _chapter(n)])
    with pikepdf.open(path, allow_overwriting_input=True) as pdf:
        for number, page in enumerate(pdf.pages):
            page.Rotate = (0, 90, 180, 270)[number % 4]
        pdf.save(path, deterministic_id=True)


def rotated_scans(path: Path) -> None:
    """Scans that the file turns."""
    make_scan(path, 2, lines=3)
    with pikepdf.open(path, allow_overwriting_input=True) as pdf:
        pdf.pages[0].Rotate = 90
        pdf.pages[1].Rotate = 180
        pdf.save(path, deterministic_id=True)


def two_columns(path: Path) -> None:
    """Two columns over three pages, a title across both."""
    frames = [Frame(x, 60, 230, 700, id=f"column{x}") for x in (60, 305)]

    def title(canvas: Canvas, template: Any) -> None:
        if template.page == 1:
            canvas.setFont("Helvetica-Bold", 20)
            canvas.drawCentredString(297, 790, "On Ledgers and Ladders")

    document = BaseDocTemplate(str(path), pagesize=A4, invariant=1)
    document.addPageTemplates(PageTemplate(frames=frames, onPage=title))
    story: list[object] = []
    for number in range(14):
        story += [Paragraph(f"{number + 1}. {_WORDS[number].title()}", _STYLES["Heading2"])]
        story += [Paragraph(prose(number, 9), _BODY)]
    document.build(story)


def page_sizes(path: Path) -> None:
    """Upright, landscape, small and large pages, with the same running header."""
    canvas = Canvas(str(path), invariant=1)
    for number, size in enumerate((A4, landscape(A4), A5, landscape(A3), A4, landscape(A5))):
        canvas.setPageSize(size)
        canvas.setFont("Times-Italic", 9)
        canvas.drawString(50, size[1] - 30, "Maps of the lower valley")
        heading = Paragraph(f"Sheet {number + 1}", _STYLES["Heading1"])
        heading.wrap(size[0] - 100, 50)
        heading.drawOn(canvas, 50, size[1] - 90)
        text = Paragraph(prose(number, 8), _BODY)
        _, height = text.wrap(size[0] - 100, size[1] - 150)
        text.drawOn(canvas, 50, size[1] - 110 - height)
        canvas.showPage()
    canvas.save()


def lists(path: Path) -> None:
    """Numbered lists with lists of bullets inside, longer than a page."""
    items: list[Any] = []
    for number in range(40):
        items.append(Paragraph(prose(number, 2), _BODY))
        if number % 5 == 0:
            inner = [Paragraph(prose(200 + number + n, 1), _BODY) for n in range(3)]
            items.append(ListFlowable(inner, bulletType="bullet"))
    _flow(path, [Paragraph("Rules", _STYLES["Heading1"]), ListFlowable(items, bulletType="1")])


def empty_pages(path: Path) -> None:
    """Blank pages at the start, in pairs, and at the end."""
    canvas = Canvas(str(path), pagesize=A4, invariant=1)
    for page in range(8):
        if page not in (0, 3, 4, 7):
            text = Paragraph(prose(page, 20), _BODY)
            _, height = text.wrap(451, 700)
            text.drawOn(canvas, 72, 780 - height)
        canvas.showPage()
    canvas.save()


def book(path: Path, pages: int = 104, paragraphs: int = 1) -> None:
    """A book: chapters, headings of three ranks, running headers, page numbers, a table now and then."""

    def margins(canvas: Canvas, template: Any) -> None:
        page = template.page
        canvas.setFont("Times-Italic", 9)
        canvas.drawString(72, 806, "The Ledger of the Valley" if page % 2 else f"Chapter {page // 12 + 1}")
        canvas.drawRightString(520, 30, str(page))

    SimpleDocTemplate(str(path), pagesize=A4, title="Ledger", invariant=1).build(
        list(_book_story(pages, paragraphs)), onFirstPage=margins, onLaterPages=margins
    )


def _book_story(pages: int, paragraphs: int) -> Iterator[object]:
    for page in range(pages):
        if page % 12 == 0:
            yield Paragraph(f"{page // 12 + 1} The {_WORDS[page // 12 % len(_WORDS)]}", _STYLES["Heading1"])
        if page % 3 == 0:
            rank = _STYLES["Heading2"] if page % 2 else _STYLES["Heading3"]
            yield Paragraph(f"{page // 12 + 1}.{page % 12 // 3 + 1} On the {_WORDS[page % len(_WORDS)]}", rank)
        if page % 17 == 5:
            rows = [[str(page * n), _WORDS[n], str(n)] for n in range(5)]
            yield Table([["Year", "Place", "Sum"], *rows], style=[("GRID", (0, 0), (-1, -1), 1, "black")])
        for part in range(paragraphs):
            yield Paragraph(prose(1000 + page * paragraphs + part, 6), _BODY)
        yield PageBreak()


def _chapter(number: int) -> list[object]:
    return [
        Paragraph(f"Chapter {number + 1}", _STYLES["Heading1"]),
        Paragraph(prose(number, 14), _BODY),
        Paragraph(prose(50 + number, 14), _BODY),
        PageBreak(),
    ]


def _flow(path: Path, story: list[object]) -> None:
    SimpleDocTemplate(str(path), pagesize=A4, title="Equality", invariant=1).build(story)


@dataclass(frozen=True)
class Made:
    """A document of the set."""

    make: Callable[[Path], None]
    #: Whether some of its pages have to be recognised.
    scanned: bool = False
    #: Whether it is left to `python -m benchmarks equality`: a page to recognise costs seconds.
    long: bool = False


SET = {
    made.make.__name__: made
    for made in (
        Made(headings),
        Made(running_lines),
        Made(table_over_pages),
        Made(long_paragraphs),
        Made(footnotes),
        Made(digital_and_scanned, scanned=True),
        Made(all_scanned, scanned=True),
        Made(rotated),
        Made(rotated_scans, scanned=True, long=True),
        Made(two_columns),
        Made(page_sizes),
        Made(lists),
        Made(empty_pages),
        Made(book),
    )
}


def make(name: str, folder: Path) -> Path:
    """Make a document of the set in `folder`."""
    path = folder / f"{name}.pdf"
    SET[name].make(path)
    return path
