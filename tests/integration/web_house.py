"""The doors under a real uvicorn, with the real store and intake, and a worker thread at the other end of the store."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import requests
import uvicorn
from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware

from docfleet.engine.interface import ParseReport
from docfleet.errors import BrokenDocument
from docfleet.files import DataFolder
from docfleet.intake.accept import Intake
from docfleet.intake.inspector import Inspector
from docfleet.intake.receive import receive
from docfleet.intake.reuse import Reuse
from docfleet.process.identity import identify
from docfleet.records import Claim, FailedPage, WorkerReport, WorkerSlot, WorkerState
from docfleet.store.admission import Limits
from docfleet.store.sqlite import open_store
from docfleet.web.admission import OWN_PARAMETERS, Admission
from docfleet.web.counting import install_counting
from docfleet.web.doors import Doors
from docfleet.web.feed import ProgressFeed
from docfleet.web.forms import sample_pdf
from docfleet.web.problems import install_error_handlers
from docfleet.web.router import create_doors
from docfleet.web.waiting import JobWatch

PDF = sample_pdf()
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
HOSTILE_HTML = b"<script>document.title = 'owned'</script><p>hello</p>"


@dataclass
class Work:
    """What the worker thread delivers for a document; tests change it by the document's name."""

    files: dict[str, bytes] = field(default_factory=dict)
    failed_pages: tuple[FailedPage, ...] = ()
    error: dict[str, Any] | None = None


def plain_work(claim: Claim) -> Work:
    """Deliver what an engine would: Markdown, a list, a page for browsers, an image."""
    name = claim.document.filename
    if "broken" in name:
        return Work(error=BrokenDocument("The file ends in the middle of page 1; send it again.").record())
    failed = (FailedPage(page=0, cause="the page could not be drawn"),) if "partial" in name else ()
    markdown = f"# {name}\n\n![](images/x.png)\n"
    return Work(
        files={
            "document.md": markdown.encode(),
            "content_list.json": json.dumps([{"type": "text", "text": name}]).encode(),
            "document.html": HOSTILE_HTML,
            "images/x.png": PNG,
        },
        failed_pages=failed,
    )


class Worker(threading.Thread):
    """Claims and completes, as a worker process does."""

    def __init__(self, folder: DataFolder) -> None:
        super().__init__(daemon=True)
        self.folder = folder
        self.store = open_store(folder.database)
        self.identity = identify()
        self.work = plain_work
        #: Cleared: nothing is claimed.
        self.claiming = threading.Event()
        #: Cleared: what is claimed is not delivered.
        self.delivering = threading.Event()
        self.claiming.set()
        self.delivering.set()
        self._leave = threading.Event()

    def announce(self, state: WorkerState, detail: str = "", *, shard_id: int | None = None, age: float = 0) -> None:
        now = time.time()
        self.store.announce(
            WorkerReport(
                slot=0,
                identity=self.identity,
                device="cpu",
                state=state,
                detail=detail,
                heartbeat_at=now - age,
                started_at=now,
                shard_id=shard_id,
                rss=123,
            )
        )

    def run(self) -> None:
        while not self._leave.wait(0.002):
            if not self.claiming.is_set():
                continue
            claim = self.store.claim(self.identity, 0)
            if claim is not None:
                self.deliver(claim)

    def deliver(self, claim: Claim) -> None:
        self.announce(WorkerState.BUSY, shard_id=claim.shard_id)
        self.delivering.wait()
        work = self.work(claim)
        if work.error is not None:
            self.store.fail(claim, work.error)
        else:
            output = self.folder.result(claim.job_id, claim.attempt)
            for name, content in work.files.items():
                path = output / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            pages = claim.last_page - claim.first_page + 1
            report = ParseReport(
                tier="flash",
                engine="thread",
                engine_version="1",
                pages=pages - len(work.failed_pages),
                failed_pages=work.failed_pages,
                files=tuple(work.files),
                warnings=("no tables here",),
                timings={"read": 0.25},
            )
            self.store.beat(claim, pages)
            self.store.complete(claim, output=self.folder.relative(output), report=report.to_json())
        self.announce(WorkerState.READY)

    def leave(self) -> None:
        self._leave.set()
        self.delivering.set()
        self.join(10)


@dataclass
class House:
    """A running server of doors."""

    url: str
    doors: Doors
    worker: Worker
    app: FastAPI
    server: uvicorn.Server

    def predict_json(self, body: Any, **more: Any) -> requests.Response:
        return requests.post(f"{self.url}/predict", json=body, timeout=30, **more)

    def predict_files(self, files: dict[str, bytes], **options: str) -> requests.Response:
        parts = [("files", (name, content)) for name, content in files.items()]
        return requests.post(f"{self.url}/predict", files=parts, data=options, timeout=30)

    def get(self, path: str, **more: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=30, **more)

    def uploads_left(self) -> list[Path]:
        return list(self.doors.folder.incoming.iterdir())


@contextlib.contextmanager
def open_house(root: Path, *, shared: bool = False, **changes: Any) -> Iterator[House]:
    """Serve the doors until the block ends.

    Args:
        root: the data folder.
        shared: whether identical documents are parsed once; who waits is served by whoever calls `hand_on`.
        changes: replace fields of `Doors`.
    """
    folder = DataFolder(root)
    folder.create()
    store = open_store(folder.database)
    inspector = Inspector()
    worker = Worker(folder)
    worker.announce(WorkerState.READY)
    values: dict[str, Any] = {
        "store": store,
        "folder": folder,
        "intake": Intake(store, folder, inspector, reuse=Reuse(store, folder) if shared else None),
        "receive": partial(receive, own_parameters=OWN_PARAMETERS),
        "admission": Admission(store, Limits(pages=20_000, jobs=2000), wait=0.0),
        "feed": ProgressFeed(open_store(folder.database)),
        "watch": JobWatch(store),
        "body_limit": 8 * 1024 * 1024,
        "wait_timeout": 60.0,
        "plan": (WorkerSlot(index=0, device="cpu"),),
        "facts": {"version": "9.9", "devices": ["cpu"], "model_source": "local", "warnings": ["CPU only"]},
        "started_at": time.time(),
    }
    app = FastAPI(lifespan=partial(_running, inspector))
    # The host of the real server compresses too.
    app.add_middleware(GZipMiddleware, minimum_size=1000)
    install_error_handlers(app)
    doors = Doors(**({"traffic": install_counting(app)} | values | changes))
    app.include_router(create_doors(doors))
    with _serving(app) as (server, url):
        worker.start()
        try:
            yield House(url, doors, worker, app, server)
        finally:
            worker.leave()


@contextlib.asynccontextmanager
async def _running(inspector: Inspector, app: FastAPI) -> AsyncIterator[None]:
    await inspector.start()
    try:
        yield
    finally:
        await inspector.close()


@contextlib.contextmanager
def _serving(app: FastAPI) -> Iterator[tuple[uvicorn.Server, str]]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.005)
        try:
            yield server, f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
