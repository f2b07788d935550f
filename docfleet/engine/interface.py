"""What an engine is: it turns a document into recognised pages, and those into result files.

Two calls, one for each stage. *Page stage*: read a range of pages into a part folder; any worker, any order, as many
ranges at once as there are workers. *Document stage*: once over the whole, from all parts in page order. A document
that is not cut goes through both in one worker, one after the other. The parts are the engine's own business; only
the engine that wrote a part reads it. Sharded output must equal unsharded output, byte for byte.

Engines are found through the entry-point group `docfleet.engines`; each must pass the engine contract tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from docfleet.options import ParseOptions, Tier
from docfleet.records import FailedPage
from docfleet.sharding.cutting import Cuts

#: Called with the number of pages finished since the last call. May raise to stop the work. In the page stage it is
#: called where a shard may begin next (`Cuts.starts`), and when it raises, the part holds the pages told of so far.
Progress = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class EngineContext:
    """What a worker knows when it loads its engines. Its environment is already set."""

    #: "cpu", "cuda:0", "npu:0", "mps".
    device: str
    #: Threads that native code may use in this worker.
    threads: int
    #: huggingface | modelscope | local | embedded; decided once for all workers.
    model_source: str
    #: Whether that is so because no hub answered at the start.
    hubs_unreached: bool = False
    #: VLM server for tiers standard and advanced where the caller names none; None: the router's pool while it has a
    #: server, else the VLM here.
    vlm_server_url: str | None
    #: What stands behind that address, where it changes with each start: results of other servers differ.
    vlm_identity: tuple[str, ...] = ()
    #: Through which VLM servers that callers name are reached (`docfleet.addresses.to_segment`); None: directly.
    vlm_router: str | None = field(default=None, repr=False)
    #: Scratch space of this worker, emptied at its start.
    scratch: Path
    #: For `load`, where too little memory was free for a part that the engine can do without: once called, a fresh
    #: process loads everything anew after a while.
    try_later: Callable[[], None] = field(default=lambda: None, compare=False, repr=False)


class PageShelf(Protocol):
    """Finished pieces of this document's page stage, for whoever reads it next: other ranges, formats, attempts.

    What a piece is, a page or a window of pages, is the engine's knowledge; one that is cheap to make is not worth
    keeping. Pieces of another document, engine, version or tier are never found. Whatever else a piece depends on
    (which pages, options, what was decided for the whole document) must stand in the mapping that names it, which
    becomes JSON. A result made of kept pieces must equal a fresh one byte for byte. Nothing here raises or waits.
    """

    def get(self, piece: Mapping[str, Any]) -> bytes | None:
        """Return a piece as it was put there, or None."""
        ...

    def put(self, piece: Mapping[str, Any], content: bytes) -> None:
        """Keep a piece that is finished. Call it as soon as it is: the next moment may be a kill."""
        ...

    def holds(self, piece: Mapping[str, Any]) -> bool:
        """Return whether `get` would probably find the piece: enough to tell what a document will cost."""
        ...


class NoShelf:
    """Keeps nothing."""

    def get(self, piece: Mapping[str, Any]) -> bytes | None:
        """Find nothing."""
        return None

    def put(self, piece: Mapping[str, Any], content: bytes) -> None:
        """Keep nothing."""

    def holds(self, piece: Mapping[str, Any]) -> bool:
        """Hold nothing."""
        return False


@dataclass(frozen=True, kw_only=True)
class ParseRequest:
    """One document, or a range of it, validated and ready to be read."""

    source: Path
    #: Type by content, without dot.
    suffix: str
    #: For titles and messages only.
    filename: str
    #: Pages of the whole document, and the range wanted of it (from 0, inclusive).
    pages: int
    first_page: int
    last_page: int
    options: ParseOptions
    #: Pages given up, in page order: read the others, and report these.
    failed_pages: tuple[FailedPage, ...] = ()
    #: What `cuts` decided for the document; empty where nobody asked.
    decisions: dict[str, Any] = field(default_factory=dict)
    #: Page (from 0) that windows of pages are counted from; None: the first of the wanted range. Where a window begins
    #: decides whether it is found on the shelf.
    counted_from: int | None = None
    #: Memory ran out in an earlier try: of what is usually held at once (window, batch) take this share; 1, or less.
    memory_share: float = 1.0
    #: For `read_pages` and `cuts`.
    shelf: PageShelf = field(default_factory=NoShelf, compare=False, repr=False)

    @property
    def skipped(self) -> frozenset[int]:
        """The pages given up."""
        return frozenset(failed.page for failed in self.failed_pages)


@dataclass(frozen=True, kw_only=True)
class ParseReport:
    """What came out. Goes to the store as JSON and from there to every door."""

    #: Tier and engine really used, and the engine's version: results are comparable only within one version.
    tier: str
    engine: str
    engine_version: str
    #: Pages delivered.
    pages: int
    failed_pages: tuple[FailedPage, ...] = ()
    #: Files made, relative to the output folder; images are under `images/`.
    files: tuple[str, ...] = ()
    #: Anything asked for and not done, or done less well than could be.
    warnings: tuple[str, ...] = ()
    #: Seconds by step.
    timings: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


class Engine(Protocol):
    """An implementation reads documents; it is built, loaded and used inside one worker process."""

    name: ClassVar[str]

    @property
    def version(self) -> str:
        """Version that decides whether two results are comparable."""
        ...

    def load(self, context: EngineContext) -> None:
        """Import what is heavy and load weights. May take minutes.

        Raises:
            Exception: whatever keeps all of it from loading, too little free memory among it. The worker says so, takes
                no work, and calls it again, later each time.
        """
        ...

    def missing(self, tier: Tier, suffix: str, options: ParseOptions) -> str | None:
        """Return why such a document cannot be read at this tier here and how to get it, or None if it can. Cheap."""
        ...

    def cuts(self, request: ParseRequest, tier: Tier) -> Cuts | None:
        """Return what the page stage of the wanted range costs and where it may be cut; None: nowhere.

        Called once for a document, before anything is read; must be cheap beside the reading.
        """
        ...

    def check(self, request: ParseRequest, tier: Tier, part: Path) -> None:
        """Raise, whatever it be, if what `read_pages` wrote for `request` cannot be used. Cheap."""
        ...

    def read_pages(self, request: ParseRequest, tier: Tier, part: Path, progress: Progress) -> None:
        """Page stage: recognise pages `request.first_page..last_page` into the new folder `part`.

        Raises:
            OutOfDeviceMemory: also in the library's own words (`docfleet.engine.memory`). It is then called again
                with a smaller `request.memory_share`.
            DocfleetError: with the remedy that the caller shall see.
        """
        ...

    def finish(
        self, request: ParseRequest, tier: Tier, parts: Sequence[Path], output: Path, progress: Progress
    ) -> ParseReport:
        """Document stage: make the result files of the whole range in the new folder `output`.

        A page of `request.skipped` may be in `parts` all the same, where it was given up after they were made. It is to
        be left out as any other that was given up.

        Raises:
            DocfleetError: with the status and remedy that the caller shall see.
        """
        ...
