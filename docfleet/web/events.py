"""`GET /jobs/{id}/events`: a job's progress as server-sent events.

An event tells where the job stands, so whoever resumes after any event misses nothing. Its id is the place on the
job's road, which only goes forward: "<0 queued, 1 running, 2 ended>.<pages done>".
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Header
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from docfleet.records import JobState
from docfleet.store.admission import JobProgress
from docfleet.web.answers import Addresses
from docfleet.web.doors import Doors
from docfleet.web.feed import ProgressFeed
from docfleet.web.jobs import JobId, find_job
from docfleet.web.problems import to_json

#: Seconds of silence after which a comment is sent, so that proxies and callers see that the line is alive.
HEARTBEAT = 15.0
#: Milliseconds after which a caller that lost the line comes back.
_COME_BACK = 2000
_ID = re.compile(r"([0-2])\.([0-9]{1,9})")

LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", description="id of the last event that was seen", examples=["1.12"])
]
Place = tuple[int, int]


class EventDoor:
    """Streams of events."""

    def __init__(self, doors: Doors, *, heartbeat: float = HEARTBEAT) -> None:
        self._doors = doors
        self._heartbeat = heartbeat

    async def events(self, job_id: JobId, request: Request, last_event_id: LastEventId = None) -> Response:
        """Tell how the job gets on until it ends: `progress` events, one `end` event, comments in between.

        Whoever has seen the end gets 204, after which browsers do not come back.
        """
        job = await find_job(self._doors, job_id)
        seen = _place_from(last_event_id)
        if job.state.final and seen is not None and seen[0] == _rank(job.state):
            return Response(status_code=204)
        return StreamingResponse(
            _events(self._doors.feed, job.id, seen, Addresses.of(request), self._heartbeat),
            media_type="text/event-stream",
            # Proxies that gather answers would hold events back.
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )


async def _events(
    feed: ProgressFeed, job_id: str, seen: Place | None, addresses: Addresses, heartbeat: float
) -> AsyncIterator[bytes]:
    yield f"retry: {_COME_BACK}\n\n".encode()
    stream = feed.follow(job_id, pause=heartbeat)
    try:
        async for progress in stream:
            if progress is None:
                yield b": the line is alive\n\n"
                continue
            place = _place(progress)
            # A page that a second attempt reads again is no news; the end is, even after an id that is not of this job.
            if seen is None or place > seen or progress.state.final:
                seen = place
                yield _event(job_id, progress, addresses)
    finally:
        await stream.aclose()  # type: ignore[attr-defined]


def _event(job_id: str, progress: JobProgress, addresses: Addresses) -> bytes:
    name = "end" if progress.state.final else "progress"
    shown = {
        "job_id": job_id,
        "state": progress.state.value,
        "pages": progress.pages,
        "pages_done": progress.pages_done,
        "links": addresses.links(job_id).model_dump(),
    }
    rank, pages = _place(progress)
    return f"event: {name}\nid: {rank}.{pages}\ndata: ".encode() + to_json(shown) + b"\n\n"


def _rank(state: JobState) -> int:
    return 2 if state.final else int(state is JobState.RUNNING)


def _place(progress: JobProgress) -> Place:
    return _rank(progress.state), progress.pages_done


def _place_from(event_id: str | None) -> Place | None:
    found = _ID.fullmatch(event_id or "")
    return (int(found[1]), int(found[2])) if found else None
