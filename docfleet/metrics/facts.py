"""What one answer of `GET /metrics` is made of: plain records. None stands for a part that could not be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from docfleet.devices.records import Reading
from docfleet.metrics.traffic import TrafficCounts
from docfleet.records import WorkerReport, WorkerSlot
from docfleet.store.interface import Totals
from docfleet.store.progress import Progress
from docfleet.store.tallies import Tallies
from docfleet.vlm.local import LocalServer
from docfleet.vlm.records import EndpointRow

#: Parts that are read apart from one another: what is wrong with one must not hide the others.
PARTS = ("store", "devices", "processes", "disk", "vlm")


@dataclass(frozen=True, kw_only=True)
class StoreFacts:
    """What the store tells."""

    totals: Totals
    #: Refusals that the store was not told of yet.
    unwritten: int
    progress: Progress
    tallies: Tallies
    reports: Sequence[WorkerReport]
    max_concurrent: int | None


@dataclass(frozen=True, kw_only=True)
class DiskFacts:
    """Bytes."""

    free: int
    database: int
    results: int


@dataclass(frozen=True, kw_only=True)
class VlmFacts:
    """The VLM servers."""

    #: None: the router does not answer at this moment.
    rows: Sequence[EndpointRow] | None
    waiting: int
    #: Those that this machine runs itself.
    servers: Sequence[LocalServer] = ()


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All of it. Times are seconds since the epoch."""

    version: str
    python: str
    begun: float
    api_begun: float
    now: float
    #: That reading took.
    seconds: float
    plan: Sequence[WorkerSlot]
    spares: Sequence[WorkerSlot]
    jobs_limit: int
    pages_limit: int
    #: Bytes that are left free on the disk.
    disk_reserve: int
    waiting_requests: int
    waiting_for_room: int
    traffic: TrafficCounts
    store: StoreFacts | None
    #: By device; None: no reading that stands for now.
    devices: Mapping[str, Reading | None] | None
    #: Resident bytes of main, api and helpers.
    processes: Mapping[str, int] | None
    disk: DiskFacts | None
    #: None as well where the settings name no VLM server.
    vlm: VlmFacts | None
    #: Parts that could not be read.
    failed: frozenset[str] = frozenset()
