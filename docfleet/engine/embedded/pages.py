"""Page stage: decide page by page whether it has a text of its own, read those that have not, write the part."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from loguru import logger

from docfleet.documents.images import read_frame
from docfleet.documents.pdf import PageFacts, Pdf, open_pdf
from docfleet.engine.embedded.parts import Box, LineRecord, PageRecord, PageState, PartWriter, PictureRecord
from docfleet.engine.embedded.reading import PageReading, read_page
from docfleet.engine.embedded.shelving import keep, take
from docfleet.engine.embedded.typography import alike_sizes
from docfleet.engine.interface import PageShelf, ParseRequest, Progress
from docfleet.engine.mineru.documents import page_methods
from docfleet.errors import BrokenDocument, DocfleetError
from docfleet.options import Method

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from docfleet.engine.embedded.networks import Networks

    Pixels = NDArray[np.uint8]

#: Resolution at which a page is drawn to be read, and the bound for pages of absurd size (A2 at 200 dpi).
_DPI = 200.0
_COARSEST_DPI = 72.0
_MAX_PIXELS = 16_000_000
#: A picture that does not say how large it is on paper is taken for a page this long, in points (A4).
_PAGE_LENGTH = 842.0
#: A page with a picture over this much of it and less text than this is a scan with a stamp or a footer.
_SCAN_SHARE = 0.7
_STAMP_CHARS = 500
#: A page of few characters still has a text of its own if no picture or drawing could hold more.
_ASIDE_SHARE = 0.5
_ASIDE_DRAWINGS = 150
_UNUSABLE_SHARE = 0.05
_JPEG_QUALITY = 90


class PageSource:
    """The pages of a request as pixels, and what is known of them before."""

    def __init__(self, request: ParseRequest, stack: ExitStack) -> None:
        self._request = request
        self._pdf: Pdf | None = None
        self._methods: dict[int, str] = {}
        self._digital: frozenset[int] | None = None
        if request.suffix == "pdf":
            wanted = range(request.first_page, request.last_page + 1)
            self._pdf = stack.enter_context(open_pdf(request.source))
            held = request.decisions.get("digital")
            self._digital = None if held is None else frozenset(held)
            if request.options.method is Method.AUTO and held is None:
                self._methods = _methods(request, wanted)

    def is_digital(self, page: int) -> bool:
        """Whether the page keeps its own text.

        Raises:
            BrokenDocument: the page cannot be opened.
        """
        method = self._request.options.method
        if self._pdf is None:
            return False
        if self._digital is not None:
            # Decided once for the document; a page that could not be opened then was in no list, and fails here.
            self._pdf.size(page)
            return page in self._digital
        if method is not Method.AUTO:
            self._pdf.size(page)
            return method is Method.TXT
        return has_own_text(self._pdf.facts(page), self._methods.get(page, "ocr"))

    def pixels(self, page: int) -> tuple[Pixels, float]:
        """Return a page's pixels, and points a pixel.

        Raises:
            DocfleetError: the page cannot be drawn.
        """
        if self._pdf is not None:
            pixels = self._pdf.render(page, self._dpi(page), _MAX_PIXELS)
            return pixels, self._pdf.size(page)[1] / pixels.shape[0]
        frame = read_frame(self._request.source, page, _MAX_PIXELS)
        return frame.pixels, 72.0 / frame.dpi if frame.dpi else _PAGE_LENGTH / max(frame.pixels.shape[:2])

    def _dpi(self, page: int) -> float:
        """A scan is drawn no finer than it is: more pixels would show nothing more."""
        assert self._pdf is not None
        finest = self._pdf.image_dpi(page) if self._pdf.facts(page).image_share >= _SCAN_SHARE else 0.0
        return min(_DPI, max(finest, _COARSEST_DPI)) if finest else _DPI


def has_own_text(facts: PageFacts, method: str) -> bool:
    """Decide for one page; `method` is MinerU's own answer, which counts every page of few characters as a scan."""
    if facts.objects == 0:
        # Blank: nothing to read.
        return True
    if facts.unusable_chars > facts.chars * _UNUSABLE_SHARE:
        return False
    if facts.image_share >= _SCAN_SHARE and facts.chars < _STAMP_CHARS:
        return False
    if method == "txt":
        return True
    return 0 < facts.chars < 50 and facts.image_share < _ASIDE_SHARE and facts.drawings < _ASIDE_DRAWINGS


