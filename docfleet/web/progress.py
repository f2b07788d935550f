"""`progress` in `GET /status`: done, failed, waiting, how fast and how long yet; by device and by VLM server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from docfleet.records import WorkerReport, WorkerState
from docfleet.store.progress import Progress
from docfleet.store.tallies import DeviceTally
from docfleet.web.doors import Doors
from docfleet.web.progress_schemas import DeviceProgress, DocumentsView, EndpointProgress, PagesView, ProgressView
from docfleet.web.readiness import standings
from docfleet.web.schemas import VlmView


def progress_view(
    doors: Doors, progress: Progress, reports: Sequence[WorkerReport], vlm: VlmView | None
) -> ProgressView:
    """Return it as it is shown."""
    begun = datetime.fromtimestamp(doors.begun or doors.started_at, UTC)
    return ProgressView(
        documents=DocumentsView(
            done=progress.documents_done,
            failed=progress.documents_failed,
            waiting=progress.documents_waiting,
            running=progress.documents_running,
        ),
        pages=PagesView(done=progress.pages_done, failed=progress.pages_failed, waiting=progress.pages_waiting),
        pages_per_second=round(progress.pages_per_second, 3),
        seconds_left=None if progress.seconds_left is None else round(progress.seconds_left, 1),
        since=begun.isoformat(timespec="seconds").replace("+00:00", "Z"),
        devices=_devices(doors, progress, reports),
        endpoints=[
            EndpointProgress(
                url=one.url,
                pages_done=one.pages,
                failures=one.failed,
                outstanding=one.in_flight,
                pages_per_second=one.pages_per_second,
                state=one.state,
            )
            for one in ([] if vlm is None else vlm.endpoints)
        ],
    )


def _devices(doors: Doors, progress: Progress, reports: Sequence[WorkerReport]) -> list[DeviceProgress]:
    """Those of the plan first, then those on which something was done in another run."""
    planned = Counter(slot.device for slot in doors.plan)
    busy = Counter(one.slot.device for one in standings(doors, reports) if one.state is WorkerState.BUSY)
    tallies = {one.device: one for one in progress.devices}
    names = dict.fromkeys([*planned, *(name for name in tallies if name)])
    return [_device(tallies.get(name, DeviceTally(device=name)), planned[name], busy[name]) for name in names]


def _device(tally: DeviceTally, workers: int, busy: int) -> DeviceProgress:
    return DeviceProgress(
        device=tally.device,
        workers=workers,
        busy=busy,
        shards_done=tally.shards_done,
        shards_failed=tally.shards_failed,
        pages_done=tally.pages_done + tally.pages_under_way,
        pages_failed=tally.pages_failed,
        pages_per_second=round(tally.pages_per_second, 3),
    )
