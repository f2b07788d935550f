"""Flash on digital text, cut over workers, where the caller asked for it (`shards=fast`): parts as files.

A shard reads more than its own pages, and drops the others: `CONTEXT` pages on each side, because page numbers and
running lines are matched over two pages and a table's grid is carried to the next page; and `SAMPLES` pages from all
over the document, because what its fonts are like decides how the boxes of characters are repaired. The document stage
joins all parts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from loguru import logger

from docfleet.engine.interface import ParseRequest, Progress
from docfleet.engine.mineru.analysis import model_json_of, wanted_range
from docfleet.engine.mineru.documents import ParsedDocument
from docfleet.engine.mineru.failures import translated
from docfleet.engine.mineru.flash_stages import PreparedPages, finalise, joined, prepare
from docfleet.engine.mineru.sources import PdfRange, pdf_range, properties_of, without_pages
from docfleet.errors import BrokenDocument, InternalError
from docfleet.options import Shards
from docfleet.sharding.cutting import Cuts

if TYPE_CHECKING:
    from docvortex.document.pdf import PDFDocument

#: Pages read beside a shard's own: DocVortex compares margins over two pages (`_classify_marginal_candidates`).
CONTEXT = 2
#: Pages from all over the document read along: the same for every shard.
SAMPLES = 3
#: Pages between two places to cut: the context of shorter shards would cost more than a quarter of their work.
STEP = 16
#: Seconds that a page takes, roughly: enough to tell how long a shard should be.
_PAGE_SECONDS = 0.1
#: Begins the names of marks; the reader's process follows, and the first page of its shard.
_MARK = "reading-along-"
#: What the engine decided for the document, in the decisions that every shard gets.
_DECISION = "flash"
_CUT = "cut"

WARNING = (
    "shards=fast: this digital document was read in {shards} pieces; formulas, pictures that come back on many pages "
    "and some headings may differ from what shards=exact gives"
)


def fast_cuts(request: ParseRequest, decisions: dict[str, Any]) -> Cuts | None:
    """Return where a digital PDF may be cut, or None where the caller wants no other result than that of the whole."""
    if request.options.shards is not Shards.FAST or request.suffix != "pdf":
        return None
    pages = range(request.first_page, request.last_page + 1)
    return Cuts(
        costs=(_PAGE_SECONDS,) * len(pages),
        starts=frozenset(pages[::STEP]),
        decisions=decisions | {_DECISION: _CUT},
    )


def is_shard(request: ParseRequest) -> bool:
    """Whether the request is for a piece of a digital document that was cut; one that was not is read as a whole."""
    piece = (request.first_page, request.last_page) != wanted_range(request)
    return piece and request.decisions.get(_DECISION) == _CUT


def write_shard(request: ParseRequest, part: Path, progress: Progress) -> None:
    """Page stage: read `request.first_page..last_page` into the folder `part`.

    Pages that cannot be opened are left out; the document stage finds them missing. A mark beside `part` says that
    other pages are read along, until that has ended well: a bad page among them must not cost all shards that see it.

    Raises:
        DocfleetError: the document cannot be read.
        Exception: what `progress` raised.
    """
    first, last = request.first_page, request.last_page
    pages = reading_list(request, part)
    mark = part.parent / f"{_MARK}{os.getpid()}-{first}" if len(pages) > last - first + 1 else None
    if mark is not None:
        mark.touch()
    teller = _Teller(progress)
    try:
        with translated():
            made = _prepared(request, pages, teller).only(range(first, last + 1))
            (part / f"flash-{first:06d}-{last:06d}.pickle").write_bytes(made.to_bytes())
    except Exception:
        if teller.stopped is None:
            raise
        # It was no fault of the document: the work is to stop, and whoever asked for it knows the reason.
        if mark is not None:
            mark.unlink(missing_ok=True)
        raise teller.stopped from None
    if mark is not None:
        mark.unlink(missing_ok=True)
    progress(last - first + 1)


def reading_list(request: ParseRequest, part: Path) -> list[int]:
    """Return the pages to read: the shard's own alone where reading others along ended a shard of this document."""
    own = (request.first_page, request.last_page)
    for mark in part.parent.glob(f"{_MARK}*"):
        reader = int(mark.name.removeprefix(_MARK).partition("-")[0])
        if reader == os.getpid() or not psutil.pid_exists(reader):
            return list(range(own[0], own[1] + 1))
    return pages_to_read(own, wanted_range(request))


