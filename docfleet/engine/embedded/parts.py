"""What the page stage hands to the document stage: a folder with one JSON line a page, and the pictures cut out.

pages.jsonl          one `PageRecord` a line, in page order
pictures/<page>-<n>.jpg

A page's line and pictures depend on that page alone, so that any cut of a document gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from docfleet.errors import InternalError
from docfleet.records import FailedPage

_PAGES = "pages.jsonl"
_PICTURES = "pictures"

#: Left, top, right, bottom in points, from the top left corner of the upright page.
Box = tuple[float, float, float, float]


class PageState(StrEnum):
    """What became of a page."""

    #: It has a text of its own, and keeps it.
    DIGITAL = "digital"
    #: Its pixels were read.
    RECOGNISED = "recognised"
    #: It cannot be opened or drawn.
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class LineRecord:
    """A recognised line."""

    text: str
    confidence: float
    box: Box
    #: Size of its type in points.
    size: float
    #: Degrees clockwise: 0 reads to the right, 90 down, 270 up.
    turned: int = 0


@dataclass(frozen=True, kw_only=True)
class PictureRecord:
    """A region that is kept as it looks."""

    box: Box
    #: Path relative to the part.
    file: str


@dataclass(frozen=True, kw_only=True)
class PageRecord:
    """One page."""

    page: int
    state: PageState
    #: Size of the upright page in points.
    width: float = 0.0
    height: float = 0.0
    #: Degrees by which the page was turned clockwise to stand upright.
    turned: int = 0
    lines: tuple[LineRecord, ...] = ()
    #: Rules as boxes of no thickness.
    rules: tuple[Box, ...] = ()
    pictures: tuple[PictureRecord, ...] = ()
    #: Pictures with text upon them: the text is kept, they are not.
    lost_pictures: int = 0
    #: Why the page failed.
    cause: str = ""


class PartWriter:
    """Writes a part, page by page."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def picture(self, page: int, number: int, jpeg: bytes) -> str:
        """Keep a picture; returns its path relative to the part."""
        name = f"{_PICTURES}/{page:06d}-{number}.jpg"
        target = self._folder / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(jpeg)
        return name

    def read(self, name: str) -> bytes:
        """Return a picture that was kept."""
        return (self._folder / name).read_bytes()

    def page(self, record: PageRecord) -> None:
        """Append a page."""
        with (self._folder / _PAGES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record), ensure_ascii=False, separators=(",", ":")) + "\n")


@dataclass(frozen=True)
class GatheredPage:
    """A page and the part that holds it."""

    record: PageRecord
    folder: Path


def gather(parts: Sequence[Path], first: int, last: int, given_up: Sequence[FailedPage] = ()) -> list[GatheredPage]:
    """Read all parts and return their pages in order, those given up as failed, whether a part holds them or not.

    Raises:
        InternalError: a page of first..last is in no part, or in two.
    """
    left_out = {failed.page for failed in given_up}
    pages = [GatheredPage(record, part) for part in parts for record in _records(part) if record.page not in left_out]
    pages += [
        GatheredPage(PageRecord(page=failed.page, state=PageState.FAILED, cause=failed.cause), Path())
        for failed in given_up
        if first <= failed.page <= last
    ]
    pages.sort(key=lambda page: page.record.page)
    if [page.record.page for page in pages] != list(range(first, last + 1)):
        raise InternalError("The parts of this document do not hold each of its pages once; send it again.")
    return pages


def _records(part: Path) -> Iterator[PageRecord]:
    path = part / _PAGES
    # A shard of which every page was given up writes none.
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield record_from(json.loads(line))


def record_from(held: dict[str, Any]) -> PageRecord:
    """Return the record of which `held` is the JSON.

    Raises:
        KeyError, TypeError, ValueError: it is the JSON of something else.
    """
    return PageRecord(
        **{
            **held,
            "state": PageState(held["state"]),
            "lines": tuple(LineRecord(**{**line, "box": tuple(line["box"])}) for line in held["lines"]),
            "rules": tuple(tuple(rule) for rule in held["rules"]),
            "pictures": tuple(PictureRecord(box=tuple(item["box"]), file=item["file"]) for item in held["pictures"]),
        }
    )
