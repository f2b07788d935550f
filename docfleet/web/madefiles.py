"""Serving what was made of a document, as what it is: content of unknown people that must do no harm in a browser."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send

from docfleet.errors import InvalidRequest, NotFound
from docfleet.files import DataFolder
from docfleet.records import Job
from docfleet.web.answers import results_gone
from docfleet.web.problems import JsonBytes

#: Types of what engines make. The system's own table differs from machine to machine.
_TYPES = {
    ".md": "text/markdown; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".tex": "application/x-tex",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".csv": "text/csv; charset=utf-8",
    ".xml": "application/xml",
    ".pdf": "application/pdf",
    ".zip": "application/zip",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".bmp": "image/bmp",
    ".webp": "image/webp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".svg": "image/svg+xml",
}

_SAFE_HEADERS = {
    # `sandbox` takes scripts, forms and the server's origin from a hostile document; its own images still show.
    "Content-Security-Policy": "sandbox; default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # A result never changes, but it is somebody's document, and it goes away when its time is over.
    "Cache-Control": "private, no-cache",
}


@dataclass(frozen=True)
class MadeFile:
    """A file of a result, known to exist."""

    job_id: str
    path: Path
    stat: os.stat_result


def locate(folder: DataFolder, job: Job, name: str) -> MadeFile:
    """Find a file of the job's result. Only names that the report lists are looked for. Blocks on the disk.

    Raises:
        NotFound: no such file was made, or the results are gone.
    """
    if job.output is None or job.report is None:
        raise NotFound(f"Job {job.id} has no files: it is {job.state}. GET /jobs/{job.id} tells how it stands.")
    if name not in job.report.get("files", ()):
        raise NotFound(f"Job {job.id} made no file of that name; GET /jobs/{job.id}/result lists its files.")
    result = folder.absolute(job.output).resolve()
    path = (result / name).resolve()
    # A link inside the result folder must not lead out of it, nor a result folder out of its job's.
    if not (path.is_relative_to(result) and result.is_relative_to(folder.job(job.id).resolve())):
        raise NotFound(f"Job {job.id} made no file of that name; GET /jobs/{job.id}/result lists its files.")
    try:
        found = path.stat()
    except OSError:
        raise results_gone(job.id) from None
    if not stat.S_ISREG(found.st_mode):
        raise results_gone(job.id)
    return MadeFile(job.id, path, found)


class _Ranged(FileResponse):
    """A file response that is whole or not begun, with refusals of a range in the shape of every other error."""

    #: Whose file it is.
    job_id = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, a range of it, or why the range cannot be had.

        Raises:
            NotFound: the file was removed since it was located.
        """
        try:
            held = await run_sync(os.open, self.path, os.O_RDONLY)
        except OSError:
            raise results_gone(self.job_id) from None
        try:
            # By descriptor: removed from here on, it is served all the same.
            self.path = f"/dev/fd/{held}"
            await self._send(scope, receive, send)
        finally:
            os.close(held)

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal: Message | None = None

        async def shaped(message: Message) -> None:
            nonlocal refusal
            if message["type"] == "http.response.start" and message["status"] >= 400:
                refusal = message
            elif refusal is None:
                await send(message)
            else:
                await _refused(refusal, self.headers["content-length"])(scope, receive, send)

        await super().__call__(scope, receive, shaped)


def _refused(start: Message, size: str) -> Response:
    status: int = start["status"]
    record = InvalidRequest(f"The Range header does not fit the file, which has {size} bytes.").record()
    headers = {"Content-Range": f"bytes */{size}"} if status == 416 else None
    return JsonBytes({"error": record}, status, headers)


def file_response(made: MadeFile, request: Request) -> Response:
    """Return the response that streams the file, or 304 if the caller has it already."""
    name = PurePosixPath(made.path.name)
    response = _Ranged(
        made.path,
        media_type=_TYPES.get(name.suffix.lower(), "application/octet-stream"),
        headers=_SAFE_HEADERS,
        filename=name.name,
        stat_result=made.stat,
        content_disposition_type="inline" if name.suffix.lower() in _TYPES else "attachment",
    )
    response.job_id = made.job_id
    if _has_it(request.headers.get("if-none-match", ""), response.headers["etag"]):
        kept = ("etag", "last-modified", "cache-control")
        return Response(status_code=304, headers={key: response.headers[key] for key in kept})
    return response


def _has_it(if_none_match: str, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or "*" in tags