def pages_to_read(own: tuple[int, int], wanted: tuple[int, int]) -> list[int]:
    """Return the pages that a shard reads, in the order in which it does.

    Samples stand where no page of the shard's own is within two pages of them, or their margins would be taken for
    those of neighbours; and never before the first page of the document, which has rules of its own.
    """
    (first, last), (begin, end) = own, wanted
    around = range(max(begin, first - CONTEXT), min(end, last + CONTEXT) + 1)
    pages = end - begin + 1
    samples = {begin + (2 * number + 1) * pages // (2 * SAMPLES) for number in range(SAMPLES)}
    elsewhere = sorted(samples - set(around))
    behind = first == begin or last + CONTEXT <= end
    return [*around, *elsewhere] if behind else [*elsewhere, *around]


def check_shard(request: ParseRequest, part: Path) -> None:
    """Raise if the part cannot be used, or holds a page that is not the request's.

    Raises:
        InternalError, or whatever comes of garbage.
    """
    (file,) = part.glob("flash-*.pickle")
    made = PreparedPages.from_bytes(file.read_bytes())
    wanted = range(request.first_page, request.last_page + 1)
    if made is None or not set(made.numbers) <= set(wanted) - request.skipped:
        raise InternalError("The part does not hold the pages that were asked for.")


def read_shards(request: ParseRequest, parts: Sequence[Path]) -> tuple[ParsedDocument, int] | None:
    """Document stage: return the document and the number of shards, or None where it was not cut.

    None, too, if another version made the parts: the document is then to be read as a whole.

    Raises:
        InternalError: a page of the wanted range is in no part, or in two.
        DocfleetError: no page can be read.
    """
    files = sorted((file for part in parts for file in part.glob("flash-*.pickle")), key=lambda file: file.name)
    if not files:
        return None
    _check_whole(request, [file.stem for file in files])
    with translated():
        shards = [PreparedPages.from_bytes(file.read_bytes()) for file in files]
        usable = [shard for shard in shards if shard is not None]
        if len(usable) < len(files):
            logger.warning("the parts of {} were made by another version; it is read anew as a whole", request.filename)
            return None
        pages = joined(usable).only(set(_wanted(request)) - request.skipped)
        return _document(request, pages), len(files)


def _check_whole(request: ParseRequest, names: Sequence[str]) -> None:
    covered: list[int] = []
    for name in names:
        first, last = (int(number) for number in name.split("-")[1:])
        covered += range(first, last + 1)
    missing = set(_wanted(request)) - request.skipped - set(covered)
    if missing or len(covered) != len(set(covered)):
        raise InternalError("The parts of this document do not hold each of its pages once; send it again.")


def _wanted(request: ParseRequest) -> range:
    first, last = wanted_range(request)
    return range(first, last + 1)


def _document(request: ParseRequest, pages: PreparedPages) -> ParsedDocument:
    from mineru.backend.postprocess.document import model_json_to_middle_json
    from mineru.config import config

    wanted = _wanted(request)
    lost = set(wanted) - set(pages.numbers)
    if len(lost) == len(wanted):
        raise BrokenDocument("No page of the document can be read.")
    data = request.source.read_bytes()
    ends = (wanted[0], wanted[-1])
    cut = without_pages(data, ends, frozenset(lost)) if lost else pdf_range(data, ends)
    held = cut.numbers or list(range(request.pages))
    if list(pages.numbers) != held:
        raise InternalError("The parts of this document do not hold each of its pages once; send it again.")
    result = _analysed(cut, finalise(pages))
    model = model_json_of(result, cut.numbers, properties_of(data, "pdf"))
    middle = model_json_to_middle_json(model, llm_aided_config=config.llm_aided)
    return ParsedDocument(middle=middle, model=model, broken_pages=tuple(sorted(lost - request.skipped)))


def _analysed(cut: PdfRange, blocks: list[list[dict[str, Any]]]) -> Any:
    """Add the pictures and the geometry of pages, as MinerU does after its analysis (`process_pdf_windows`)."""
    from docvortex.document.pdf import PDFDocument
    from docvortex.document.pdf.constants import MODEL_JSON_VISUAL_BLOCK_TYPES
    from docvortex.document.pdf.visuals import attach_visual_block_images_from_pdf
    from mineru.backend.analysis.pdf.images import (
        get_document_render_session,
        get_load_images_threads,
        get_load_images_timeout,
    )
    from mineru.backend.analysis.pdf.pipeline import _build_pdf_analysis_result, _PDFAnalysis
    from mineru.backend.analysis.pdf.window import _configured_window_size

    visual = MODEL_JSON_VISUAL_BLOCK_TYPES | {"image_block"}
    with PDFDocument(cut.data) as document:
        session = None
        if any(block.get("type") in visual for page in blocks for block in page):
            session = get_document_render_session(document)
        attach_visual_block_images_from_pdf(
            document,
            blocks,
            window_size=_configured_window_size(),
            timeout=get_load_images_timeout(),
            threads=get_load_images_threads(),
            **({} if session is None else {"session": session}),
        )
        state = _PDFAnalysis(document=document, parse_mode="txt", flash_txt_mode=True)
        return _build_pdf_analysis_result(state, blocks, "flash", time.perf_counter())


class _Teller:
    """Asks after each page whether the work is to stop, and keeps what was raised. No page is done before all are."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.stopped: Exception | None = None

    def __call__(self, _: int) -> None:
        try:
            self._progress(0)
        except Exception as exc:
            self.stopped = exc
            raise


def _prepared(request: ParseRequest, pages: Sequence[int], teller: _Teller) -> PreparedPages:
    from docvortex.document.pdf import PDFDocument

    with PDFDocument(request.source.read_bytes()) as document:
        return prepare(
            document, [page for page in pages if page not in request.skipped and _opens(document, page)], teller
        )


def _opens(document: PDFDocument, page: int) -> bool:
    try:
        document.page_size(page)
    except Exception as exc:
        logger.warning("page {} cannot be opened: {}", page, exc)
        return False
    return True
