"""`GET /metrics`: the server's numbers for Prometheus."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from loguru import logger
from starlette.responses import Response

from docfleet import __version__
from docfleet.devices.records import Reading
from docfleet.metrics.exposition import CONTENT_TYPE, render
from docfleet.metrics.facts import DiskFacts, Facts, StoreFacts, VlmFacts
from docfleet.metrics.processes import resident_bytes
from docfleet.metrics.samples import samples
from docfleet.metrics.sharing import Shared
from docfleet.metrics.traffic import TrafficCounts
from docfleet.store.progress import progress_of
from docfleet.vlm.records import EndpointRow
from docfleet.web.doors import Doors
from docfleet.web.gpu import devices

#: Seconds for which one collection serves all who ask.
FRESH = 1.0
#: Seconds between two looks at what all results weigh, which goes over every job.
_WEIGHED_FOR = 60.0

T = TypeVar("T")


class MetricsDoor:
    """Collects when it is asked, at most once at a time. For one event loop."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._shared = Shared(self._collect, FRESH)
        # A thread of its own: a crowd of uploads that fills the shared ones is what one wants to see here.
        self._limiter = CapacityLimiter(1)
        self._weighed: tuple[int, float] | None = None

    async def metrics(self) -> Response:
        """Return the server's numbers in Prometheus' text format, as they were at most a second ago."""
        return Response(await self._shared.get(), media_type=CONTENT_TYPE)

    async def _collect(self) -> bytes:
        begun = time.perf_counter()
        # Here, and not in the thread: these belong to the loop.
        traffic = self._doors.traffic.counts()
        pool = self._doors.vlm
        state = None if pool is None else await pool.state()
        return await run_sync(partial(self._read, traffic, state, begun), limiter=self._limiter)

    def _read(self, traffic: TrafficCounts, vlm: dict[str, Any] | None, begun: float) -> bytes:
        doors, failed = self._doors, set[str]()
        store = _part("store", self._store, failed)
        readings = _part("devices", self._devices, failed)
        processes = _part("processes", resident_bytes, failed)
        disk = _part("disk", self._disk, failed)
        pool = _part("vlm", partial(self._vlm, vlm), failed)
        facts = Facts(
            version=str(doors.facts.get("version", __version__)),
            python=platform.python_version(),
            begun=doors.begun or doors.started_at,
            api_begun=doors.started_at,
            now=time.time(),
            seconds=time.perf_counter() - begun,
            plan=doors.plan,
            spares=doors.spares,
            jobs_limit=doors.admission.limits.jobs,
            pages_limit=doors.admission.limits.pages,
            disk_reserve=doors.disk_reserve,
            waiting_requests=doors.watch.waiting,
            waiting_for_room=doors.admission.waiting,
            traffic=traffic,
            store=store,
            devices=readings,
            processes=processes,
            disk=disk,
            vlm=pool,
            failed=frozenset(failed),
        )
        return render(samples(facts))

    def _store(self) -> StoreFacts:
        store = self._doors.store
        totals, tallies = store.totals(), store.tallies()
        return StoreFacts(
            totals=totals,
            unwritten=self._doors.admission.unwritten,
            progress=progress_of(totals, store.backlog(), tallies),
            tallies=tallies,
            reports=store.workers(),
            max_concurrent=store.max_concurrent(),
        )

    def _devices(self) -> dict[str, Reading | None]:
        gauges = self._doors.gauges
        latest = {one.device: None if gauges is None else gauges.latest(one.device) for one in devices(self._doors)}
        return {device: None if sample is None else sample.reading for device, sample in latest.items()}

    def _disk(self) -> DiskFacts:
        folder, now = self._doors.folder, time.monotonic()
        if self._weighed is None or now - self._weighed[1] >= _WEIGHED_FOR:
            self._weighed = (self._doors.store.stored_bytes(), now)
        return DiskFacts(
            free=shutil.disk_usage(folder.root).free,
            database=sum(_size(folder.database.with_name(folder.database.name + end)) for end in ("", "-wal", "-shm")),
            results=self._weighed[0],
        )

    def _vlm(self, state: dict[str, Any] | None) -> VlmFacts | None:
        if self._doors.vlm is None:
            return None
        servers = self._doors.vlm.servers()
        if state is None:
            return VlmFacts(rows=None, waiting=0, servers=servers)
        rows = [EndpointRow.from_json(row) for row in state["endpoints"]]
        return VlmFacts(rows=rows, waiting=int(state["waiting"]), servers=servers)


def _size(path: Path) -> int:
    # The log comes and goes.
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _part(name: str, read: Callable[[], T], failed: set[str]) -> T | None:
    """Read one part; without it the others are told all the same, and that it is missing."""
    try:
        return read()
    except Exception as exc:
        logger.warning("metrics: {} could not be read ({}: {})", name, type(exc).__name__, exc)
        failed.add(name)
        return None
