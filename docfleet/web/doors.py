"""What the doors are given: plain values and the roles of other rooms, handed in once by whoever builds the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.requests import Request

from docfleet.devices.gauges import Gauges
from docfleet.files import DataFolder
from docfleet.intake.accept import AwaitsRoom
from docfleet.intake.spool import Upload
from docfleet.metrics.traffic import Traffic
from docfleet.records import Job, Shard, WorkerSlot
from docfleet.store.admission import Terms
from docfleet.store.interface import Jobs
from docfleet.store.poison import Poison
from docfleet.store.pressure import Pressure
from docfleet.store.tallies import Tallying
from docfleet.vlm.local import LocalServer
from docfleet.web.admission import Admission
from docfleet.web.feed import ProgressFeed
from docfleet.web.waiting import JobWatch

#: Spools the documents of one request to disk: (request, data folder, limit of the body in bytes).
Receive = Callable[[Request, DataFolder, int], Awaitable[Sequence[Upload]]]


class Accepts(Protocol):
    """Turns uploads into jobs."""

    async def accept(self, upload: Upload, terms: Terms, patience: AwaitsRoom) -> Job:
        """Make a job of the upload and take its file; wait for room as long as `patience` lasts.

        Raises:
            DocfleetError: the document or its options cannot be used, or there is no room for another.
        """
        ...


class VlmPool(Protocol):
    """The VLM servers, and who is one of them."""

    async def state(self) -> dict[str, Any] | None:
        """Return `{"endpoints": [...], "waiting": n}`; None while nobody knows."""
        ...

    def servers(self) -> list[LocalServer]:
        """Return those that this machine runs itself."""
        ...

    async def add(self, url: str, key: str | None) -> str:
        """Add a server, or bring it back. Return its id.

        Raises:
            DocfleetError: it may not be used.
        """
        ...

    async def drain(self, endpoint_id: str) -> None:
        """Take a server out.

        Raises:
            NotFound: there is none of that id.
        """
        ...


class DoorStore(Jobs, Poison, Pressure, Tallying, Protocol):
    """What the doors ask of a store: four roles, and what `/status` and `/metrics` look at."""

    def leases(self) -> list[Shard]:
        """Return every shard that a worker holds."""
        ...

    def stored_bytes(self) -> int:
        """Return what all measured jobs weigh together. Goes over every job."""
        ...


@dataclass(frozen=True, kw_only=True)
class Doors:
    """Everything the doors need."""

    store: DoorStore
    folder: DataFolder
    intake: Accepts
    receive: Receive
    #: Waits for jobs; its `release()` lets every waiting request answer at once when the server is to end.
    watch: JobWatch
    #: Largest request body in bytes.
    body_limit: int
    #: Seconds `/predict` waits before it answers with the job's address instead of the result.
    wait_timeout: float
    #: Who may come in.
    admission: Admission
    #: Seconds for which an Idempotency-Key is remembered.
    key_seconds: float = 86400.0
    #: Tells listeners how jobs get on; its `release()` ends their streams.
    feed: ProgressFeed
    #: The workers there should be.
    plan: tuple[WorkerSlot, ...]
    #: Slots of processes that are given no work before they have taken over from a worker.
    spares: tuple[WorkerSlot, ...] = ()
    #: For `/status`, read at each request: version, devices, recommendations, model_source, warnings.
    facts: Mapping[str, Any]
    #: Readings of the devices; None: nobody reads them.
    gauges: Gauges | None = None
    #: When this process opened the doors, seconds since the epoch.
    started_at: float
    #: When the server began, which may have had other such processes before; 0: it is the first.
    begun: float = 0.0
    #: A worker that was silent for so many seconds does not count as ready.
    stale_seconds: float = 60.0
    #: Counts of requests.
    traffic: Traffic = field(default_factory=Traffic)
    #: Bytes that are left free on the disk.
    disk_reserve: int = 0
    #: The pool of VLM servers; None where the settings name none.
    vlm: VlmPool | None = None
