"""Documents made for tests: pages of text, scans of them, tables, pictures. No fonts but those that libraries ship."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from pathlib import Path

import pypdfium2
from PIL import Image, ImageDraw
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

ENGLISH = (
    "The harbour office opens at six in the morning, long before the first ferry leaves for the islands.",
    "Every vessel must report its draught, its cargo and the number of passengers to the clerk on duty.",
    "In the winter of 1987 a storm broke the northern pier, and repairs took almost eleven months.",
    "Since then the council has measured the height of the tide twice a day and published the figures.",
    "Fishermen complain that the new charges, 4.50 per metre, are higher than anywhere else on the coast.",
    "A museum beside the lighthouse keeps the old instruments, among them a brass barometer from Bergen.",
    "Visitors may climb the tower on Thursdays; children under eight need the company of an adult.",
    "The view reaches from the chalk cliffs in the west to the shipyard, where two cranes stand idle.",
)
CHINESE = (
    "秋天的早晨，薄雾笼罩着江面。渔民老陈推开木门，提着竹篮走向码头，岸边的芦苇在风里轻轻摇晃。",
    "图书馆的古籍部收藏了三万余册线装书，其中宋元刻本一百二十种，明清抄本四千多种。",
    "气象部门预计，本周三至周五将出现中到大雨，局部地区有暴雨，累计雨量可达80至120毫米。",
    "化学实验室应当配备通风橱、洗眼器与灭火毯，废液必须分类存放，中和以后再排放。",
    "根据公司章程第二十三条，董事会由七名董事组成，任期三年，可以连选连任。",
    "决议须经全体董事过半数通过方为有效，会议记录由秘书保存十年。",
)
A4 = (595.0, 842.0)
FONT = "Wide"


@cache
def _font() -> str:
    path = resources.files("docvortex").joinpath("resources", "fonts", "DroidSansFallbackFull.ttf")
    pdfmetrics.registerFont(TTFont(FONT, str(path)))
    return FONT


def wrapped(text: str, font: str, size: float, width: float) -> list[str]:
    """Break a text into lines no wider than `width` points, at spaces or after any Chinese character."""
    tokens = text.split(" ") if " " in text else list(text)
    glue = " " if " " in text else ""
    lines, line = [], ""
    for token in tokens:
        longer = f"{line}{glue}{token}" if line else token
        if line and pdfmetrics.stringWidth(longer, font, size) > width:
            lines.append(line)
            longer = token
        line = longer
    return [*lines, line]


def column(
    canvas: Canvas,
    paragraphs: Sequence[str],
    *,
    x: float = 70,
    y: float = 760,
    width: float = 455,
    font: str = "Times-Roman",
    size: float = 11,
) -> float:
    """Write paragraphs below one another; returns where the next would start."""
    for paragraph in paragraphs:
        canvas.setFont(font, size)
        for line in wrapped(paragraph, font, size, width):
            canvas.drawString(x, y, line)
            y -= size * 1.45
        y -= size * 0.7
    return y


def drawn(path: Path, *pages: Callable[[Canvas], object]) -> Path:
    """Make a digital PDF; each function draws one page of A4."""
    canvas = Canvas(str(path), pagesize=A4, invariant=1)
    for page in pages:
        page(canvas)
        canvas.showPage()
    canvas.save()
    return path


def english_page(canvas: Canvas) -> None:
    """Fill a page with a heading and paragraphs."""
    canvas.setFont("Helvetica-Bold", 18)
    canvas.drawString(70, 790, "The Harbour and its Rules")
    column(canvas, [" ".join(ENGLISH[start : start + 4]) for start in (0, 4)], y=755)


def short_page(canvas: Canvas) -> None:
    """Write four sentences."""
    column(canvas, [" ".join(ENGLISH[:4])], size=12)


def chinese_page(canvas: Canvas) -> None:
    """Fill a page with Chinese paragraphs."""
    column(canvas, ["".join(CHINESE[:3]), "".join(CHINESE[3:])], font=_font(), size=12)


def two_columns_page(canvas: Canvas) -> None:
    """Fill two columns, the left one with the first sentences, the right one with the rest."""
    column(canvas, [" ".join(ENGLISH[:4])], x=60, width=225, size=10)
    column(canvas, [" ".join(ENGLISH[4:])], x=315, width=225, size=10)


def table_page(canvas: Canvas) -> None:
    """Draw a table with ruling lines between two sentences."""
    column(canvas, [ENGLISH[0]])
    rows = [
        ("Port", "Ships", "Tonnes"),
        ("Bergen", "412", "98 300"),
        ("Kiel", "287", "64 150"),
        ("Odessa", "530", "120 900"),
    ]
    left, top, wide, high = 90, 690, 130, 26
    for row in range(len(rows) + 1):
        canvas.line(left, top - row * high, left + 3 * wide, top - row * high)
    for edge in range(4):
        canvas.line(left + edge * wide, top, left + edge * wide, top - len(rows) * high)
    canvas.setFont("Helvetica", 11)
    for row, cells in enumerate(rows):
        for number, cell in enumerate(cells):
            canvas.drawString(left + number * wide + 8, top - row * high - 17, cell)
    column(canvas, [ENGLISH[1]], y=540)


def picture_page(canvas: Canvas) -> None:
    """Draw a picture between two paragraphs."""
    column(canvas, [" ".join(ENGLISH[:3])])
    canvas.drawInlineImage(landscape(), 150, 380, 300, 220)
    column(canvas, [" ".join(ENGLISH[3:6])], y=330)


def landscape() -> Image.Image:
    """Paint something that holds no text."""
    image = Image.new("RGB", (300, 220), (180, 210, 240))
    draw = ImageDraw.Draw(image)
    for step in range(0, 300, 12):
        draw.polygon([(step, 220), (step + 30, 90 + step % 70), (step + 60, 220)], fill=(40 + step % 120, 110, 60))
    draw.ellipse((220, 20, 270, 70), fill=(250, 220, 90))
    return image


def page_image(path: Path, page: int = 0, dpi: int = 150) -> Image.Image:
    """Draw a page of a PDF as a grey picture."""
    with pypdfium2.PdfDocument(path) as pdf:
        return pdf[page].render(scale=dpi / 72, grayscale=True).to_pil()


def scan_of(images: Sequence[Image.Image], path: Path, dpi: int = 150) -> Path:
    """Pack pictures into a PDF (or TIFF, by the name), one page each."""
    first, *others = images
    first.save(path, save_all=True, append_images=others, resolution=dpi, dpi=(dpi, dpi))
    return path


def scanned(path: Path, *pages: Callable[[Canvas], object], dpi: int = 150) -> Path:
    """Make a PDF of scans of drawn pages."""
    digital = drawn(path.with_suffix(".digital.pdf"), *pages)
    return scan_of([page_image(digital, number, dpi) for number in range(len(pages))], path, dpi)


def mixed(path: Path, *parts: Path) -> Path:
    """Join PDFs into one."""
    with pypdfium2.PdfDocument.new() as target:
        for part in parts:
            with pypdfium2.PdfDocument(part) as source:
                target.import_pages(source)
        target.save(path)
    return path


def english_pdf(path: Path) -> Path:
    """Make three digital pages of English text: one column, two columns, large type."""
    return drawn(
        path,
        english_page,
        two_columns_page,
        lambda canvas: column(canvas, [" ".join(ENGLISH)], font="Helvetica", size=14),
    )


def chinese_pdf(path: Path) -> Path:
    """Make three digital pages of Chinese text, in three sizes."""
    text = ["".join(CHINESE[start : start + 3]) for start in (0, 3)] * 2

    def page(size: float) -> Callable[[Canvas], object]:
        return lambda canvas: column(canvas, text, font=_font(), size=size)

    return drawn(path, page(9), page(10.5), page(14))
