"""Requests through real sockets, real uvicorn, to real files."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import io
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import requests
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from docfleet.errors import DocfleetError
from docfleet.files import DataFolder
from docfleet.intake import receive as receiving
from docfleet.intake import spool as spooling
from docfleet.intake.receive import receive

LIMIT = 4 * 1024 * 1024
ROOT = Path(__file__).resolve().parents[2]
NOISE = os.urandom(100_000)


class Door:
    """An app that receives, says what it received, and removes it; runs in a thread."""

    def __init__(self, root: Path) -> None:
        self.folder = DataFolder(root)
        self.folder.create()
        self.reserve = 32 * 1024 * 1024
        self.errors: list[BaseException] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.received: list[str] = []
        app = Starlette(routes=[Route("/", self._take, methods=["POST"])])
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(16)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]}, daemon=True)

    async def _take(self, request: Request) -> Response:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        try:
            uploads = await receive(request, self.folder, LIMIT, own_parameters={"wait"}, reserve=self.reserve)
        except DocfleetError as error:
            self.errors.append(error)
            return JSONResponse(error.record(), error.status)
        except BaseException as exc:
            self.errors.append(exc)
            raise
        shown = []
        for upload in uploads:
            content = upload.path.read_bytes()
            assert upload.size == len(content)
            digest = sha256(content).hexdigest()
            assert upload.sha256 == digest
            shown.append([upload.filename, digest, upload.options])
            upload.path.unlink()
        return JSONResponse(shown)

    def left(self) -> list[Path]:
        return list(self.folder.incoming.iterdir())

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    made = Door(tmp_path / "data")
    made.thread.start()
    until(lambda: made.server.started)
    yield made
    made.server.should_exit = True
    made.thread.join(10)
    made.listener.close()
    assert made.left() == []


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.002)


def seen(name: str, content: bytes, **options: Any) -> list[Any]:
    return [name, sha256(content).hexdigest(), options]


def test_each_form_of_a_body_brings_the_same_bytes(door: Door) -> None:
    encoded = base64.b64encode(NOISE).decode()
    answers = [
        requests.post(door.url, json={"file": encoded, "filename": "中.pdf", "options": {"tier": "flash"}}),
        requests.post(
            door.url, json={"files": [{"file": encoded, "filename": "中.pdf", "options": {"tier": "flash"}}]}
        ),
        requests.post(door.url, files={"files": ("中.pdf", NOISE)}, data={"tier": "flash"}),
        requests.post(door.url, files={"file": ("中.pdf", NOISE)}, data={"options": '{"tier": "flash"}'}),
        requests.post(door.url, params={"filename": "中.pdf", "tier": "flash", "wait": "1"}, data=NOISE),
        requests.post(door.url, params={"filename": "中.pdf", "tier": "flash"}, data=io.BytesIO(NOISE)),
        requests.post(
            door.url,
            params={"filename": "../x/中.pdf", "tier": "flash"},
            data=NOISE,
            headers={"Content-Type": "image/png"},
        ),
    ]
    assert [answer.json() for answer in answers] == [[seen("中.pdf", NOISE, tier="flash")]] * len(answers)


def test_several_documents_come_in_order_from_one_request(door: Door) -> None:
    contents = [os.urandom(size) for size in (0, 1, 300_000, 70_000)]
    parts = [("files", (f"{number}.bin", content)) for number, content in enumerate(contents)]
    answer = requests.post(door.url, files=parts, params={"formats": ["html", "markdown"]}).json()
    formats = ["html", "markdown"]
    assert answer == [seen(f"{number}.bin", content, formats=formats) for number, content in enumerate(contents)]
    body = {"files": [{"file": base64.b64encode(content).decode()} for content in contents]}
    assert requests.post(door.url, json=body).json() == [seen("document", content) for content in contents]


async def test_the_form_of_aiohttp_keeps_names_in_any_script(door: Door) -> None:
    form = aiohttp.FormData()
    form.add_field("files", NOISE, filename='报 "告".pdf')
    async with aiohttp.ClientSession() as session, session.post(door.url, data=form) as answer:
        assert await answer.json() == [seen('报 "告".pdf', NOISE)]


def test_a_chunked_body_without_a_length_is_taken(door: Door) -> None:
    def chunks() -> Iterator[bytes]:
        for place in range(0, len(NOISE), 7000):
            yield NOISE[place : place + 7000]

    assert requests.post(door.url, data=chunks()).json() == [seen("document", NOISE)]


JSON_HEAD = b'{"filename": "a.pdf", "file": "'
FORM_HEAD = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'


def head_of(media_type: str, length: int | None) -> bytes:
    sized = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: {media_type}\r\n{sized}\r\n\r\n".encode()


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("media_type", "beginning"),
    [
        ("application/pdf", b""),
        ("application/json", JSON_HEAD),
        ("multipart/form-data; boundary=b", FORM_HEAD),
    ],
)
def test_a_body_cut_off_half_way_leaves_nothing(door: Door, media_type: str, beginning: bytes, chunked: bool) -> None:
    sent = beginning + b"abcd" * 300_000
    with door.connect() as connection:
        connection.sendall(head_of(media_type, None if chunked else len(sent) + 100))
        connection.sendall(b"%x\r\n" % (len(sent) + 100) + sent if chunked else sent)
        until(lambda: door.left() != [])
    until(lambda: len(door.errors) == 1)
    (error,) = door.errors
    assert isinstance(error, DocfleetError)
    assert (error.code, error.status) == ("invalid_request", 400)
    assert door.left() == []


@pytest.mark.parametrize(
    ("media_type", "beginning"),
    [
        ("application/pdf", b""),
        ("application/json", JSON_HEAD),
        ("multipart/form-data; boundary=b", FORM_HEAD),
    ],
)
def test_a_cancelled_request_leaves_nothing(door: Door, media_type: str, beginning: bytes) -> None:
    sent = beginning + b"abcd" * 300_000
    with door.connect() as connection:
        connection.sendall(head_of(media_type, len(sent) + 100) + sent)
        until(lambda: door.left() != [])
        (task,) = door.tasks
        loop = task.get_loop()
        # Twice: the second one meets the tidying up.
        loop.call_soon_threadsafe(task.cancel)
        loop.call_soon_threadsafe(lambda: loop.call_soon(task.cancel))
        until(lambda: len(door.errors) == 1)
    assert isinstance(door.errors[0], asyncio.CancelledError)
    until(lambda: door.left() == [])


def test_a_request_that_stalls_is_given_up(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "STALL_SECONDS", 0.2)
    with door.connect() as connection:
        connection.sendall(head_of("application/pdf", 1000) + b"x" * 10)
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"Nothing arrived" in answer


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(door: Door) -> None:
    for media_type, length in (
        ("application/pdf", LIMIT + 1),
        ("application/json", LIMIT * 4 // 3 + 1024 * 1024 + 1),
        ("multipart/form-data; boundary=b", LIMIT + 1024 * 1024 + 1),
    ):
        with door.connect() as connection:
            connection.sendall(head_of(media_type, length))
            answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"4 MB" in answer


@pytest.mark.parametrize("extra", [0, 1])
def test_the_limit_holds_to_the_byte_in_each_form(door: Door, extra: int) -> None:
    content = bytes(LIMIT + extra)
    statuses = [
        requests.post(door.url, data=io.BytesIO(content)).status_code,
        requests.post(door.url, data=iter([content])).status_code,
        requests.post(door.url, json={"file": base64.b64encode(content).decode()}).status_code,
        requests.post(door.url, files={"files": content}).status_code,
    ]
    assert statuses == [413 if extra else 200] * 4


def test_a_chunked_body_is_counted_and_refused_once_it_is_too_large(door: Door) -> None:
    piece = bytes(100_000)
    with door.connect() as connection, contextlib.suppress(ConnectionError):
        connection.sendall(head_of("application/pdf", None))
        for _ in range(LIMIT // len(piece) + 2):
            connection.sendall(b"%x\r\n" % len(piece) + piece + b"\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")
    until(lambda: len(door.errors) == 1)
    assert isinstance(door.errors[0], DocfleetError)
    assert door.errors[0].code == "document_too_large"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"%PDF-"),
        ({"Content-Type": "application/pdf", "Content-Encoding": "gzip"}, b"\x1f\x8b"),
        ({}, b""),
        ({"Content-Type": "application/json"}, b""),
        ({"Content-Type": "application/vnd.api+json"}, b"[]"),
        ({"Content-Type": "multipart/form-data"}, b"--b--"),
    ],
)
def test_a_body_that_cannot_be_understood_is_refused(door: Door, headers: dict[str, str], body: bytes) -> None:
    answer = requests.post(door.url, data=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


def test_a_file_without_a_byte_is_an_upload_that_the_next_step_judges(door: Door) -> None:
    empty = requests.post(door.url, data=b"", headers={"Content-Type": "application/pdf"})
    assert empty.json() == [seen("document", b"")]


def test_a_full_disk_is_told_and_leaves_nothing(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    class OnFullDisk(spooling.SpoolFile):
        """Its file is real; what is written goes to the device that is always full."""

        def __init__(self, path: Path, count: Callable[[int], None]) -> None:
            super().__init__(path, count)
            full = os.open("/dev/full", os.O_WRONLY)
            os.dup2(full, self._file.fileno())
            os.close(full)

    monkeypatch.setattr(spooling, "SpoolFile", OnFullDisk)
    for answer in (
        requests.post(door.url, data=NOISE * 5),
        requests.post(door.url, files={"files": NOISE}),
        requests.post(door.url, json={"file": base64.b64encode(NOISE).decode()}),
    ):
        assert (answer.status_code, answer.json()["code"], answer.json()["retryable"]) == (507, "storage_full", True)
        assert door.left() == []


@pytest.mark.parametrize("length", [b"Content-Length: 1000000", b"Transfer-Encoding: chunked"])
def test_what_would_fill_the_disk_is_refused_unread(door: Door, length: bytes) -> None:
    door.reserve = 2**60
    with door.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/pdf\r\n" + length + b"\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 507 ")


def test_a_small_body_that_would_fill_the_disk_is_refused_once_it_is_here(door: Door) -> None:
    door.reserve = 2**60
    answer = requests.post(door.url, b"x" * 1000, headers={"Content-Type": "application/pdf"}, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
    assert door.left() == []


def test_other_faults_of_the_disk_are_not_called_a_full_one(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(spooling.SpoolFile, "write", broken)
    assert requests.post(door.url, data=NOISE).status_code == 500
    assert isinstance(door.errors[0], OSError)


def test_of_many_bodies_at_the_same_time_each_gathers_less_before_it_is_written(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "_GATHERED", 256 * 1024)
    pieces: list[int] = []
    feed = receiving.RawReader.feed

    def noted(reader: receiving.RawReader, data: bytes) -> None:
        pieces.append(len(data))
        feed(reader, data)

    monkeypatch.setattr(receiving.RawReader, "feed", noted)
    with contextlib.ExitStack() as stack:
        # Others are under way: each has sent a beginning and goes on sending nothing.
        idle = [stack.enter_context(door.connect()) for _ in range(4)]
        for other in idle:
            other.sendall(head_of("application/pdf", 2_000_000) + b"x" * 80_000)
        until(lambda: receiving._CROWD.piece == 64 * 1024)
        content = os.urandom(2_000_000)
        answer = requests.post(door.url, content, headers={"Content-Type": "application/pdf"}, timeout=60)
        assert answer.json()[0][1] == sha256(content).hexdigest()
    # The socket gives at most 256 KB more at a time.
    assert max(pieces) < (64 + 256 + 64) * 1024
    until(lambda: door.left() == [])
    pieces.clear()
    requests.post(door.url, content, headers={"Content-Type": "application/pdf"}, timeout=60)
    assert pieces[0] >= 256 * 1024


def test_requests_at_the_same_time_do_not_mix(door: Door) -> None:
    contents = [os.urandom(500_000) for _ in range(12)]
    answers: dict[int, Any] = {}

    def send(number: int) -> None:
        content = contents[number]
        if number % 3 == 0:
            answer = requests.post(door.url, data=content)
        elif number % 3 == 1:
            answer = requests.post(door.url, files={"files": ("document", content)})
        else:
            answer = requests.post(door.url, json={"file": base64.b64encode(content).decode()})
        answers[number] = answer.json()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: [seen("document", content)] for number, content in enumerate(contents)}


#: A server of its own, so that its memory is the door's alone.
SERVER = """
import sys, uvicorn
from pathlib import Path
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from docfleet.files import DataFolder
from docfleet.intake.receive import receive
folder = DataFolder(Path(sys.argv[1]))
async def take(request):
    uploads = await receive(request, folder, 300 * 1024 * 1024)
    for upload in uploads:
        upload.path.unlink()
    return JSONResponse([[upload.size, upload.sha256] for upload in uploads])
