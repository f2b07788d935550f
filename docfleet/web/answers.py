"""From a job to what the caller reads: the answer comes from the result files, whatever door asks for it.

The Markdown goes from its file to the socket piece by piece, so an answer of any size costs the API process a few
hundred kilobytes.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from anyio.to_thread import run_sync
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from docfleet.errors import DocfleetError, InternalError, NotFound, from_record
from docfleet.files import DataFolder
from docfleet.records import Job, JobState
from docfleet.web.problems import JsonBytes, to_json
from docfleet.web.schemas import Answer, Error, Failure, Links, MissingPage, StillRunning

#: The Markdown among a result's files.
DOCUMENT = "document.md"

#: Characters of Markdown read at once.
_PIECE = 256 * 1024

#: Seconds after which asking again for an unfinished job is worth it.
ASK_AGAIN = 2

#: What older callers call the tiers.
_BACKENDS = {"flash": "flash", "basic": "pipeline", "standard": "hybrid-auto-engine", "advanced": "vlm-auto-engine"}


class Outcome(StrEnum):
    """What a document counts as in an answer of several."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RUNNING = "running"


@dataclass(frozen=True)
class Addresses:
    """Makes the addresses of a job's resources; `root` is the path under which a proxy shows this server."""

    root: str = ""

    @classmethod
    def of(cls, request: Request) -> Addresses:
        """Return the addresses as this caller must use them."""
        return cls(str(request.scope.get("root_path", "")).rstrip("/"))

    def job(self, job_id: str) -> str:
        """Return where the job's state is."""
        return f"{self.root}/jobs/{job_id}"

    def file(self, job_id: str, name: str) -> str:
        """Return where a file of the job's result is."""
        return f"{self.job(job_id)}/files/{quote(name)}"

    def links(self, job_id: str) -> Links:
        """Return where to ask on."""
        return Links(job=self.job(job_id), result=f"{self.job(job_id)}/result", events=f"{self.job(job_id)}/events")


class Answers:
    """Makes answers of jobs whose files lie in `folder`."""

    def __init__(self, folder: DataFolder, addresses: Addresses) -> None:
        self._folder = folder
        self._addresses = addresses

    async def respond(self, job: Job) -> Response:
        """Return the whole response for one job: its result, or 202 with its address while it is not final.

        Raises:
            DocfleetError: why the job failed.
            NotFound: the result files are gone.
        """
        if not job.state.final:
            return self.not_ready(job)
        body = self._stream(job)
        # Whatever can go wrong goes wrong before the first byte, while the status can still tell.
        first = await anext(body)
        return StreamingResponse(_chain(first, body), media_type="application/json")

    def not_ready(self, job: Job) -> Response:
        """Return 202 with the address where the result will be."""
        headers = {"Location": self._addresses.job(job.id), "Retry-After": str(ASK_AGAIN)}
        return JsonBytes(self.still_running(job), 202, headers)

    def still_running(self, job: Job) -> dict[str, Any]:
        """Return what is said of a job that is not final."""
        return StillRunning(
            job_id=job.id,
            filename=job.document.filename,
            # A job may end between the look at its state and this answer: its result is at the link all the same.
            status=JobState.QUEUED if job.state is JobState.QUEUED else JobState.RUNNING,
            links=self._addresses.links(job.id),
        ).model_dump(mode="json")

    async def entry(
        self, filename: str, job: Job | None, error: DocfleetError | None
    ) -> tuple[Outcome, AsyncIterator[bytes]]:
        """Return one document's entry in an answer of several, and what it counts as.

        Args:
            filename: the caller's name of the document.
            job: its job, if it became one.
            error: why it did not, or why its state is not known.
        """
        if error is None and job is not None:
            if not job.state.final:
                return Outcome.RUNNING, _chain(to_json(self.still_running(job)))
            body = self._stream(job)
            try:
                return Outcome.SUCCEEDED, _chain(await anext(body), body)
            except DocfleetError as exc:
                error = exc
        error = error or InternalError("The document was lost on its way in; send it again.")
        failed = Failure(filename=filename, job_id=job.id if job else None, error=Error.model_validate(error.record()))
        return Outcome.FAILED, _chain(to_json(failed.model_dump(mode="json")))

    async def _stream(self, job: Job) -> AsyncIterator[bytes]:
        first, markdown = await run_sync(partial(self._begin, job))
        if markdown is None:
            yield first
            return
        try:
            yield first
            last = False
            while not last:
                piece, last = await run_sync(partial(_escaped_piece, markdown))
                yield piece + (b'"}' if last else b"")
        finally:
            markdown.close()

    def _begin(self, job: Job) -> tuple[bytes, IO[str] | None]:
        """Return the answer up to where one piece of text ends, and what the others are read from, if there are any."""
        answer, markdown = self._open(job)
        # JSON in two parts: the answer without its last brace, then the text.
        head = to_json(answer.model_dump(mode="json", exclude={"markdown"}))[:-1]
        if markdown is None:
            return head + b',"markdown":null}', None
        piece, last = _escaped_piece(markdown)
        begun = head + b',"markdown":"' + piece
        if not last:
            return begun, markdown
        markdown.close()
        return begun + b'"}', None

    def _open(self, job: Job) -> tuple[Answer, IO[str] | None]:
        if job.state in (JobState.FAILED, JobState.CANCELLED):
            raise from_record(job.error or InternalError("The job failed without saying why.").record())
        answer = self._describe(job)
        if DOCUMENT not in answer.files:
            return answer, None
        try:
            # newline="": the text goes out as it is, line ends included.
            return answer, Path(answer.output_dir, DOCUMENT).open(encoding="utf-8", errors="replace", newline="")
        except FileNotFoundError:
            raise results_gone(job.id) from None

    def _describe(self, job: Job) -> Answer:
        report = job.report or {}
        tier = str(report.get("tier", ""))
        return Answer(
            job_id=job.id,
            filename=job.document.filename,
            status=JobState.PARTIAL if job.state is JobState.PARTIAL else JobState.COMPLETED,
            output_dir=str(self._folder.absolute(job.output or "").resolve()),
            pages=report.get("pages", 0),
            failed_pages=[MissingPage.model_validate(page) for page in report.get("failed_pages", ())],
            tier=tier,
            backend=_BACKENDS.get(tier, tier),
            engine=report.get("engine", ""),
            engine_version=report.get("engine_version", ""),
            files={name: self._addresses.file(job.id, name) for name in report.get("files", ())},
            timings=report.get("timings", {}),
            warnings=list(report.get("warnings", ())),
            cached=job.cached,
        )


def results_gone(job_id: str) -> NotFound:
    """Return the error of a result whose files are no longer there."""
    return NotFound(f"The results of job {job_id} are gone; they are kept for a limited time. Send the document again.")


def json_of(view: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return the response that shows a view."""
    return JsonBytes(view.model_dump(mode="json"), status, headers)


def _escaped_piece(text: IO[str]) -> tuple[bytes, bool]:
    """Return the next piece, and whether it is the last: a read stops short only at the end."""
    piece = text.read(_PIECE)
    return json.dumps(piece, ensure_ascii=False)[1:-1].encode("utf-8"), len(piece) < _PIECE


async def _chain(first: bytes, rest: AsyncIterator[bytes] | None = None) -> AsyncIterator[bytes]:
    yield first
    if rest is not None:
        async for piece in rest:
            yield piece
