"""A worker's bench: its engines, loaded once, and the steps a claimed shard goes through.

claim -> decode -> Work -> perform -> Outcome -> encode -> report for the store
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from loguru import logger

from docfleet.engine.choice import Choice, choose, chosen
from docfleet.engine.interface import Engine, ParseReport, ParseRequest
from docfleet.errors import ParseFailed
from docfleet.files import DataFolder, remove_tree, sync_tree
from docfleet.options import ParseOptions
from docfleet.records import Claim, Stage
from docfleet.sharding.cutting import Cuts
from docfleet.shelf.folder import FolderShelf, Shelves
from docfleet.store.reuse import Following, hand_on
from docfleet.worker.courtesy import Courtesy, MakeRoom

#: Called with the pages finished so far in this shard.
PagesDone = Callable[[int], None]


@dataclass(frozen=True)
class Work:
    """A claimed shard, ready to be parsed."""

    claim: Claim
    request: ParseRequest
    choice: Choice
    shelf: FolderShelf
    #: Called where a probe has read its pages and goes on to join them.
    joining: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Outcome:
    """What one attempt made."""

    #: Folder with the result, complete and on disk.
    output: Path
    #: None after a page stage: its parts are the engine's business.
    report: ParseReport | None
    #: At which it was read.
    tier: str = ""
    #: Pages of the shard that were read, where it made room for a short document before its end.
    made_room_after: int | None = None


class Bench:
    """The steps, over the engines of this worker."""

    def __init__(
        self, folder: DataFolder, engines: Sequence[Engine], shelves: Shelves, courtesy: Courtesy | None = None
    ) -> None:
        """Make a bench.

        Args:
            folder: where documents, parts and results lie.
            engines: loaded, in order of preference.
            shelves: finished pages that may serve again.
            courtesy: asked between pages whether a short document should go first; None: none ever does.
        """
        self._folder = folder
        self._engines = engines
        self._shelves = shelves
        self._courtesy = courtesy

    def decode(self, claim: Claim) -> Work:
        """Turn a claim into a validated parse request and choose who reads it, unless that was done by who cut it.

        Raises:
            TierUnavailable: the tier asked for, or who began to read the document, cannot run here.
        """
        document = claim.document
        if claim.reader is None:
            choice = choose(self._engines, document.suffix, claim.options)
        else:
            choice = chosen(self._engines, document.suffix, claim.options, claim.reader)
        shelf = self._shelves.of(
            document, claim.job_id, engine=choice.engine.name, tier=choice.tier, shared=claim.options.cache
        )
        request = ParseRequest(
            source=self._folder.source(claim.job_id, document.suffix),
            suffix=document.suffix,
            filename=document.filename,
            pages=document.pages,
            first_page=claim.first_page,
            last_page=claim.last_page,
            options=_options_of(claim),
            counted_from=claim.options.page_range(document.pages)[0],
            failed_pages=claim.failed_pages,
            decisions=claim.decisions,
            shelf=shelf,
        )
        return Work(claim, request, choice, shelf)

    def perform(self, work: Work, pages_done: PagesDone) -> Outcome:
        """Do the shard's stage. What an earlier attempt left behind is overwritten.

        Raises:
            DocfleetError: the document cannot be parsed; another attempt would meet the same.
        """
        outcome = self._stage(work, _Progress(work.claim, pages_done, self._courtesy))
        return replace(outcome, tier=work.choice.tier.value)

    def _stage(self, work: Work, progress: _Progress) -> Outcome:
        claim = work.claim
        if claim.stage is Stage.DOCUMENT:
            parts = [self._folder.absolute(part) for part in claim.parts]
            return self._finish(work, parts, progress)
        part = self._folder.part(claim.job_id, claim.shard_id, claim.attempt)
        if claim.stage is Stage.PROBE and claim.all_given_up:
            # There is nothing left in it to find, and nothing an engine could make a document of.
            return Outcome(part, None)
        made_room_after = self._read(work, part, progress)
        if claim.stage is Stage.PAGES:
            sync_tree(part, self._folder.job(claim.job_id))
            return Outcome(part, None, made_room_after=made_room_after)
        if claim.stage is Stage.PROBE:
            work.joining()
            # Inside the part: two probes of a document may have the same number of attempt.
            return Outcome(self._finish(work, [part], progress, part / "probe").output, None)
        return self._finish(work, [part], progress)

    def cuts(self, work: Work) -> Cuts | None:
        """Ask the engine where the document may be cut. Once a document; the answer holds for all its shards.

        Raises:
            DocfleetError: the document cannot be opened.
        """
        return work.choice.engine.cuts(work.request, work.choice.tier)

    def encode(self, outcome: Outcome) -> dict[str, object]:
        """Return the report as the store keeps it."""
        return {"tier": outcome.tier} if outcome.report is None else outcome.report.to_json()

    def relative(self, path: Path) -> str:
        """Return the path as the store keeps it."""
        return self._folder.relative(path)

    def is_closed_off(self, error: OSError) -> bool:
        """Return whether the data folder's disk became read-only or went away, not a disk of somebody else's."""
        return self._folder.is_closed_off(error)

    def discard(self, claim: Claim) -> None:
        """Remove whatever this attempt wrote."""
        remove_tree(self._folder.part(claim.job_id, claim.shard_id, claim.attempt))
        if not claim.stage.is_part:
            remove_tree(self._folder.result(claim.job_id, claim.attempt))
        if not self._folder.source(claim.job_id, claim.document.suffix).exists():
            # The job ended, and its folder was removed, while this attempt still wrote into it.
            remove_tree(self._folder.job(claim.job_id))

    def tidy(self, claim: Claim) -> None:
        """Remove what the job's attempts worked with, now that its result is recorded."""
        if not claim.stage.is_part:
            remove_tree(self._folder.work(claim.job_id))

    def hand_on(self, store: Following) -> None:
        """Serve those who wait for a result that was just delivered; what fails here, the supervisor does."""
        with logger.catch(message="a result could not be handed on yet"):
            hand_on(store, self._folder)

    def clear(self, claim: Claim) -> None:
        """Remove all files of a job that failed: its row keeps the cause, nobody can use the rest."""
        remove_tree(self._folder.job(claim.job_id))

    def _read(self, work: Work, part: Path, progress: _Progress) -> int | None:
        remove_tree(part)
        part.mkdir(parents=True)
        engine, request = work.choice.engine, work.request
        made_room_after = None
        try:
            engine.read_pages(request, work.choice.tier, part, progress.add)
        except MakeRoom as short:
            made_room_after = short.pages
            request = replace(request, last_page=request.first_page + short.pages - 1)
        if work.shelf.taken:
            logger.info("job {}: {} finished pieces were there already", work.claim.job_id, work.shelf.taken)
        try:
            engine.check(request, work.choice.tier, part)
        except Exception as exc:
            logger.opt(exception=exc).warning("job {}: an unusable part", work.claim.job_id)
            work.shelf.forget()
            first, last = request.first_page + 1, request.last_page + 1
            raise ParseFailed(f"What engine {engine.name} made of pages {first}-{last} cannot be used.") from exc
        return made_room_after

    def _finish(self, work: Work, parts: Sequence[Path], progress: _Progress, output: Path | None = None) -> Outcome:
        output = output or self._folder.result(work.claim.job_id, work.claim.attempt)
        remove_tree(output)
        output.mkdir(parents=True)
        started = time.perf_counter()
        report = work.choice.engine.finish(work.request, work.choice.tier, parts, output, progress.add)
        sync_tree(output, self._folder.job(work.claim.job_id))
        logger.debug("document stage took {:.2f} s", time.perf_counter() - started)
        return Outcome(output, replace(report, warnings=work.choice.warnings + report.warnings))


def _options_of(claim: Claim) -> ParseOptions:
    """A probe reads its pages as if the caller had asked for them alone."""
    if claim.stage is not Stage.PROBE:
        return claim.options
    return claim.options.model_copy(update={"start_page_id": claim.first_page, "end_page_id": claim.last_page})


class _Progress:
    """Counts pages towards a shard's total; both stages of a whole document may report the same page."""

    def __init__(self, claim: Claim, tell: PagesDone, courtesy: Courtesy | None) -> None:
        self._claim = claim
        self._total = claim.last_page - claim.first_page + 1
        self._done = 0
        self._tell = tell
        self._courtesy = courtesy

    def add(self, pages: int) -> None:
        self._done = min(self._total, self._done + pages)
        self._tell(self._done)
        if self._courtesy is not None and pages:
            self._courtesy.between_pages(self._claim, self._done)