uvicorn.run(Starlette(routes=[Route("/", take, methods=["POST"])]), port=int(sys.argv[2]), log_level="error")
"""
LARGE = 200 * 1024 * 1024
PIECE = os.urandom(3 * 256 * 1024)


def large_body(form: str) -> tuple[dict[str, str], Iterator[bytes]]:
    count = LARGE // len(PIECE)
    if form == "raw":
        return {"Content-Type": "application/pdf"}, (PIECE for _ in range(count))
    if form == "form":

        def multipart() -> Iterator[bytes]:
            yield FORM_HEAD
            yield from (PIECE for _ in range(count))
            yield b"\r\n--b--\r\n"

        return {"Content-Type": "multipart/form-data; boundary=b"}, multipart()

    def in_json() -> Iterator[bytes]:
        yield JSON_HEAD
        yield from (base64.b64encode(PIECE) for _ in range(count))
        yield b'"}'

    return {"Content-Type": "application/json"}, in_json()


@pytest.fixture(scope="module")
def small_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, psutil.Process]]:
    folder = DataFolder(tmp_path_factory.mktemp("large"))
    folder.create()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(folder.root), str(port)], cwd=ROOT)
    url = f"http://127.0.0.1:{port}/"

    def answers() -> bool:
        with contextlib.suppress(requests.ConnectionError):
            return requests.post(url, data=NOISE).status_code == 200
        return False

    until(answers)
    yield url, psutil.Process(process.pid)
    process.terminate()
    process.wait(10)
    assert list(folder.incoming.iterdir()) == []


@pytest.mark.parametrize("form", ["raw", "form", "json"])
def test_an_upload_of_200_mb_costs_the_server_little_memory(
    small_server: tuple[str, psutil.Process], form: str
) -> None:
    url, process = small_server
    before = process.memory_info().rss
    most = before
    over = threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.005):
            most = max(most, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    headers, body = large_body(form)
    answer = requests.post(url, data=body, headers=headers)
    over.set()
    watcher.join()
    whole = sha256()
    for _ in range(LARGE // len(PIECE)):
        whole.update(PIECE)
    size = LARGE // len(PIECE) * len(PIECE)
    assert answer.json() == [[size, whole.hexdigest()]]
    grown = (most - before) / 1024**2
    print(f"{form}: grew by {grown:.1f} MB over {before / 1024**2:.0f} MB")
    assert grown <= 32
