"""Files as MinerU takes them: the bytes of a PDF with just the pages that are wanted, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Literal, cast

from docfleet.errors import BrokenDocument, InvalidPageRange

if TYPE_CHECKING:
    from docvortex.schema import DocumentProperties

#: Where text comes from: decided by the document, its own text, recognition.
TextSource = Literal["auto", "txt", "ocr"]

#: Image types by content; MinerU reads them as PDFs of one picture a page.
IMAGE_SUFFIXES = frozenset({"png", "jpg", "jpeg", "tiff", "tif", "webp", "bmp", "gif", "jp2"})

#: Types that models can look at; all others carry their own text and are read at flash.
MODEL_SUFFIXES = IMAGE_SUFFIXES | {"pdf"}

#: Other names for types that MinerU knows.
_ALIASES = {"htm": "html", "shtml": "html", "mht": "mhtml", "tif": "tiff"}


def canonical(suffix: str) -> str:
    """Return MinerU's name for a type."""
    return _ALIASES.get(suffix, suffix)


@dataclass(frozen=True, kw_only=True)
class PdfRange:
    """Some pages of a PDF, as a PDF."""

    data: bytes
    #: For each page of `data` its number in the document; None where they are all there, in order.
    numbers: list[int] | None
    #: Wanted pages that cannot be opened; not part of `data`.
    broken: tuple[int, ...] = ()


def pdf_range(data: bytes, wanted: tuple[int, int] | None) -> PdfRange:
    """Cut a PDF down to a range (from 0, inclusive); None or the whole range leave the bytes as they are.

    Raises:
        InvalidPageRange: the range begins beyond the end.
        BrokenDocument: none of the pages can be opened.
    """
    from docvortex.document.pdf import PDFDocument
    from docvortex.document.pdf.pdfium import safe_rewrite_pdf_bytes_with_pdfium_result

    with PDFDocument(data) as document:
        count = document.page_count
    if count == 0:
        raise BrokenDocument("The PDF has no page that can be opened.")
    if wanted is None or wanted == (0, count - 1):
        return PdfRange(data=data, numbers=None)
    first, last = wanted
    if first >= count:
        raise InvalidPageRange(f"Page {first} (counted from 0) was asked for, but the document has {count} page(s).")
    cut = safe_rewrite_pdf_bytes_with_pdfium_result(data, page_indices=list(range(first, last + 1)))
    if cut.used_original:
        # MinerU would now parse the whole file in place of the range.
        raise BrokenDocument(f"Pages {first} to {last} (counted from 0) cannot be taken out of the PDF: it is damaged.")
    return PdfRange(data=cut.pdf_bytes, numbers=cut.retained_page_indices, broken=tuple(cut.broken_page_indices))


def without_broken_pages(data: bytes, wanted: tuple[int, int] | None) -> PdfRange | None:
    """Return the range without the pages that cannot be opened, or None if all of them or none can be."""
    from docvortex.document.pdf.pdfium import (
        get_loadable_pdfium_page_indices,
        safe_rewrite_pdf_bytes_with_pdfium_result,
    )

    good, broken = get_loadable_pdfium_page_indices(data, *(wanted or (0, None)))
    if not good or not broken:
        return None
    cut = safe_rewrite_pdf_bytes_with_pdfium_result(data, page_indices=good)
    if cut.used_original or cut.retained_page_indices is None:
        return None
    lost = sorted({*broken, *cut.broken_page_indices})
    return PdfRange(data=cut.pdf_bytes, numbers=cut.retained_page_indices, broken=tuple(lost))


def without_pages(data: bytes, wanted: tuple[int, int] | None, skip: frozenset[int]) -> PdfRange:
    """Return the range without the pages of `skip`, and without those that cannot be opened.

    Raises:
        BrokenDocument: no page is left, or they cannot be taken out.
    """
    from docvortex.document.pdf.pdfium import (
        get_loadable_pdfium_page_indices,
        safe_rewrite_pdf_bytes_with_pdfium_result,
    )

    loadable, broken = get_loadable_pdfium_page_indices(data, *(wanted or (0, None)))
    good = [page for page in loadable if page not in skip]
    if not good:
        raise BrokenDocument("No page of the document can be read.")
    cut = safe_rewrite_pdf_bytes_with_pdfium_result(data, page_indices=good)
    if cut.used_original or cut.retained_page_indices is None:
        raise BrokenDocument("The pages that can be read cannot be taken out of the PDF: it is damaged.")
    lost = sorted({*broken, *cut.broken_page_indices} - skip)
    return PdfRange(data=cut.pdf_bytes, numbers=cut.retained_page_indices, broken=tuple(lost))


def classify(data: bytes) -> Literal["txt", "ocr"]:
    """Return MinerU's own answer to method auto for a PDF: a sample of up to ten pages, 5 to 15 ms each."""
    from docvortex.document.pdf import PDFDocument

    with PDFDocument(data) as document:
        return cast(Literal["txt", "ocr"], document.classify())


def properties_of(data: bytes, suffix: str) -> DocumentProperties:
    """Return title, authors, dates as the file declares them; empty where they cannot be read."""
    from mineru.integrations.docvortex import read_source_properties

    return read_source_properties(data, suffix)


def image_to_pdf(data: bytes, frames: tuple[int, int]) -> bytes:
    """Turn frames (from 0, inclusive) of an image into a PDF, one page each.

    An image of one frame becomes exactly the PDF that MinerU makes of it; MinerU itself reads the first frame only.

    Raises:
        BrokenDocument: the image cannot be decoded.
    """
    from docvortex.document.pdf import PDFDocument
    from docvortex.document.pdf.native_contracts import DEFAULT_RENDER_DPI
    from PIL import Image

    with Image.open(BytesIO(data)) as image:
        count = int(getattr(image, "n_frames", 1))
        if count == 1:
            return cast(bytes, PDFDocument.from_image(data).bytes)
        pages = BytesIO()
        for frame in range(frames[0], min(frames[1], count - 1) + 1):
            image.seek(frame)
            # As `from_image` writes its one page; frame by frame, so that one picture is in memory at a time.
            image.convert("RGB").save(
                pages,
                format="PDF",
                append=frame > frames[0],
                resolution=DEFAULT_RENDER_DPI,
                quality=95,
                subsampling=0,
            )
    return pages.getvalue()