def page_kinds(request: ParseRequest) -> tuple[set[int], set[int]]:
    """Return the pages of the request that have a text of their own, and those that cannot be opened.

    Raises:
        DocfleetError: the document itself cannot be opened.
    """
    digital, failing = set(), set()
    with ExitStack() as stack:
        source = PageSource(request, stack)
        for page in range(request.first_page, request.last_page + 1):
            try:
                if source.is_digital(page):
                    digital.add(page)
            except DocfleetError:
                failing.add(page)
    return digital, failing


def write_part(networks: Networks, request: ParseRequest, writer: PartWriter, progress: Progress) -> Iterator[float]:
    """Write pages `request.first_page..last_page`. A page that cannot be read is recorded with its cause.

    Recognised pages come from the shelf where it has them, and go there as soon as they are read.

    Yields:
        Seconds that each page took that was read now.

    Raises:
        DocfleetError: the document itself cannot be opened.
    """
    with ExitStack() as stack:
        source = PageSource(request, stack)
        for page in range(request.first_page, request.last_page + 1):
            if page not in request.skipped:
                started = time.perf_counter()
                record = _without_reading(source, page, request.shelf, writer)
                if record is not None:
                    writer.page(record)
                else:
                    record = _read(networks, source, page, writer)
                    writer.page(record)
                    if record.state is PageState.RECOGNISED:
                        keep(request.shelf, record, writer)
                        yield time.perf_counter() - started
            progress(1)


def _without_reading(source: PageSource, page: int, shelf: PageShelf, writer: PartWriter) -> PageRecord | None:
    """Return the page's record if it keeps its own text, cannot be opened, or was recognised before."""
    try:
        if source.is_digital(page):
            return PageRecord(page=page, state=PageState.DIGITAL)
    except DocfleetError as exc:
        return _failed(page, exc)
    return take(shelf, page, writer)


def _failed(page: int, error: DocfleetError) -> PageRecord:
    logger.warning("page {} cannot be read: {}", page, error.message)
    return PageRecord(page=page, state=PageState.FAILED, cause=error.message)


def _read(networks: Networks, source: PageSource, page: int, writer: PartWriter) -> PageRecord:
    try:
        pixels, scale = source.pixels(page)
    except DocfleetError as exc:
        return _failed(page, exc)
    reading = read_page(networks, pixels)
    return PageRecord(
        page=page,
        state=PageState.RECOGNISED,
        width=_points(reading.pixels.shape[1] * scale),
        height=_points(reading.pixels.shape[0] * scale),
        turned=reading.turned,
        lines=tuple(
            LineRecord(
                text=line.text,
                confidence=line.confidence,
                box=_scaled(line.box, scale),
                size=_points(size * scale),
                turned=line.turned,
            )
            for line, size in zip(reading.lines, alike_sizes(reading.lines), strict=True)
        ),
        rules=tuple(_scaled(rule, scale) for rule in reading.rules),
        pictures=_pictures(reading, scale, page, writer),
        lost_pictures=reading.lost_pictures,
    )


def _pictures(reading: PageReading, scale: float, page: int, writer: PartWriter) -> tuple[PictureRecord, ...]:
    import cv2

    records = []
    for number, box in enumerate(reading.pictures):
        left, top, right, bottom = (max(0, round(value)) for value in box)
        crop = reading.pixels[top:bottom, left:right]
        done, jpeg = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        if not done:
            raise BrokenDocument(f"A picture of page {page + 1} cannot be kept.")
        records.append(PictureRecord(box=_scaled(box, scale), file=writer.picture(page, number, jpeg.tobytes())))
    return tuple(records)


def _methods(request: ParseRequest, wanted: range) -> dict[int, str]:
    try:
        return dict(page_methods(request.source, wanted))
    except BrokenDocument:
        pass
    # One damaged page fails them all: ask one by one, and let the damaged ones fail where they are read.
    methods: dict[int, str] = {}
    for page in wanted:
        try:
            methods |= page_methods(request.source, [page])
        except BrokenDocument:
            continue
    return methods


def _points(value: float) -> float:
    return round(float(value), 2)


def _scaled(box: Sequence[float], scale: float) -> Box:
    left, top, right, bottom = (_points(value * scale) for value in box)
    return left, top, right, bottom
