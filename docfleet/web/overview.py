"""`GET /jobs`: the jobs there are, newest first."""

from __future__ import annotations

from functools import partial
from typing import Annotated
from urllib.parse import urlencode

from anyio.to_thread import run_sync
from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from docfleet.errors import InvalidRequest
from docfleet.records import Job, JobState
from docfleet.store.admission import JobFilter
from docfleet.web.answers import Addresses, json_of
from docfleet.web.doors import Doors
from docfleet.web.schemas import Error, JobList, JobSummary

#: Jobs on one page of the list, at most.
MOST = 500
_LARGEST = 2**63 - 1
_PARAMETERS = ("state", "filename", "created_after", "created_before", "limit", "cursor")

States = Annotated[list[JobState], Query(description="only jobs in one of these states; give it again for each")]
NamePart = Annotated[str | None, Query(max_length=255, description="part of the file name, in any case")]
Moment = Annotated[float | None, Query(ge=0, le=1e11, allow_inf_nan=False, description="seconds since 1970-01-01 UTC")]
Limit = Annotated[int, Query(ge=1, le=MOST, description="jobs in this answer, at most")]
Cursor = Annotated[int | None, Query(ge=1, le=_LARGEST, description="`next_cursor` of the answer before")]


class Overview:
    """Lists jobs."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors

    async def list(
        self,
        request: Request,
        state: States = [],  # noqa: B006 (the framework copies it)
        filename: NamePart = None,
        created_after: Moment = None,
        created_before: Moment = None,
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> Response:
        """Return jobs, newest first. `next` is the address of older ones; jobs that come meanwhile do not shift it."""
        _refuse_unknown(request)
        wanted = JobFilter(
            states=tuple(state), filename=filename, created_after=created_after, created_before=created_before
        )
        jobs, following = await run_sync(partial(self._doors.store.listed, wanted, limit=limit, before=cursor))
        addresses = Addresses.of(request)
        next_link = None if following is None else f"{addresses.root}/jobs?{_query(request, following)}"
        view = JobList(jobs=[_summary(job, addresses) for job in jobs], next_cursor=following, next=next_link)
        return json_of(view)


def _refuse_unknown(request: Request) -> None:
    # A filter that is passed over would give all jobs to somebody who goes on to delete what was listed.
    unknown = sorted(set(request.query_params) - set(_PARAMETERS))
    if unknown:
        raise InvalidRequest(f"The list of jobs has no parameter {unknown[0]!a}; use {', '.join(_PARAMETERS)}.")


def _query(request: Request, cursor: int) -> str:
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    return urlencode([*kept, ("cursor", str(cursor))], errors="replace")


def _summary(job: Job, addresses: Addresses) -> JobSummary:
    first, last = job.options.page_range(job.document.pages)
    return JobSummary(
        job_id=job.id,
        filename=job.document.filename,
        state=job.state,
        lane=job.lane,
        pages=last - first + 1,
        pages_done=job.pages_done,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        error=Error.model_validate(job.error) if job.error else None,
        links=addresses.links(job.id),
    )
