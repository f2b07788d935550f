"""What a caller is told of a document that was read without models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from docfleet.engine.embedded.parts import PageRecord
from docfleet.engine.interface import ParseRequest
from docfleet.options import Method

#: Mean confidence by text length below which a page's text should be checked.
_DOUBTFUL = 0.85


def warnings_of(request: ParseRequest, recognised: Sequence[PageRecord]) -> list[str]:
    """Return the warnings of a document, pages named as people count them."""
    warnings = []
    options = request.options
    if options.method is Method.TXT and request.suffix != "pdf":
        warnings.append("method txt does not apply to pictures: they have no text of their own and were recognised")
    if options.lang and recognised:
        warnings.append(f"lang={options.lang} has no effect: recognition without models is multilingual")
    if not recognised:
        return warnings
    warnings.append(
        f"{_pages(recognised)} recognised without models: formulas come as plain text, tables without rules may come "
        "as text; tier basic or higher reads both better where its models are installed"
    )
    groups = (
        ("a picture, drawing or unread region kept as an image", [page for page in recognised if page.pictures]),
        (
            "text upon a picture: the text is kept, the picture not",
            [page for page in recognised if page.lost_pictures],
        ),
        ("no text was found", [page for page in recognised if not page.lines]),
        ("hard to read, please check", [page for page in recognised if _doubtful(page)]),
        ("turned upright", [page for page in recognised if page.turned]),
    )
    warnings += [f"{_pages(pages)}: {what}" for what, pages in groups if pages]
    return warnings


def _doubtful(page: PageRecord) -> bool:
    length = sum(len(line.text) for line in page.lines)
    return length > 0 and sum(line.confidence * len(line.text) for line in page.lines) / length < _DOUBTFUL


def _pages(pages: Iterable[PageRecord]) -> str:
    """Write page numbers as ranges: page 1, pages 1-3 and 7."""
    ranges: list[list[int]] = []
    for number in sorted(page.page + 1 for page in pages):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    texts = [str(low) if low == high else f"{low}-{high}" for low, high in ranges]
    joined = texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
    return f"page {joined}" if ranges[0][0] == ranges[-1][1] else f"pages {joined}"
