"""MinerU's flash on digital text as two stages: what goes page by page, and what needs the whole document.

DocVortex (`analyzers.native.pdf.pipeline._analyze_native_document`) goes over a document five times. It collects what
stands on each page, plans the geometry of fonts over the document, prepares each page, classifies headers, footers and
headings over all pages, and finalises each page. Here the first three make the page stage, some three quarters of the
time, and the rest the document stage, by the same functions in the same order. Over all pages at once the two give
what the original gives; a page stage over some pages sees no others, so that it may differ in what is judged by
statistics of fonts (formulas, most of all), and in pictures and rules that come back on pages it does not see.

What is between the stages is plain data of DocVortex's own classes, which only the same version understands.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from docfleet.errors import InternalError

if TYPE_CHECKING:
    from docvortex.document.pdf import PDFDocument

#: Where the classes between the stages live; nothing else is loaded from a file.
_HOME = "docvortex.analyzers.native.pdf."
#: The one function among the data: DocVortex keeps it to see whether it was replaced.
_FUNCTION = ("re", "match")


@dataclass(frozen=True)
class PreparedPages:
    """Pages after the page stage, in order; each list has one item a page."""

    #: Numbers in the document.
    numbers: tuple[int, ...]
    prepared: list[Any]
    styles: list[Any]
    links: list[Any]
    spacing: list[Any]
    #: Width and height in points.
    sizes: list[tuple[float, float]]

    def only(self, pages: Container[int]) -> PreparedPages:
        """Return those of `pages`, numbers in the document."""
        kept = [index for index, number in enumerate(self.numbers) if number in pages]
        lists = (self.prepared, self.styles, self.links, self.spacing, self.sizes)
        return PreparedPages(
            tuple(self.numbers[index] for index in kept), *([of[index] for index in kept] for of in lists)
        )

    def to_bytes(self) -> bytes:
        """Return what `from_bytes` reads."""
        held = (self.numbers, self.prepared, self.styles, self.links, self.spacing, self.sizes)
        return pickle.dumps((_made_by(), held), protocol=5)

    @classmethod
    def from_bytes(cls, data: bytes) -> PreparedPages | None:
        """Return the pages, or None if another version of DocVortex or Python made them.

        Raises:
            Exception: `data` holds something else.
        """
        made_by, held = _Reader(io.BytesIO(data)).load()
        return cls(*held) if made_by == _made_by() else None


def joined(parts: Sequence[PreparedPages]) -> PreparedPages:
    """Return the pages of all parts as one, in page order."""
    ordered = sorted((part for part in parts if part.numbers), key=lambda part: part.numbers[0])
    every = [(part.prepared, part.styles, part.links, part.spacing, part.sizes) for part in ordered]
    lists = [[item for held in every for item in held[kind]] for kind in range(5)]
    return PreparedPages(tuple(number for part in ordered for number in part.numbers), *lists)


def prepare(document: PDFDocument, pages: Sequence[int], collected: Callable[[int], None]) -> PreparedPages:
    """Page stage.

    Args:
        document: an open PDF.
        pages: which of its pages, in order; numbers in the file, which must be those in the document.
        collected: called with each page's number when half of its work is done. May raise to stop the work.
    """
    from docvortex.analyzers.native.pdf import pipeline

    sources = pipeline._collect_document_sources(_SomePages(document, pages, collected))
    kept = (sources.page_style_lines, sources.page_link_lines, sources.page_spacing_lines, sources.page_sizes)
    return PreparedPages(tuple(pages), pipeline._prepare_document_sources(sources), *kept)


def finalise(pages: PreparedPages) -> list[list[dict[str, Any]]]:
    """Document stage: return the blocks of each page. The pages are used up by it.

    The order is that of `_analyze_native_document`, and of `PdfModel.predict` around it.
    """
    from docvortex.analyzers.native.pdf import pipeline
    from docvortex.content import normalize_pdf_model_text

    prepared = pages.prepared
    pipeline.classify_repeated_vector_decorations(prepared)
    profiles = pipeline._classify_document_text(prepared)
    pipeline.mark_document_reference_regions(prepared)
    for index, page in enumerate(prepared):
        if page.numbered_references:
            pipeline.group_reference_lines(page.remaining_lines, page)
        pipeline._classify_small_emphasized_titles(page, index)
    blocks = [
        pipeline._finalize_prepared_page(
            page,
            index,
            canonical_body_profile=profiles.canonical_body,
            document_body_profile=profiles.body,
            document_title_profile=profiles.title,
        )
        for index, page in enumerate(prepared)
    ]
    sources = pipeline._DocumentSources(
        [], [], pages.sizes, pages.styles, pages.links, page_spacing_lines=pages.spacing
    )
    pipeline._materialize_document_inline(blocks, prepared, sources, None)
    normalize_pdf_model_text(blocks)
    return list(blocks)


class _SomePages:
    """Some pages of a PDF as the document that DocVortex asks for pages (`NativePdfSource`)."""

    def __init__(self, document: PDFDocument, pages: Sequence[int], collected: Callable[[int], None]) -> None:
        self._document = document
        self._pages = pages
        self._collected = collected

    @property
    def page_count(self) -> int:
        return len(self._pages)

    def _extract_native_page(self, index: int) -> Any:
        if index:
            self._collected(self._pages[index - 1])
        return self._document._extract_native_page(self._pages[index])

    def _get_page_text_paint(self, index: int, characters: Sequence[int]) -> Any:
        return self._document._get_page_text_paint(self._pages[index], characters)

    def render_page(self, index: int, *, scale: float | None = None) -> Any:
        return self._document.render_page(self._pages[index], scale=scale)


class _Reader(pickle.Unpickler):
    """Builds nothing but the classes that are expected: a file in the data folder is no reason to run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == _FUNCTION:
            return super().find_class(module, name)
        found = super().find_class(module, name) if module.startswith(_HOME) and "." not in name else None
        if not isinstance(found, type):
            raise InternalError("A part of this document holds what no part may hold; send the document again.")
        return found


def _made_by() -> tuple[str, ...]:
    return version("docvortex"), *(str(number) for number in sys.version_info[:2])
