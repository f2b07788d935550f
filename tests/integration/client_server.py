"""A server on loopback that speaks the contract and misbehaves on demand, for the tests of `client.py`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

ROOT = Path(__file__).resolve().parents[2]
PICTURE = b"\x89PNG" + bytes(range(256)) * 40


@dataclass
class Upload:
    """What a request to /predict brought."""

    filename: str
    size: int
    fields: dict[str, str]
    headers: dict[str, str]
    #: How often this name has been uploaded, this time included.
    time: int
    #: Loop time of the request.
    at: float


Answer = Callable[["FakeServer", web.Request, Upload], Awaitable[web.StreamResponse]]


def result_of(job: str, filename: str, **changes: Any) -> dict[str, Any]:
    """Return the answer for one document."""
    return {
        "job_id": job,
        "filename": filename,
        "status": "completed",
        "output_dir": f"jobs/{job}",
        "pages": 3,
        "failed_pages": [],
        "tier": "flash",
        "engine": "mineru",
        "markdown": f"# {filename}\n\n![](images/a.png) <img src='/jobs/{job}/files/images/a.png'>\n",
        "files": {name: f"/jobs/{job}/files/{name}" for name in ("document.md", "content_list.json", "images/a.png")},
        "timings": {"parse": 0.1},
        "warnings": [],
        **changes,
    }


def refuse(status: int, code: str, *, retryable: bool, headers: dict[str, str] | None = None) -> web.Response:
    """Return the server's error shape."""
    error = {"code": code, "message": f"{code}: do something about it", "retryable": retryable}
    return web.json_response({"error": error}, status=status, headers=headers)


async def well(server: FakeServer, _request: web.Request, upload: Upload) -> web.StreamResponse:
    """Answer at once, with a result."""
    return web.json_response(server.result(upload.filename))


def progress_of(pages: int, *, since: str = "2026-11-21T08:00:00+00:00", **changes: Any) -> dict[str, Any]:
    """Return what `/status` tells as `progress`: one CPU, one card and one VLM server, `pages` pages each."""
    counts = {"pages_done": pages, "pages_per_second": 1.5}
    devices = [
        {"device": "cpu", "workers": 2, "busy": 1, "shards_done": 1, "shards_failed": 0, "pages_failed": 0, **counts},
        {
            "device": "cuda:0",
            "workers": 1,
            "busy": 1,
            "shards_done": 1,
            "shards_failed": 0,
            "pages_failed": 2,
            **counts,
        },
    ]
    endpoint = {"url": "http://10.0.0.5:8001", "failures": 1, "outstanding": 3, "state": "up", **counts}
    documents, total = {"done": 4, "failed": 1, "waiting": 7, "running": 2}, {"done": 9, "failed": 1, "waiting": 30}
    told = {"documents": documents, "pages": total, "pages_per_second": 3.0, "seconds_left": 10.0, "since": since}
    return {**told, "devices": devices, "endpoints": [endpoint], **changes}


@dataclass
class FakeServer:
    """Counts what arrives and answers by `answer`."""

    answer: Answer = well
    #: Called for GET /jobs/{id}/result with the number of this call.
    look: Callable[[web.Request, int], Awaitable[web.StreamResponse]] | None = None
    #: Called before a file is given out, with the number of this call for its path.
    fetch: Callable[[web.Request, int], Awaitable[web.StreamResponse | None]] | None = None
    #: Called for GET /status with the number of this call; None: a server that knows no such address.
    status: Callable[[web.Request, int], Awaitable[web.StreamResponse]] | None = None
    statuses: int = 0
    uploads: list[Upload] = field(default_factory=list)
    looks: Counter[str] = field(default_factory=Counter)
    fetches: Counter[str] = field(default_factory=Counter)
    running: int = 0
    most_running: int = 0
    connections: set[Any] = field(default_factory=set)
    url: str = ""
    port: int = 0

    def result(self, filename: str, **changes: Any) -> dict[str, Any]:
        return result_of(f"{len(self.uploads):032x}", filename, **changes)

    def names(self) -> Counter[str]:
        return Counter(upload.filename for upload in self.uploads)

    async def _predict(self, request: web.Request) -> web.StreamResponse:
        self.connections.add(request.transport.get_extra_info("peername") if request.transport else None)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            fields, filename, size = {}, "", 0
            async for part in await request.multipart():
                if part.name == "files":
                    filename = part.filename
                    while chunk := await part.read_chunk(2**20):
                        size += len(chunk)
                else:
                    fields[part.name] = await part.text()
            at, time = asyncio.get_running_loop().time(), self.names()[filename] + 1
            self.uploads.append(Upload(filename, size, fields, dict(request.headers), time, at))
            return await self.answer(self, request, self.uploads[-1])
        finally:
            self.running -= 1

    async def _result(self, request: web.Request) -> web.StreamResponse:
        job = request.match_info["job"]
        self.looks[job] += 1
        assert self.look is not None
        return await self.look(request, self.looks[job])

    async def _file(self, request: web.Request) -> web.StreamResponse:
        self.fetches[request.path] += 1
        other = await self.fetch(request, self.fetches[request.path]) if self.fetch else None
        return other if other is not None else web.Response(body=PICTURE)

    async def _status(self, request: web.Request) -> web.StreamResponse:
        self.statuses += 1
        if self.status is None:
            raise web.HTTPNotFound
        return await self.status(request, self.statuses)

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[FakeServer]:
        app = web.Application()
        app.router.add_post("/predict", self._predict)
        app.router.add_get("/status", self._status)
        app.router.add_get("/jobs/{job}/result", self._result)
        app.router.add_get("/jobs/{job}/files/{name:.*}", self._file)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
        await site.start()
        self.port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"
        try:
            yield self
        finally:
            await runner.cleanup()


async def start_client(
    *arguments: object, terminal: int = asyncio.subprocess.PIPE, under: tuple[str, ...] = (), **environment: str
) -> asyncio.subprocess.Process:
    """Start the command as a user would, `under` another if given; `terminal` is a descriptor for standard error."""
    known = {key: value for key, value in os.environ.items() if key != "DOCFLEET_API_KEY"}
    return await asyncio.create_subprocess_exec(
        *(*under, sys.executable, str(ROOT / "client.py"), *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
        stderr=terminal,
        env=known | environment,
    )


async def run_client(*arguments: object, **environment: str) -> tuple[int, str, str]:
    """Run the command to its end; return its status, standard output and standard error."""
    process = await start_client(*arguments, **environment)
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


def row(output: str, name: str) -> str:
    """Return a value of the closing table."""
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines() if "│" in line]
    return next(value for key, value, *_ in cells if key == name)
