"""What travels between processes and rests in the store: frozen, self-explaining records.

A *job* is one document. It is cut into *shards*, each a range of pages at one *stage*. A worker *claims* a shard: the
claim is its lease, numbered by *attempt*, and only the holder of the newest lease may complete the shard.
Times are seconds since the epoch; pages are counted from 0 and ranges include both ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from docfleet.options import ParseOptions


class JobState(StrEnum):
    """Where a document stands."""

    #: Accepted, no shard claimed yet.
    QUEUED = "queued"
    #: At least one shard claimed.
    RUNNING = "running"
    #: Every page delivered.
    COMPLETED = "completed"
    #: Delivered without some pages, which are named.
    PARTIAL = "partial"
    #: Not delivered; the job has an error.
    FAILED = "failed"
    #: Stopped by its caller; nothing of it is kept.
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing more will happen to the job."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class Lane(StrEnum):
    """Who goes first. The batch lane gets a share all the same, so that it never starves."""

    #: Somebody waits for the answer.
    INTERACTIVE = "interactive"
    BATCH = "batch"


class ShardState(StrEnum):
    """Where a piece of work stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Stage(StrEnum):
    """What is to be done with a shard's pages."""

    #: Recognise pages (OCR, models); any worker, any order.
    PAGES = "pages"
    #: Gather the page shards, do what is document-wide, render. Once for a document.
    DOCUMENT = "document"
    #: Both at once, for a document that is not cut.
    WHOLE = "whole"
    #: Both at once over some pages, to see whether they can be read; nothing is kept.
    PROBE = "probe"

    @property
    def is_part(self) -> bool:
        """Whether it is over some of the pages, and can be halved; the others end the document."""
        return self in (Stage.PAGES, Stage.PROBE)


class WorkerState(StrEnum):
    """What a worker process is doing."""

    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    BUSY = "busy"
    #: It takes no new work while memory is short; the detail says which.
    RESTING = "resting"
    #: Its engine did not load, or its process died over it; it is tried again, later each time.
    FAILED = "failed"
    #: It leaves, with no work in hand, so that a fresh process takes its slot.
    RECYCLING = "recycling"
    #: Its engines are loaded; it waits to take over the slot of a worker that is gone or leaves.
    SPARE = "spare"
    GONE = "gone"


@dataclass(frozen=True, kw_only=True)
class ProcessIdentity:
    """A process beyond its number: numbers are given out again, start times are not."""

    pid: int
    #: Start time of the process as the system tells it (Linux: clock ticks since boot); 0 where unknown.
    started: int


@dataclass(frozen=True, kw_only=True)
class WorkerSlot:
    """A planned worker: which device, with which environment. One process fills a slot at a time."""

    index: int
    #: "cpu", "cuda:0", "npu:1", "mps".
    device: str
    #: Environment to set before anything heavy is imported.
    environment: dict[str, str] = field(default_factory=dict)
    #: Cores to bind the process to, as the kernel lists them ("0-31"); empty: to none.
    cpus: str = ""


@dataclass(frozen=True, kw_only=True)
class Document:
    """What is known of a document once it lies on disk."""

    #: Name given by the caller, cleaned: no path, no control characters. For people; never used as a path.
    filename: str
    #: Type by content, as a lower-case suffix without dot: "pdf", "png", "docx", ...
    suffix: str
    #: Size in bytes.
    size: int
    #: Hexadecimal digest of the bytes.
    sha256: str
    #: Pages of a PDF, frames of an image, 1 for what has no pages before it is laid out.
    pages: int


@dataclass(frozen=True, kw_only=True)
class FailedPage:
    """A page that could not be delivered, and why."""

    page: int
    cause: str


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """A shard to be made."""

    stage: Stage
    first_page: int
    last_page: int
    #: Expected seconds of a piece that cannot be cut; 0 where that is not known, or where it can be.
    seconds: float = 0.0

    @property
    def pages(self) -> int:
        """Number of pages in the range."""
        return self.last_page - self.first_page + 1


@dataclass(frozen=True, kw_only=True)
class Job:
    """One document on its road."""

    id: str
    state: JobState
    document: Document
    options: ParseOptions
    created_at: float
    lane: Lane = Lane.INTERACTIVE
    started_at: float | None = None
    finished_at: float | None = None
    #: Pages finished so far, of `document.pages` within the asked range.
    pages_done: int = 0
    #: Folder of the results, relative to the data folder; None until delivered.
    output: str | None = None
    #: What the worker reported (`ParseReport.to_json()`); None until delivered.
    report: dict[str, Any] | None = None
    #: `DocfleetError.record()`; None unless failed or cancelled.
    error: dict[str, Any] | None = None
    #: Whether the result was made for another job of the same document and options.
    cached: bool = False


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A piece of a job as it stands in the store."""

    id: int
    job_id: str
    #: Of the document's bytes.
    sha256: str
    stage: Stage
    first_page: int
    last_page: int
    state: ShardState
    #: How often it was claimed.
    attempt: int
    pages_done: int = 0
    owner: ProcessIdentity | None = None
    worker_index: int | None = None
    claimed_at: float | None = None
    heartbeat_at: float | None = None
    finished_at: float | None = None
    #: When its worker is killed; None before the worker has said how long it may take.
    deadline_at: float | None = None
    #: Output of the shard, relative to the data folder.
    output: str | None = None
    error: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A worker's lease on a shard, with all it needs to do the work."""

    shard_id: int
    attempt: int
    owner: ProcessIdentity
    stage: Stage
    first_page: int
    last_page: int
    job_id: str
    document: Document
    options: ParseOptions
    #: Outputs of the job's finished page shards, in page order, relative to the data folder. Document stage only.
    parts: tuple[str, ...] = ()
    #: Pages given up, in page order: the document is read without them.
    failed_pages: tuple[FailedPage, ...] = ()
    #: What the engine decided when the document was cut.
    decisions: dict[str, Any] = field(default_factory=dict)
    #: "engine/tier" of whoever cut the document: nobody else reads its pages. None: it was not cut.
    reader: str | None = None

    @property
    def all_given_up(self) -> bool:
        """Whether no page of the range is left to be read."""
        given_up = {failed.page for failed in self.failed_pages}
        return given_up.issuperset(range(self.first_page, self.last_page + 1))


@dataclass(frozen=True, kw_only=True)
class Revocation:
    """A lease that was taken from a worker which may not know it yet."""

    shard_id: int
    job_id: str
    owner: ProcessIdentity
    slot: int
    since: float
    #: The worker has stopped and left the files alone.
    let_go: bool


@dataclass(frozen=True, kw_only=True)
class WorkerReport:
    """What a worker says of itself, kept in the store for `/status` and the supervisor."""

    slot: int
    identity: ProcessIdentity
    device: str
    state: WorkerState
    #: Short text for people: the model source, or why the engine did not load.
    detail: str = ""
    heartbeat_at: float = 0.0
    started_at: float = 0.0
    shard_id: int | None = None
    documents_done: int = 0
    pages_done: int = 0
    #: Resident memory in bytes, children included.
    rss: int = 0
    #: Fingerprint of what its engines would make of a document; empty until they are loaded.
    engines: str = ""
    #: The process is gone; its slot is free.
    ended: bool = False
    #: Processes in a row that died in this slot before they were ready.
    crashes: int = 0
    #: When loading is tried next; 0: nothing went wrong.
    retry_at: float = 0.0
    #: Exit status of the last process that died here before it was ready; negative: the signal that killed it.
    exit_status: int | None = None
