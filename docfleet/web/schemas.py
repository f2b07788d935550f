"""The shapes that go out, as models: they make the answers, and the API description is made of them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from docfleet.records import JobState, Lane, ShardState, Stage, WorkerState
from docfleet.web.device_schemas import DeviceView, DiskView, Recommendations
from docfleet.web.progress_schemas import ProgressView
from docfleet.web.shapes import Out as _Out
from docfleet.web.shapes import Text
from docfleet.web.vlm_schemas import VlmServer


class Error(_Out):
    """What went wrong, and the remedy."""

    code: str = Field(examples=["invalid_option"])
    message: Text = Field(examples=["option 'tier': use auto, flash, basic, standard or advanced."])
    retryable: bool = Field(description="whether the same request may succeed later")


class ErrorAnswer(_Out):
    """Every error of this server."""

    error: Error


class Links(_Out):
    """Where to ask on."""

    job: str = Field(examples=["/jobs/0f8fad5bd9cb469fa16570867728950e"])
    result: str
    events: str = Field(description="its progress as server-sent events")


class MissingPage(_Out):
    """A page that could not be delivered."""

    page: int = Field(description="counted from 0")
    cause: Text


class Answer(_Out):
    """One parsed document."""

    job_id: str
    filename: Text
    status: Literal[JobState.COMPLETED, JobState.PARTIAL] = Field(description="partial: some pages failed")
    output_dir: str = Field(description="folder of the result on the server's disk")
    pages: int = Field(description="pages delivered")
    failed_pages: list[MissingPage] = Field(default=[])
    tier: str = Field(description="tier really used")
    backend: str = Field(description="the tier in the words of MinerU 2.x and 3.x")
    engine: str
    engine_version: str = ""
    files: dict[Text, str] = Field(description="every file made: its name and where to get it")
    timings: dict[str, float] = Field(default={}, description="seconds by step")
    warnings: list[Text] = Field(default=[], description="anything asked for and not done")
    cached: bool = Field(default=False, description="made for another request for the same; timings are that one's")
    markdown: Text | None = Field(
        default=None, description="text of document.md; null if markdown was not among the formats"
    )


class StillRunning(_Out):
    """The document is accepted and not ready yet; nothing is lost, ask at the links."""

    job_id: str
    filename: Text
    status: Literal[JobState.QUEUED, JobState.RUNNING]
    links: Links


class Failure(_Out):
    """A document of several that was not parsed."""

    filename: Text
    job_id: str | None = Field(default=None, description="null if the document was refused before it became a job")
    status: Literal["failed"] = "failed"
    error: Error


class Results(_Out):
    """Several documents, in the order they were sent; one's failure leaves the others alone."""

    results: list[Answer | StillRunning | Failure]
    succeeded: int
    failed: int
    running: int = Field(description="not ready when the waiting time was over")


class Accepted(_Out):
    """A document that became a job; nothing of it is lost from now on."""

    job_id: str
    filename: Text
    status: JobState = Field(description="queued, unless its Idempotency-Key stands for a job that came before")
    lane: Lane
    links: Links


class AcceptedJobs(_Out):
    """Several documents, in the order they were sent."""

    jobs: list[Accepted | Failure]
    accepted: int
    failed: int


class ShardView(_Out):
    """A piece of a job."""

    stage: Stage
    first_page: int
    last_page: int
    state: ShardState
    attempt: int = Field(description="how often it was taken up")
    pages_done: int
    worker: int | None = Field(default=None, description="slot of the worker that has it, or had it last")


class JobView(_Out):
    """How a job stands. Times are seconds since 1970-01-01 UTC."""

    job_id: str
    filename: Text
    state: JobState
    pages: int = Field(description="pages asked for")
    pages_done: int
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    lane: Lane
    attempts: int = Field(description="how often the piece that was taken up most often was taken up")
    queue_position: int | None = Field(description="documents that are taken up before it; null when nothing waits")
    eta: float | None = Field(
        description="seconds until it is done, by the speed of the last minute; null where that is not known, or while "
        "nothing may be taken up (max_concurrent 0)"
    )
    shards: list[ShardView]
    cached: bool = Field(default=False, description="made for another request for the same")
    error: Error | None = None
    links: Links


class JobSummary(_Out):
    """A job in a list. Times are seconds since 1970-01-01 UTC."""

    job_id: str
    filename: Text
    state: JobState
    lane: Lane
    pages: int = Field(description="pages asked for")
    pages_done: int
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    error: Error | None = None
    links: Links


class JobList(_Out):
    """Jobs, newest first."""

    jobs: list[JobSummary]
    next_cursor: int | None = Field(description="gives older jobs as `cursor`; null at the end")
    next: str | None = Field(description="address of the older jobs; null at the end")


