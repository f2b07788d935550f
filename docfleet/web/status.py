"""`GET /status`: the server as a whole, for people and dashboards."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response

from docfleet import __version__
from docfleet.devices.gauges import KEPT_SECONDS
from docfleet.records import Shard, WorkerReport, WorkerState
from docfleet.store.interface import Totals
from docfleet.store.progress import Progress, progress_of
from docfleet.web.answers import Addresses, json_of
from docfleet.web.device_schemas import DiskView
from docfleet.web.doors import Doors
from docfleet.web.gpu import devices as gauge_views
from docfleet.web.gpu import free_disk, recommendations
from docfleet.web.progress import progress_view
from docfleet.web.readiness import Standing, standings
from docfleet.web.schemas import QueueView, SpareView, StatusView, TotalsView, VlmView, WorkerView
from docfleet.web.vlm import vlm_view


@dataclass(frozen=True)
class _Told:
    """What the store told for one answer."""

    totals: Totals
    progress: Progress
    reports: list[WorkerReport]
    leases: list[Shard]
    cap: int | None
    disk: DiskView


class Status:
    """Puts together what the workers, the store and the start of the server know."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors

    async def status(self, request: Request) -> Response:
        """Return devices, workers and what each does, the queue, totals, speed and warnings."""
        vlm = await vlm_view(self._doors.vlm)
        return json_of(self._view(await run_sync(self._read), vlm, Addresses.of(request)))

    def _read(self) -> _Told:
        store = self._doors.store
        totals = store.totals()
        return _Told(
            totals=totals,
            progress=progress_of(totals, store.backlog(), store.tallies()),
            reports=store.workers(),
            leases=store.leases(),
            cap=store.max_concurrent(),
            disk=free_disk(self._doors),
        )

    def _view(self, told: _Told, vlm: VlmView | None, addresses: Addresses) -> StatusView:
        doors, totals, reports = self._doors, told.totals, told.reports
        jobs = {shard.id: shard.job_id for shard in told.leases}
        return StatusView(
            version=str(doors.facts.get("version", __version__)),
            uptime=round(time.time() - doors.started_at, 3),
            devices=doors.facts.get("devices", []),
            gauges=gauge_views(doors),
            gauges_history=f"{addresses.root}/api/gpu-status?history={KEPT_SECONDS:.0f}",
            free_disk=told.disk,
            recommendations=recommendations(doors, told.cap),
            model_source=doors.facts.get("model_source"),
            workers=[_worker(one, jobs) for one in standings(doors, reports)],
            spares=_spares(doors, reports),
            queue=QueueView(
                queued_jobs=totals.queued_jobs,
                running_jobs=totals.running_jobs,
                queued_pages=totals.queued_pages,
                backlog_jobs=totals.backlog_jobs,
                backlog_pages=totals.backlog_pages,
                max_backlog_jobs=doors.admission.limits.jobs,
                max_backlog_pages=doors.admission.limits.pages,
                waiting_for_room=doors.admission.waiting,
            ),
            totals=TotalsView(
                completed=totals.completed,
                partial=totals.partial,
                failed=totals.failed,
                cancelled=totals.cancelled,
                refused=totals.refused + doors.admission.unwritten,
                pages=totals.pages,
                retries=totals.retries,
                cached=totals.cached,
                recycled=totals.recycled,
            ),
            pages_per_second=totals.pages_per_second,
            progress=progress_view(doors, told.progress, reports, vlm),
            waiting_requests=doors.watch.waiting,
            vlm=vlm,
            warnings=list(doors.facts.get("warnings", ())),
        )


def _worker(one: Standing, jobs: dict[int, str]) -> WorkerView:
    report = one.report
    if report is None:
        return WorkerView(slot=one.slot.index, device=one.slot.device, state=one.state, detail=one.explanation)
    return WorkerView(
        slot=one.slot.index,
        device=report.device,
        state=report.state,
        detail=report.detail,
        pid=report.identity.pid,
        job_id=None if report.shard_id is None else jobs.get(report.shard_id),
        heartbeat_age=None if one.silence is None else round(one.silence, 3),
        rss=report.rss,
        crashes=report.crashes,
        exit=None if report.exit_status is None else _told(report.exit_status),
        next_try=round(max(0.0, report.retry_at - time.time()), 3) if report.retry_at else None,
        documents_done=report.documents_done,
        pages_done=report.pages_done,
    )


def _spares(doors: Doors, reports: Sequence[WorkerReport]) -> list[SpareView]:
    newest = {report.slot: report for report in reports}
    views = []
    for slot in doors.spares:
        report = newest.get(slot.index)
        if report is None:
            views.append(SpareView(device=slot.device, state=WorkerState.STARTING, detail="it has not reported yet"))
        else:
            pid = None if report.ended else report.identity.pid
            views.append(
                SpareView(device=report.device, state=report.state, detail=report.detail, pid=pid, rss=report.rss)
            )
    return views


def _told(status: int) -> str:
    """Return a process's exit status in words: negative is the signal that killed it."""
    if status >= 0:
        return f"status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"
