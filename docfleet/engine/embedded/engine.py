"""The engine for machines without models: recognition with the weights inside the rapidocr wheel, then MinerU flash."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import ClassVar

from loguru import logger

from docfleet.engine.embedded.networks import Networks, weights
from docfleet.engine.embedded.notices import warnings_of
from docfleet.engine.embedded.pages import page_kinds, write_part
from docfleet.engine.embedded.parts import GatheredPage, PageState, PartWriter, gather
from docfleet.engine.embedded.rebuild import rebuild
from docfleet.engine.embedded.shelving import piece_of
from docfleet.engine.interface import EngineContext, ParseReport, ParseRequest, Progress
from docfleet.engine.mineru.documents import FINISH_SECONDS, ParsedDocument, newer_speed, read_pdf_flash, write_outputs
from docfleet.engine.mineru.flash_shards import WARNING, check_shard, fast_cuts, is_shard, read_shards, write_shard
from docfleet.errors import EngineMissing, NotReady, ParseFailed
from docfleet.options import ParseOptions, Tier
from docfleet.records import FailedPage
from docfleet.sharding.cutting import Cuts

#: Types that are read: PDF, and pictures of which each frame is a page.
SUFFIXES = frozenset({"pdf", "png", "jpg", "jpeg", "tiff", "tif", "webp", "bmp", "gif", "jp2"})

_REBUILT = "rebuilt.pdf"
#: Seconds to recognise a page on one core, before one was measured; and how fast newer pages push older ones out.
_FIRST_GUESS = 3.0
_NEWEST_SHARE = 0.2


class EmbeddedEngine:
    """Reads PDFs and pictures at tier flash, with no model downloaded and no network."""

    name: ClassVar[str] = "embedded"

    def __init__(self) -> None:
        self._networks: Networks | None = None
        #: Seconds that a page took here lately.
        self._page_seconds = _FIRST_GUESS
        #: The same of the document stage.
        self._finish_seconds = FINISH_SECONDS

    @property
    def version(self) -> str:
        """Versions of the weights' wheel and of MinerU."""
        try:
            return f"rapidocr {version('rapidocr')}, mineru {version('mineru')}"
        except PackageNotFoundError:
            return "not installed"

    def load(self, context: EngineContext) -> None:
        """Build the networks; about a second, no download.

        Raises:
            EngineMissing: rapidocr or its weights are not installed.
        """
        self._networks = Networks(context.threads)
        logger.info("embedded recognition loaded ({}, {} threads)", self.version, context.threads)

    def missing(self, tier: Tier, suffix: str, options: ParseOptions) -> str | None:
        """Return why such a document cannot be read at this tier here and the remedy, or None if it can."""
        if tier is not Tier.FLASH:
            return f"recognition without models is tier flash only; tier {tier} needs model weights."
        if suffix not in SUFFIXES:
            return f"{suffix} files carry their own text; engine mineru reads them."
        try:
            weights()
        except EngineMissing as exc:
            return exc.message
        return None

    def cuts(self, request: ParseRequest, tier: Tier) -> Cuts | None:
        """Any page may begin a shard; only pages that have yet to be recognised cost anything.

        A document with none of them is not cut, unless the caller wants it (`shards=fast`).

        Raises:
            DocfleetError: the document cannot be opened.
        """
        digital, failing = page_kinds(request)
        free = digital | failing
        pages = range(request.first_page, request.last_page + 1)
        decisions = {"digital": sorted(digital)}
        fast = fast_cuts(request, decisions) if digital.issuperset(pages) else None
        free |= {page for page in pages if page not in free and request.shelf.holds(piece_of(page))}
        return fast or Cuts(
            costs=tuple(0.0 if page in free else self._page_seconds for page in pages),
            starts=frozenset(pages),
            finish=len(pages) * self._finish_seconds,
            decisions=decisions,
        )

    def check(self, request: ParseRequest, tier: Tier, part: Path) -> None:
        """Raise if the part does not hold each page of the request once."""
        gather([part], request.first_page, request.last_page, request.failed_pages)
        if is_shard(request):
            check_shard(request, part)

    def read_pages(self, request: ParseRequest, tier: Tier, part: Path, progress: Progress) -> None:
        """Page stage: read those pages of `request.first_page..last_page` that have no text of their own.

        Raises:
            NotReady: `load` was not called.
            DocfleetError: the document cannot be opened.
        """
        if self._networks is None:
            raise NotReady("The embedded engine is not loaded yet; try again in a few seconds.", retry_after=5)
        if is_shard(request):
            write_shard(request, part, progress)
            progress = _unheard
        for seconds in write_part(self._networks, request, PartWriter(part), progress):
            self._page_seconds += _NEWEST_SHARE * (seconds - self._page_seconds)

    def finish(
        self, request: ParseRequest, tier: Tier, parts: Sequence[Path], output: Path, progress: Progress
    ) -> ParseReport:
        """Document stage: rebuild one PDF of all pages, let MinerU flash read it as a whole, write the files.

        Raises:
            ParseFailed: not one page could be read.
            DocfleetError: as `read_pdf_flash` and `write_outputs`.
        """
        output.mkdir(parents=True, exist_ok=True)
        first, last = request.options.page_range(request.pages)
        pages = gather(parts, first, last, request.failed_pages)
        failed = {page.record.page: page.record.cause for page in pages if page.record.state is PageState.FAILED}
        good = [page for page in pages if page.record.state is not PageState.FAILED]
        if not good:
            raise ParseFailed(f"Not one page of the document could be read. Page {first + 1}: {failed[first]}")
        recognised = [page.record for page in good if page.record.state is PageState.RECOGNISED]
        timings = {}
        progress(0)
        started = time.monotonic()
        cut = None if recognised else read_shards(request, parts)
        if cut:
            document = cut[0]
        elif recognised or failed:
            document = self._parse_rebuilt(request, good, failed, output)
        else:
            whole = (first, last) == (0, request.pages - 1)
            document = read_pdf_flash(request.source, method="txt", page_range=None if whole else (first, last))
        timings["parse"] = round(time.monotonic() - started, 3)
        failed |= {page: "The page is damaged and cannot be opened." for page in document.broken_pages}
        progress(0)
        started = time.monotonic()
        written = write_outputs(document.middle, document.model, request.options, output, request.filename)
        told = (WARNING.format(shards=cut[1]),) if cut else ()
        timings["render"] = round(time.monotonic() - started, 3)
        self._finish_seconds = newer_speed(self._finish_seconds, sum(timings.values()), len(pages))
        return ParseReport(
            tier=Tier.FLASH,
            engine=self.name if recognised else "mineru",
            engine_version=self.version if recognised else version("mineru"),
            pages=len(pages) - len(failed),
            failed_pages=tuple(FailedPage(page=page, cause=failed[page]) for page in sorted(failed)),
            files=written.files,
            warnings=(*told, *warnings_of(request, recognised), *written.warnings),
            timings=timings,
        )

    def _parse_rebuilt(
        self, request: ParseRequest, good: Sequence[GatheredPage], failed: dict[int, str], output: Path
    ) -> ParsedDocument:
        """Parse the rebuilt PDF; pages that cannot be copied are added to `failed`."""
        target = output / _REBUILT
        try:
            failed |= rebuild(request.source, good, target)
            numbers = [page.record.page for page in good if page.record.page not in failed]
            if not numbers:
                raise ParseFailed("Not one page of the document could be read: all are damaged.")
            return read_pdf_flash(target, method="txt", original_pages=numbers, declared_by=request.source)
        finally:
            target.unlink(missing_ok=True)


def _unheard(pages: int) -> None:
    """Take progress that was told already."""
