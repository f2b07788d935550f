"""MinerU as an engine: all four tiers for PDFs and images, flash for formats that carry their own text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from docfleet.engine.interface import EngineContext, ParseReport, ParseRequest, Progress
from docfleet.engine.mineru.analysis import (
    analyse_windows,
    gather,
    page_method,
    unread_pages,
    wanted_range,
    window_starts,
)
from docfleet.engine.mineru.documents import (
    FINISH_SECONDS,
    ParsedDocument,
    newer_speed,
    read_flash_only,
    read_pdf_flash,
    write_outputs,
)
from docfleet.engine.mineru.failures import translated
from docfleet.engine.mineru.flash_shards import WARNING, check_shard, fast_cuts, is_shard, read_shards, write_shard
from docfleet.engine.mineru.readiness import Readiness
from docfleet.engine.mineru.shortfalls import warnings_of
from docfleet.engine.mineru.sources import IMAGE_SUFFIXES, MODEL_SUFFIXES, TextSource, canonical
from docfleet.errors import InternalError, NotReady
from docfleet.options import VLM_TIERS, ParseOptions, Tier
from docfleet.records import FailedPage
from docfleet.sharding.cutting import Cuts

#: Imported by the first document otherwise: seconds of its time.
_HEAVY = (
    "mineru.backend.analyze",
    "mineru.backend.postprocess.document",
    "mineru.render",
    "docvortex.analyzers.native",
    "docvortex.document.pdf",
    "docvortex.export",
)

#: Seconds that models take for a page, before one was measured; and how fast newer pages push older ones out.
_FIRST_GUESS_CPU = 10.0
_FIRST_GUESS = 0.5
_NEWEST_SHARE = 0.2

_BROKEN_PAGE = "the page is damaged and cannot be opened"


class MinerUEngine:
    """Reads documents with MinerU inside one worker process; its environment must be set before `load`."""

    name: ClassVar[str] = "mineru"

    def __init__(self) -> None:
        self._loaded: Readiness | None = None
        self._first_guess = _FIRST_GUESS_CPU
        #: Seconds that a page took here lately, by tier.
        self._page_seconds: dict[Tier, float] = {}
        #: Seconds that the document stage took a page here lately.
        self._finish_seconds = FINISH_SECONDS

    @property
    def version(self) -> str:
        """Version of MinerU."""
        return version("mineru")

    def load(self, context: EngineContext) -> None:
        """Import MinerU and load the weights that are here or may be fetched. May take minutes.

        Weights that do not load are no error: `missing` then says why for the tiers that need them.

        Raises:
            TierUnavailable: MinerU itself does not import.
            OutOfDeviceMemory: too little memory is free for the models of tier basic; call it again later.
        """
        with translated():
            for module in _HEAVY:
                import_module(module)
        readiness = Readiness(context)
        readiness.load()
        self._loaded, self._device = readiness, context.device
        self._first_guess = _FIRST_GUESS_CPU if context.device == "cpu" else _FIRST_GUESS

    def missing(self, tier: Tier, suffix: str, options: ParseOptions) -> str | None:
        """Return why such a document cannot be read at this tier here and the remedy, or None."""
        return self._readiness.missing(tier, suffix, options)

    def cuts(self, request: ParseRequest, tier: Tier) -> Cuts | None:
        """Models read in windows that know nothing of each other: a shard may begin where a window does.

        What flash reads by itself is document-wide and not cut, all of it document stage, unless the caller wants it
        (`shards=fast`): headings and running headers depend on all pages.
        """
        if canonical(request.suffix) not in MODEL_SUFFIXES:
            return None
        with translated():
            method = page_method(request, request.source.read_bytes())
        pages = range(request.first_page, request.last_page + 1)
        finish = len(pages) * self._finish_seconds
        if tier is Tier.FLASH and method == "txt":
            uncut = Cuts(costs=(0.0,) * len(pages), starts=frozenset(), finish=finish)
            return fast_cuts(request, {"method": method}) or uncut
        seconds, unread = self._page_seconds.get(tier, self._first_guess), unread_pages(request, method)
        return Cuts(
            costs=tuple(seconds if page in unread else 0.0 for page in pages),
            starts=window_starts(request),
            finish=finish,
            decisions={"method": method},
        )

    def check(self, request: ParseRequest, tier: Tier, part: Path) -> None:
        """Raise if the part holds page files, and not each page of the request once."""
        with translated():
            if is_shard(request):
                check_shard(request, part)
                return
            gather(request, [part], (request.first_page, request.last_page))

    def read_pages(self, request: ParseRequest, tier: Tier, part: Path, progress: Progress) -> None:
        """Analyse `request.first_page..last_page` into `part`; nothing to do for what flash reads as a whole.

        `progress` is called after each window of pages (4 on a CPU, 64 elsewhere).
        """
        readiness = self._readiness
        part.mkdir(parents=True, exist_ok=True)
        if canonical(request.suffix) not in MODEL_SUFFIXES:
            return
        if is_shard(request):
            write_shard(request, part, progress)
            return
        with translated():
            data = request.source.read_bytes()
            method = page_method(request, data)
        if tier is Tier.FLASH and method == "txt":
            return
        if request.memory_share < 1:
            # The library keeps what it has freed for itself; the smaller window needs it in other pieces.
            import_module("mineru.model.runtime.memory").clean_memory(self._device)
        with translated():
            readiness.require(tier, request.options)
            vlm = readiness.vlm_config(request.options) if tier in VLM_TIERS else None
        with readiness.vlm_client(request.options):
            analyse_windows(request, data, tier, method, part, self._timed(tier, progress), vlm)

    def finish(
        self, request: ParseRequest, tier: Tier, parts: Sequence[Path], output: Path, progress: Progress
    ) -> ParseReport:
        """Join the parts, or read the whole at flash where they are empty, and write the result files.

        Raises:
            DocfleetError: with the status and remedy that the caller shall see.
        """
        _ = self._readiness  # raises where nothing is loaded
        output.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        cut = read_shards(request, parts)
        used, document = (tier, cut[0]) if cut else _document_of(request, tier, parts)
        parsed = time.monotonic()
        written = write_outputs(
            document.middle, document.model, request.options, output, title=request.filename or "document"
        )
        rendered = time.monotonic()
        delivered = len(document.middle.pages)
        if canonical(request.suffix) in MODEL_SUFFIXES:
            self._finish_seconds = newer_speed(self._finish_seconds, rendered - started, delivered)
        told = (WARNING.format(shards=cut[1]),) if cut else ()
        warnings = (*told, *warnings_of(request, tier, used, document.middle), *written.warnings)
        progress(request.last_page - request.first_page + 1)
        return ParseReport(
            tier=str(used),
            engine=self.name,
            engine_version=self.version,
            pages=delivered,
            failed_pages=_failed_pages(request, document),
            files=written.files,
            warnings=warnings,
            timings={"document": round(parsed - started, 3), "render": round(rendered - parsed, 3)},
        )

    def _timed(self, tier: Tier, progress: Progress) -> Progress:
        """Learn from each window what a page costs here: the next document is cut by it."""
        started = time.monotonic()

        def after_window(pages: int) -> None:
            nonlocal started
            seconds = (time.monotonic() - started) / pages
            known = self._page_seconds.get(tier)
            self._page_seconds[tier] = seconds if known is None else known + _NEWEST_SHARE * (seconds - known)
            progress(pages)
            started = time.monotonic()

        return after_window

    @property
    def _readiness(self) -> Readiness:
        if self._loaded is None:
            raise NotReady("MinerU is not loaded yet; try again in a moment.")
        return self._loaded


def _failed_pages(request: ParseRequest, document: ParsedDocument) -> tuple[FailedPage, ...]:
    causes = dict.fromkeys(document.broken_pages, _BROKEN_PAGE) | {
        page.page: page.cause for page in request.failed_pages
    }
    return tuple(FailedPage(page=page, cause=causes[page]) for page in sorted(causes))


def _document_of(request: ParseRequest, tier: Tier, parts: Sequence[Path]) -> tuple[Tier, ParsedDocument]:
    """Return the tier really used and the document."""
    if canonical(request.suffix) not in MODEL_SUFFIXES:
        return Tier.FLASH, read_flash_only(request.source, request.suffix)
    with translated():
        gathered = gather(request, parts)
        if gathered is not None:
            from mineru.backend.postprocess.document import model_json_to_middle_json
            from mineru.config import config

            middle = model_json_to_middle_json(gathered.model, llm_aided_config=config.llm_aided)
            return tier, ParsedDocument(middle=middle, model=gathered.model, broken_pages=gathered.broken)
    if tier is not Tier.FLASH or request.suffix in IMAGE_SUFFIXES:
        raise InternalError("The parts of this document hold no pages; send it again.")
    # Empty parts say that the page stage found text of its own; without parts the question is still open.
    method: TextSource = "txt" if parts else request.options.method.value
    return tier, read_pdf_flash(request.source, method=method, page_range=wanted_range(request), skip=request.skipped)
