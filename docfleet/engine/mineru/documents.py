"""What other engines build on: parse a PDF with MinerU's flash tier, write the result files of a parsed document.

Pages are counted from 0 and ranges include both ends. MinerU reads its environment at its first import: set it before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from docfleet.engine.mineru.failures import translated
from docfleet.engine.mineru.rendering import render
from docfleet.engine.mineru.sources import (
    PdfRange,
    TextSource,
    canonical,
    classify,
    pdf_range,
    properties_of,
    without_broken_pages,
    without_pages,
)
from docfleet.engine.mineru.switches import apply_switches
from docfleet.errors import BrokenDocument, ParseFailed, UnsupportedType
from docfleet.options import ParseOptions

if TYPE_CHECKING:
    from docvortex.schema import DocumentProperties
    from mineru.types import MiddleJson, ModelJson

#: Seconds that the document stage takes a page on one core, before one was measured (dense pages of text: 0.15).
FINISH_SECONDS = 0.1
_NEWEST_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class ParsedDocument:
    """A document after MinerU's document stage."""

    #: Pages of typed blocks, after joining paragraphs and tables over pages.
    middle: MiddleJson
    #: What the analysis of each page said, before any joining.
    model: ModelJson
    #: Pages that cannot be opened at all; they are in no part of the result.
    broken_pages: tuple[int, ...] = ()


def newer_speed(seconds: float, taken: float, pages: int) -> float:
    """Return the seconds a page after another document of `pages` pages took `taken` seconds; newer ones count more."""
    return seconds + _NEWEST_SHARE * (taken / pages - seconds) if pages else seconds


def read_pdf_flash(
    pdf: Path,
    *,
    method: TextSource = "txt",
    page_range: tuple[int, int] | None = None,
    original_pages: Sequence[int] | None = None,
    skip: frozenset[int] = frozenset(),
    declared_by: Path | None = None,
) -> ParsedDocument:
    """Parse a PDF at flash, document-wide steps included. With method "txt" no model is needed.

    Pages of `skip` (numbers in the file) are left out, and counted neither as read nor as broken. Title, authors and
    dates come from the file `declared_by` where one is given: a rebuilt file would declare the moment of its making.

    `original_pages` gives for each page of the file its number in the document it stands for (strictly increasing),
    where the file was rebuilt from some pages of another; the result then carries those numbers.

    Raises:
        EncryptedDocument, BrokenDocument, TierUnavailable, ParseFailed.
    """
    with translated():
        data = pdf.read_bytes()
        cut = without_pages(data, page_range, skip) if skip else pdf_range(data, page_range)
        properties = properties_of(data, "pdf") if declared_by is None else _declared(declared_by)
    try:
        return _flash(cut, method, original_pages, properties)
    except (BrokenDocument, ParseFailed):
        # One page that cannot be opened must not take the others with it.
        with translated():
            rest = None if skip else without_broken_pages(data, page_range)
        if rest is None:
            raise
        return _flash(rest, method, original_pages, properties)


def _declared(source: Path) -> DocumentProperties:
    from docvortex.schema import DocumentProperties

    return properties_of(source.read_bytes(), "pdf") if source.suffix == ".pdf" else DocumentProperties()


def _flash(
    cut: PdfRange,
    method: TextSource,
    original_pages: Sequence[int] | None,
    properties: DocumentProperties,
) -> ParsedDocument:
    with translated():
        from mineru.backend.analyze import doc_analyze

        numbers, broken = cut.numbers, cut.broken
        if original_pages is not None:
            numbers = [original_pages[page] for page in (numbers or range(len(original_pages)))]
            broken = tuple(original_pages[page] for page in broken)
        middle, model = doc_analyze(
            cut.data,
            effort="flash",
            parse_mode=method,
            page_index_map=numbers,
            file_suffix="pdf",
            source_properties=properties,
        )
        return ParsedDocument(middle=middle, model=model, broken_pages=broken)


def read_flash_only(source: Path, suffix: str) -> ParsedDocument:
    """Read a format that carries its own text (Office, HTML, EPUB, OFD, CSV), always as a whole and at flash.

    Nothing outside the file is read, neither from the disk nor from the network: what it links to stays a link.

    Raises:
        EncryptedDocument, BrokenDocument, DocumentTooLarge, UnsupportedType, ParseFailed.
    """
    with translated():
        data = source.read_bytes()
    with translated(packaged=True):
        from docvortex.document.contracts import HtmlSourceContext
        from mineru.backend.analyze import doc_analyze
        from mineru.types import FILE_SUFFIXES

        kind = canonical(suffix)
        if kind not in FILE_SUFFIXES:
            raise UnsupportedType(f"MinerU does not read {suffix} files.")
        # MinerU's own parser would let HTML take in images and styles from the folder that the file lies in.
        context = HtmlSourceContext() if kind in ("html", "mhtml") else None
        middle, model = doc_analyze(data, effort="flash", file_suffix=kind, source_context=context)
        return ParsedDocument(middle=middle, model=model)


@dataclass(frozen=True, kw_only=True)
class Written:
    """The files made of a document."""

    #: Names relative to the output folder, with forward slashes: `document.md` first, images last.
    files: tuple[str, ...]
    #: Formats that could not be made of this document, and why.
    warnings: tuple[str, ...]


def write_outputs(
    middle: MiddleJson, model: ModelJson | None, options: ParseOptions, output: Path, title: str
) -> Written:
    """Write the files that `options.formats` asks for into the folder `output`, which must exist and be empty.

    Formulas and tables are dropped first where the options switch them off. `document.md` and its images under
    `images/` are always made: every door answers with them. The other arguments are left as they are.

    Raises:
        ParseFailed: MinerU cannot render this document.
        StorageFull: there is no room for the files.
    """
    with translated():
        files, warnings = render(apply_switches(middle, options), model, options.formats, output, title)
        return Written(files=tuple(files), warnings=tuple(warnings))


def page_methods(pdf: Path, pages: Sequence[int] | None = None) -> dict[int, Literal["txt", "ocr"]]:
    """Return for each page whether its own text can be trusted ("txt") or it has to be recognised ("ocr").

    Judged page by page with the rules that MinerU applies to a whole document; a page with hardly any text, a blank
    one too, counts as "ocr". About 10 ms a page, no model.

    Raises:
        EncryptedDocument, BrokenDocument: the file or one of the pages cannot be opened.
    """
    with translated():
        from docvortex.document.pdf import PDFDocument

        data = pdf.read_bytes()
        if pages is None:
            with PDFDocument(data) as document:
                pages = range(document.page_count)
        return {page: classify(pdf_range(data, (page, page)).data) for page in pages}
