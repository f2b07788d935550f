"""PDF files: pages, what is on them, pixels, and new files made of pages. The one user of PDFium beside MinerU.

Files are opened by path, so that PDFium reads what it needs and a large file never lies in memory. PDFium is not
safe for threads; every call here takes one lock. Pages are counted from 0.
"""

from __future__ import annotations

import os
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pypdfium2
import pypdfium2.raw as pdfium_c

from docfleet.errors import BrokenDocument, EmptyDocument, EncryptedDocument

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

#: Held around every call into PDFium.
PDFIUM = threading.RLock()

_POINTS_PER_INCH = 72.0

#: A file that claims more pages than this must really have the last one.
_PLAUSIBLE_PAGES = 10_000

_IMAGE = pdfium_c.FPDF_PAGEOBJ_IMAGE
_GRID = 50


def page_count(path: Path) -> int:
    """Return the number of pages.

    Raises:
        EmptyDocument: no bytes, or no pages.
        EncryptedDocument: it asks for a password.
        BrokenDocument: it is not a PDF, or damaged beyond repair (cut off, for instance).
    """
    with open_pdf(path) as pdf:
        return pdf.pages


@contextmanager
def open_pdf(path: Path) -> Iterator[Pdf]:
    """Open a PDF for as long as the context lasts.

    Raises:
        EmptyDocument, EncryptedDocument, BrokenDocument: as `page_count`.
    """
    if path.stat().st_size == 0:
        raise EmptyDocument("The file has no bytes. Send the document again.")
    with PDFIUM:
        handle = _load(path)
        try:
            yield Pdf(handle, _checked_length(handle))
        finally:
            handle.close()


def _load(path: Path) -> Any:
    try:
        return pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as exc:
        locked = getattr(exc, "err_code", None) in (pdfium_c.FPDF_ERR_PASSWORD, pdfium_c.FPDF_ERR_SECURITY)
        # A file that opens and has no pages sets no error: the code is then that of some earlier file.
        if locked and not _opens(path):
            raise EncryptedDocument("The PDF asks for a password. Remove it, and send the file again.") from None
        raise BrokenDocument(
            "The PDF cannot be opened: it is damaged or was cut off on its way. Send it again, or save it anew with "
            "a PDF program."
        ) from None


def _opens(path: Path) -> bool:
    handle = pdfium_c.FPDF_LoadDocument(os.fsencode(path) + b"\0", None)
    if handle:
        pdfium_c.FPDF_CloseDocument(handle)
    return bool(handle)


def _checked_length(handle: Any) -> int:
    count = len(handle)
    if count == 0:
        raise EmptyDocument("The PDF has no pages.")
    if _exists(handle, count - 1) or (count <= _PLAUSIBLE_PAGES and _exists(handle, 0)):
        return count
    raise BrokenDocument(f"The PDF says that it has {count} page(s), but they are not in the file. Send it again.")


def _exists(handle: Any, page: int) -> bool:
    try:
        width, height = handle.get_page_size(page)
    except pypdfium2.PdfiumError:
        return False
    return bool(width > 0 and height > 0)


@dataclass(frozen=True, kw_only=True)
class PageFacts:
    """What lies on a page, as far as telling a scan from a page of text needs it."""

    #: Characters that show (no white space), and those of them that stand for nothing: control, private, replacement.
    chars: int
    unusable_chars: int
    #: Share of the page that pictures cover, 0 to 1.
    image_share: float
    #: Objects on the page (runs of text, pictures, drawings), and the drawings among them.
    objects: int
    drawings: int


