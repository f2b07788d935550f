"""`/jobs/{id}`: how a job stands, its result, and the files that were made."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import Path as PathParameter
from starlette.requests import Request
from starlette.responses import Response

from docfleet.errors import NotFound
from docfleet.files import is_job_id
from docfleet.records import Job, Shard
from docfleet.web.answers import ASK_AGAIN, Addresses, Answers, json_of
from docfleet.web.doors import Doors
from docfleet.web.madefiles import file_response, locate
from docfleet.web.schemas import Error, JobView, ShardView

#: The pattern is for readers of the API description: what does not fit it is not found, like any unknown id.
JobId = Annotated[
    str,
    PathParameter(
        description="as the server answered it",
        examples=["0f8fad5bd9cb469fa16570867728950e"],
        json_schema_extra={"pattern": "^[0-9a-f]{32}$"},
    ),
]
FileName = Annotated[
    str, PathParameter(description="a key of the result's `files`", examples=["document.md", "images/x.png"])
]


class JobDoors:
    """Answers about jobs that some door accepted."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors

    async def show(self, job_id: JobId, request: Request) -> Response:
        """Return how the job stands: state, pages done, shards, and the error if it failed."""
        job = await self._job(job_id)
        shards = await run_sync(partial(self._doors.store.shards, job.id))
        headers = None if job.state.final else {"Retry-After": str(ASK_AGAIN)}
        return json_of(_view(job, shards, Addresses.of(request)), headers=headers)

    async def result(self, job_id: JobId, request: Request) -> Response:
        """Return what `/predict` would have: the result, why it failed, or 202 while it is not final."""
        job = await self._job(job_id)
        return await Answers(self._doors.folder, Addresses.of(request)).respond(job)

    async def file(self, job_id: JobId, name: FileName, request: Request) -> Response:
        """Return a file that was made of the document; ranges and conditional requests work."""
        job = await self._job(job_id)
        made = await run_sync(partial(locate, self._doors.folder, job, name))
        return file_response(made, request)

    async def _job(self, job_id: str) -> Job:
        # The form is checked first: what cannot be an id never reaches the store or a path.
        job = await run_sync(partial(self._doors.store.job, job_id)) if is_job_id(job_id) else None
        if job is None:
            raise NotFound(
                "There is no such job. Use the job_id that the server answered with; jobs are kept for a limited time."
            )
        return job


def _view(job: Job, shards: list[Shard], addresses: Addresses) -> JobView:
    first, last = job.options.page_range(job.document.pages)
    return JobView(
        job_id=job.id,
        filename=job.document.filename,
        state=job.state,
        pages=last - first + 1,
        pages_done=job.pages_done,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        shards=[_shard(shard) for shard in shards],
        cached=job.cached,
        error=Error.model_validate(job.error) if job.error else None,
        links=addresses.links(job.id),
    )


def _shard(shard: Shard) -> ShardView:
    return ShardView(
        stage=shard.stage,
        first_page=shard.first_page,
        last_page=shard.last_page,
        state=shard.state,
        attempt=shard.attempt,
        pages_done=shard.pages_done,
        worker=shard.worker_index,
    )
