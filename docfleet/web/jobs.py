"""`/jobs/{id}`: how a job stands, its end before its time, its result, and the files that were made."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import Path as PathParameter
from starlette.requests import Request
from starlette.responses import Response

from docfleet.errors import Cancelled, DocfleetError, NotFound
from docfleet.files import is_job_id, remove_tree
from docfleet.records import Job, JobState, Shard
from docfleet.web.answers import ASK_AGAIN, Addresses, Answers, json_of
from docfleet.web.doors import Doors
from docfleet.web.leaving import stop_unwanted
from docfleet.web.madefiles import file_response, locate
from docfleet.web.schemas import Error, JobView, ShardView

_CANCELLED = Cancelled(
    "The job was cancelled by DELETE /jobs/{id}. Send the document again to have it parsed."
).record()

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
        """Return how the job stands: state, pages done, shards, place in the queue, and the error if it failed."""
        job = await find_job(self._doors, job_id)
        headers = None if job.state.final else {"Retry-After": str(ASK_AGAIN)}
        return json_of(await run_sync(partial(self._view, job, Addresses.of(request))), headers=headers)

    async def delete(self, job_id: JobId, request: Request) -> Response:
        """Stop a job that has not ended, and remove its files; it is listed as cancelled. Forget a job that has ended.

        A worker that reads it stops before the next page, or is ended if that takes more than a second.
        """
        job = await find_job(self._doors, job_id)
        removed = await run_sync(partial(self._cancel_or_remove, job))
        if removed:
            return Response(status_code=204)
        # Whatever fails here, the caller's own job was stopped.
        with suppress(DocfleetError):
            await stop_unwanted(self._doors)
        # Who deletes it twice at once may have had it removed meanwhile.
        found = await run_sync(partial(self._doors.store.job, job.id))
        cancelled = found or replace(job, state=JobState.CANCELLED)
        return json_of(await run_sync(partial(self._view, cancelled, Addresses.of(request))))

    def _cancel_or_remove(self, job: Job) -> bool:
        store, files = self._doors.store, self._doors.folder.job(job.id)
        # Asked even of a job that was seen to have ended: only the store knows.
        cancelled = store.cancel(job.id, _CANCELLED)
        if not cancelled:
            # Row first: a folder that a crash leaves behind is removed at the next start.
            store.remove(job.id)
        remove_tree(files)
        return not cancelled

    def _view(self, job: Job, addresses: Addresses) -> JobView:
        store = self._doors.store
        shards = store.shards(job.id)
        position, eta = None, None
        if not job.state.final:
            place = store.place(job.id)
            position = place.position
            first, last = job.options.page_range(job.document.pages)
            # While nothing may be taken up, what was measured a moment ago says nothing of when it will be done.
            if store.max_concurrent() != 0:
                eta = store.backlog().seconds_for(place.pages_ahead + max(0, last - first + 1 - job.pages_done))
        return _view(job, shards, addresses, position, eta)

    async def result(self, job_id: JobId, request: Request) -> Response:
        """Return what `/predict` would have: the result, why it failed, or 202 while it is not final."""
        job = await find_job(self._doors, job_id)
        return await Answers(self._doors.folder, Addresses.of(request)).respond(job)

    async def file(self, job_id: JobId, name: FileName, request: Request) -> Response:
        """Return a file that was made of the document; ranges and conditional requests work."""
        job = await find_job(self._doors, job_id)
        made = await run_sync(partial(locate, self._doors.folder, job, name))
        return file_response(made, request)


async def find_job(doors: Doors, job_id: str) -> Job:
    """Return the job.

    Raises:
        NotFound: there is none.
    """
    # The form is checked first: what cannot be an id never reaches the store or a path.
    job = await run_sync(partial(doors.store.job, job_id)) if is_job_id(job_id) else None
    if job is None:
        raise NotFound(
            "There is no such job. Use the job_id that the server answered with; jobs are kept for a limited time."
        )
    return job


def _view(job: Job, shards: list[Shard], addresses: Addresses, position: int | None, eta: float | None) -> JobView:
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
        lane=job.lane,
        attempts=max((shard.attempt for shard in shards), default=0),
        queue_position=position,
        eta=None if eta is None else round(eta, 1),
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