class WorkerView(_Out):
    """One worker process."""

    slot: int
    device: str
    state: WorkerState
    detail: Text = ""
    pid: int | None = None
    job_id: str | None = Field(default=None, description="the job it works on")
    heartbeat_age: float | None = Field(default=None, description="seconds since it was heard of")
    rss: int = Field(default=0, description="resident memory in bytes")
    crashes: int = Field(default=0, description="processes in a row that died here before they were ready")
    exit: str | None = Field(default=None, description="how the last of them ended")
    next_try: float | None = Field(default=None, description="seconds until loading is tried again")
    documents_done: int = 0
    pages_done: int = 0


class SpareView(_Out):
    """A process that waits, with its engines loaded (state spare), to take over from a worker; it is no worker yet."""

    device: str
    state: WorkerState
    detail: Text = ""
    pid: int | None = None
    rss: int = Field(default=0, description="resident memory in bytes")


class PoisonView(_Out):
    """A document that killed workers. Times are seconds since 1970-01-01 UTC."""

    sha256: str = Field(description="of the document's bytes")
    filename: Text = Field(description="as it was called last")
    options: dict[str, Any] = Field(description="what it was read with; with others it is another case")
    deaths: int = Field(description="attempts that ended with a dead worker; from 2 on it is treated with care")
    cause: Text = Field(description="of the last death")
    pages: list[MissingPage] = Field(description="pages that are left out")
    since: float
    until: float = Field(description="when it is forgotten")


class PoisonList(_Out):
    """Documents that killed workers, what was added last first."""

    documents: list[PoisonView]


class Forgotten(_Out):
    """What is not remembered any more."""

    forgotten: int = Field(description="entries that there were")


class Readiness(_Out):
    """Whether documents are worked on now."""

    ready: bool
    workers: dict[str, Text] = Field(description="slot: state, and why it is not ready")


class Liveness(_Out):
    """The process answers."""

    alive: Literal[True] = True


class QueueView(_Out):
    """The work at hand."""

    queued_jobs: int
    running_jobs: int
    queued_pages: int
    backlog_jobs: int = Field(description="accepted and not done")
    backlog_pages: int = Field(description="accepted and not done")
    max_backlog_jobs: int
    max_backlog_pages: int
    waiting_for_room: int = Field(description="requests that wait before they are let in")


class TotalsView(_Out):
    """Since the data folder was made."""

    completed: int
    partial: int
    failed: int
    cancelled: int
    refused: int = Field(description="documents and requests sent away because there was too much to do")
    pages: int
    retries: int = Field(description="attempts that ended without a result and were tried again")
    cached: int = Field(description="documents that were served with the result of another request for the same")
    recycled: int = Field(description="workers that were replaced to keep memory flat")


class VlmEndpoint(_Out):
    """One VLM server."""

    id: str = Field(examples=["5f1c0de8a9b3"])
    url: Text = Field(examples=["http://10.0.0.5:8001"])
    state: Literal["new", "up", "resting", "down", "trial", "draining"] = Field(
        description="resting: it said that it has too much to do; down: it gets nothing until it is back; "
        "trial: one request shows whether it works again; draining: it was taken out and finishes what it has"
    )
    reason: Text = Field(description="why it is down")
    pooled: bool = Field(description="one of the pool; false: callers named it in server_url")
    has_key: bool
    model: Text
    in_flight: int = Field(description="requests that it has now")
    limit: int = Field(description="requests at once that it gets at present; adapts to what it can do")
    done: int
    failed: int
    pages: int = Field(default=0, description="pages of which the layout was read there; each takes more requests")
    seconds: float | None = Field(description="that a request takes there, smoothed")
    per_second: float = Field(description="requests, over the last minute")
    pages_per_second: float = Field(
        default=0.0, description="over the last minute, or the part of it in which there was work"
    )


class VlmView(_Out):
    """The pool of VLM servers."""

    available: bool = Field(description="false for a moment after the router was lost; requests wait, none is lost")
    waiting: int = Field(description="requests that have no server yet")
    endpoints: list[VlmEndpoint]
    servers: list[VlmServer] = Field(default=[], description="those that this server runs itself (`vlm_servers`)")


class StatusView(_Out):
    """The server as a whole."""

    version: str
    uptime: float = Field(description="seconds")
    devices: Any = Field(description="what was found on this machine")
    gauges: list[DeviceView] = Field(description="the devices as they are now")
    gauges_history: str = Field(description="address of their readings over the last hour")
    free_disk: DiskView
    recommendations: Recommendations
    model_source: Any
    workers: list[WorkerView]
    spares: list[SpareView] = Field(description="processes that wait to take over from a worker")
    queue: QueueView
    totals: TotalsView
    pages_per_second: float = Field(description="over the last minute")
    progress: ProgressView
    waiting_requests: int
    vlm: VlmView | None = Field(description="null where the settings name no VLM server")
    warnings: list[Text]