class Pdf:
    """An open PDF. Only `open_pdf` makes one."""

    def __init__(self, handle: Any, pages: int) -> None:
        self._handle = handle
        #: Number of pages.
        self.pages = pages

    def size(self, page: int) -> tuple[float, float]:
        """Return width and height in points, as the page is shown (its own rotation applied).

        Raises:
            BrokenDocument: the page cannot be opened.
        """
        with self._page(page) as opened:
            return float(opened.get_width()), float(opened.get_height())

    def facts(self, page: int) -> PageFacts:
        """Look at a page's objects without drawing them.

        Raises:
            BrokenDocument: the page cannot be opened.
        """
        with self._page(page) as opened:
            textpage = opened.get_textpage()
            try:
                text = textpage.get_text_bounded()
            finally:
                textpage.close()
            kinds = [(item.type, _bounds(item)) for item in opened.get_objects(max_depth=4)]
            visible = [char for char in text if not char.isspace()]
            return PageFacts(
                chars=len(visible),
                unusable_chars=sum(_stands_for_nothing(char) for char in visible),
                image_share=_share(opened.get_bbox(), [box for kind, box in kinds if kind == _IMAGE and box]),
                objects=len(kinds),
                drawings=sum(kind == pdfium_c.FPDF_PAGEOBJ_PATH for kind, _ in kinds),
            )

    def image_dpi(self, page: int) -> float:
        """Return the finest resolution of the pictures on a page, in pixels an inch; 0 where there are none.

        Raises:
            BrokenDocument: the page cannot be opened.
        """
        finest = 0.0
        with self._page(page) as opened:
            for item in opened.get_objects(filter=[_IMAGE], max_depth=4):
                box = _bounds(item)
                try:
                    wide, high = item.get_px_size()
                except pypdfium2.PdfiumError:
                    continue
                if box and box[2] > box[0] and box[3] > box[1]:
                    # The longer sides belong together, whichever way the picture lies.
                    finest = max(finest, max(wide, high) / max(box[2] - box[0], box[3] - box[1]) * _POINTS_PER_INCH)
        return finest

    def render(self, page: int, dpi: float, max_pixels: int) -> Pixels:
        """Draw a page, with its form fields, upon white.

        Args:
            page: which.
            dpi: pixels an inch, lowered where the page is so large that it would need more than `max_pixels`.
            max_pixels: bound of width x height.

        Returns:
            height x width x 3, BGR.

        Raises:
            BrokenDocument: the page cannot be opened or drawn.
        """
        width, height = self.size(page)
        scale = dpi / _POINTS_PER_INCH
        # Sides are bounded on their own too: a strip 200 inches long is no reason for a bitmap 40,000 pixels wide.
        scale = min(scale, (max_pixels / (width * height)) ** 0.5, max_pixels**0.5 * 4 / max(width, height))
        with self._page(page) as opened:
            try:
                bitmap = opened.render(scale=scale, force_bitmap_format=pdfium_c.FPDFBitmap_BGR)
                return cast("Pixels", bitmap.to_numpy().copy())
            except (pypdfium2.PdfiumError, ValueError, MemoryError) as exc:
                raise BrokenDocument(f"Page {page + 1} cannot be drawn: {exc}.") from exc

    def copy_page(self, page: int, target: Any) -> None:
        """Append a page, with all that is on it, to a PDFium document under construction.

        Raises:
            BrokenDocument: the page cannot be copied.
        """
        try:
            target.import_pages(self._handle, [page])
        except (pypdfium2.PdfiumError, ValueError):
            raise BrokenDocument(f"Page {page + 1} is damaged and cannot be taken over.") from None

    @contextmanager
    def _page(self, page: int) -> Iterator[Any]:
        try:
            opened = self._handle[page]
        except (pypdfium2.PdfiumError, IndexError):
            raise BrokenDocument(f"Page {page + 1} is damaged and cannot be opened.") from None
        try:
            yield opened
        finally:
            opened.close()


def _bounds(item: Any) -> tuple[float, float, float, float] | None:
    if item.type != _IMAGE:
        return None
    try:
        left, bottom, right, top = item.get_bounds()
    except pypdfium2.PdfiumError:
        return None
    return (left, bottom, right, top)


def _share(frame: Sequence[float], boxes: Sequence[tuple[float, float, float, float]]) -> float:
    """Return the share of `frame` that the boxes cover together, measured on a grid of 50 x 50."""
    import numpy as np

    left, bottom, right, top = frame
    if right <= left or top <= bottom:
        return 0.0
    grid = np.zeros((_GRID, _GRID), dtype=bool)
    for box in boxes:
        columns = [round((value - left) / (right - left) * _GRID) for value in (box[0], box[2])]
        rows = [round((value - bottom) / (top - bottom) * _GRID) for value in (box[1], box[3])]
        grid[max(0, rows[0]) : max(0, rows[1]), max(0, columns[0]) : max(0, columns[1])] = True
    return float(grid.mean())


def _stands_for_nothing(char: str) -> bool:
    return char == "\ufffd" or unicodedata.category(char) in ("Cc", "Co", "Cn", "Cs")
