"""`mineru_parse_async` against servers that behave, refuse, stall, drop the connection or talk nonsense."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

import client
from client import MineruError, mineru_parse_async
from tests.integration.client_server import ROOT, FakeServer, Upload, refuse, well


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "BACKOFF_FIRST", 0.02)
    monkeypatch.setattr(client, "POLL_FIRST", 0.01)


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    path = tmp_path / "paper.pdf"
    path.write_bytes(b"%PDF-1.7 " + b"x" * 5000)
    return path


async def parse(server: FakeServer, path: Path, **options: object) -> dict[str, object]:
    async with aiohttp.ClientSession() as session:
        return await mineru_parse_async(session, path, server.url, **options)  # type: ignore[arg-type]


def first_then_well(first: web.StreamResponse | None = None, *, count: int = 1) -> FakeServer:
    """Return a server that gives `first` (None: cuts the connection) `count` times and then a result."""

    async def answer(server: FakeServer, request: web.Request, upload: Upload) -> web.StreamResponse:
        if upload.time > count:
            return await well(server, request, upload)
        if first is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return web.Response(body=first.body, status=first.status, headers=first.headers)  # type: ignore[attr-defined]

    return FakeServer(answer)


async def test_a_document_comes_back_with_its_bytes_name_and_options_as_sent(tmp_path: Path) -> None:
    path = tmp_path / '论文 "é" 50%41;x.pdf'
    path.write_bytes(b"x" * 300_000)
    options = {"formula_enable": False, "formats": ["markdown", "html"], "end_page_id": 4, "lang": None}
    async with FakeServer().serving() as server:
        answer = await parse(server, path, **options)
    assert answer["filename"] == path.name
    (upload,) = server.uploads
    assert (upload.filename, upload.size) == (path.name, 300_000)
    assert upload.fields == {"formula_enable": "false", "formats": "markdown,html", "end_page_id": "4"}


@pytest.mark.parametrize("ending", ["", "/", "/predict"])
async def test_the_address_is_taken_with_and_without_predict(ending: str, paper: Path) -> None:
    async with FakeServer().serving() as server, aiohttp.ClientSession() as session:
        assert (await mineru_parse_async(session, paper, server.url + ending))["status"] == "completed"


async def test_an_error_carries_what_the_server_said(paper: Path) -> None:
    async with first_then_well(refuse(422, "encrypted_document", retryable=False)).serving() as server:
        with pytest.raises(MineruError, match="do something about it") as caught:
            await parse(server, paper, retries=3)
    error = caught.value
    assert (error.code, error.status, error.retryable, error.retry_after) == ("encrypted_document", 422, False, None)
    assert len(server.uploads) == 1


async def test_without_retries_a_busy_server_is_an_error_with_its_pause(paper: Path) -> None:
    busy = refuse(429, "busy", retryable=True, headers={"Retry-After": "7"})
    async with first_then_well(busy).serving() as server:
        with pytest.raises(MineruError) as caught:
            await parse(server, paper)
    assert (caught.value.code, caught.value.retryable, caught.value.retry_after) == ("busy", True, 7)


@pytest.mark.parametrize("date", [False, True], ids=["seconds", "date"])
async def test_retry_after_is_obeyed(date: bool, paper: Path) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=2)
    after = format_datetime(moment, usegmt=True) if date else "1"
    busy = refuse(429, "busy", retryable=True, headers={"Retry-After": after})
    async with first_then_well(busy).serving() as server:
        await parse(server, paper, retries=1)
        ended = datetime.now(UTC)
    first, second = server.uploads
    assert ended >= moment.replace(microsecond=0) if date else second.at - first.at >= 1


async def test_waiting_for_a_busy_server_uses_up_no_tries(paper: Path) -> None:
    busy = refuse(429, "busy", retryable=True, headers={"Retry-After": "0"})
    async with first_then_well(busy, count=5).serving() as server:
        assert (await parse(server, paper, retries=1))["status"] == "completed"
    assert len(server.uploads) == 6


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_gateway_without_our_error_shape_is_tried_again_and_named_in_the_end(status: int, paper: Path) -> None:
    bad = web.Response(text="<html>gateway\x1b[31m</html>", status=status)
    async with first_then_well(bad, count=2).serving() as server:
        assert (await parse(server, paper, retries=2))["status"] == "completed"
    async with first_then_well(bad, count=9).serving() as server:
        with pytest.raises(MineruError, match="gateway\ufffd") as caught:
            await parse(server, paper, retries=2)
    assert caught.value.code == f"http_{status}"
    assert len(server.uploads) == 3


@pytest.mark.parametrize(
    ("status", "retryable", "uploads"), [(500, False, 1), (503, False, 1), (507, True, 2), (404, False, 1)]
)
async def test_the_servers_word_on_retrying_goes_before_the_status(
    status: int, retryable: bool, uploads: int, paper: Path
) -> None:
    async with first_then_well(refuse(status, "code", retryable=retryable)).serving() as server:
        if retryable:
            await parse(server, paper, retries=3)
        else:
            with pytest.raises(MineruError):
                await parse(server, paper, retries=3)
    assert len(server.uploads) == uploads


@pytest.mark.parametrize("status", [400, 401, 413, 500])
async def test_other_statuses_are_not_tried_again(status: int, paper: Path) -> None:
    async with first_then_well(web.Response(text="no", status=status)).serving() as server:
        with pytest.raises(MineruError):
            await parse(server, paper, retries=3)
    assert len(server.uploads) == 1


async def test_a_reset_connection_is_tried_again_with_the_whole_file(paper: Path) -> None:
    async with first_then_well(None, count=2).serving() as server:
        assert (await parse(server, paper, retries=2))["status"] == "completed"
    assert [upload.size for upload in server.uploads] == [5009] * 3


async def test_an_answer_cut_off_half_way_is_tried_again(paper: Path) -> None:
    async def answer(server: FakeServer, request: web.Request, upload: Upload) -> web.StreamResponse:
        if upload.time > 1:
            return await well(server, request, upload)
        response = web.StreamResponse(headers={"Content-Length": "5000"})
        await response.prepare(request)
        await response.write(b'{"job_id": "1", "sta')
        assert request.transport is not None
        request.transport.close()
        return response

    async with FakeServer(answer).serving() as server:
        assert (await parse(server, paper, retries=1))["status"] == "completed"
    assert len(server.uploads) == 2


@pytest.mark.parametrize(
    "body", ["", "{", "[]", "null", "[" * 100_000, '{"status": "done"}', '{"status": "completed", "files": []}']
)
async def test_an_answer_that_is_no_result_is_an_error_and_not_tried_again(body: str, paper: Path) -> None:
    async with first_then_well(web.Response(text=body)).serving() as server:
        with pytest.raises(MineruError) as caught:
            await parse(server, paper, retries=3)
    assert (caught.value.code, len(server.uploads)) == ("invalid_answer", 1)


async def test_a_redirect_is_named_and_not_followed(paper: Path) -> None:
    moved = web.Response(status=301, headers={"Location": "https://elsewhere.example/predict"})
    async with first_then_well(moved).serving() as server:
        with pytest.raises(MineruError, match=r"elsewhere\.example") as caught:
            await parse(server, paper, retries=3)
    assert (caught.value.code, len(server.uploads)) == ("redirected", 1)


async def test_a_server_that_is_down_and_comes_up_is_reached(paper: Path) -> None:
    async with FakeServer().serving() as server:
        port = server.port
    refused: list[MineruError] = []
    up = asyncio.Event()

    def on_retry(error: MineruError, _delay: float) -> None:
        refused.append(error)
        up.set()

    later = FakeServer()
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{port}"
        task = asyncio.create_task(mineru_parse_async(session, paper, url, retries=200, on_retry=on_retry))
        await up.wait()
        async with later.serving(port):
            assert (await task)["status"] == "completed"
    assert {error.code for error in refused} == {"connection_failed"}


async def test_a_refusal_in_the_middle_of_an_upload_ends_the_upload(tmp_path: Path) -> None:
    big = tmp_path / "big.pdf"
    with big.open("wb") as sink:
        sink.truncate(200 * 2**20)
    arrived = 0

    async def early(request: web.Request) -> web.StreamResponse:
        nonlocal arrived
        arrived += len(await request.content.read(2**16))
        return refuse(413, "document_too_large", retryable=False)

    app = web.Application()
    app.router.add_post("/predict", early)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(MineruError) as caught:
                await mineru_parse_async(session, big, f"http://127.0.0.1:{runner.addresses[0][1]}", retries=3)
    finally:
        await runner.cleanup()
    assert caught.value.code == "document_too_large"
    assert arrived <= 2**16


def working(server: FakeServer, headers: dict[str, str] | None = None) -> web.Response:
    job = f"{len(server.uploads):032x}"
    return web.json_response({"job_id": job, "state": "running"}, status=202, headers=headers)


async def still_working(server: FakeServer, _request: web.Request, _upload: Upload) -> web.StreamResponse:
    return working(server, {"Location": "/jobs/1"})


async def test_a_job_that_goes_on_is_followed_to_its_result_and_never_uploaded_again(paper: Path) -> None:
    async def look(request: web.Request, number: int) -> web.StreamResponse:
        if number == 2:
            assert request.transport is not None
            request.transport.abort()
        if number == 3:
            return web.Response(status=502)
        return working(server, {"Retry-After": "0"}) if number < 5 else web.json_response(server.result("paper.pdf"))

    async with FakeServer(still_working, look=look).serving() as server:
        assert (await parse(server, paper))["filename"] == "paper.pdf"
    assert (len(server.uploads), sum(server.looks.values())) == (1, 5)


async def test_a_job_out_of_reach_is_named_and_never_uploaded_again(paper: Path) -> None:
    async def look(_request: web.Request, _number: int) -> web.StreamResponse:
        return web.Response(status=503)

    async with FakeServer(still_working, look=look).serving() as server:
        with pytest.raises(MineruError, match=f"GET /jobs/{1:032x}/result") as caught:
            await parse(server, paper, retries=3)
    assert not caught.value.retryable
    assert len(server.uploads) == 1


async def test_a_job_that_failed_in_a_way_that_may_pass_is_started_again(paper: Path) -> None:
    async def look(_request: web.Request, _number: int) -> web.StreamResponse:
        if len(server.uploads) == 1:
            return refuse(503, "worker_lost", retryable=True)
        return web.json_response(server.result("paper.pdf"))

    async with FakeServer(still_working, look=look).serving() as server:
        assert (await parse(server, paper, retries=1))["status"] == "completed"
    assert (len(server.uploads), sum(server.looks.values())) == (2, 2)


async def test_a_job_name_from_the_server_is_not_built_into_an_address_unseen(paper: Path) -> None:
    async def answer(_server: FakeServer, _request: web.Request, _upload: Upload) -> web.StreamResponse:
        return web.json_response({"job_id": "../../admin"}, status=202)

    async with FakeServer(answer).serving() as server:
        with pytest.raises(MineruError, match="names no job"):
            await parse(server, paper, retries=3)


async def test_one_session_serves_many_documents_over_few_connections(tmp_path: Path) -> None:
    async with FakeServer().serving() as server, aiohttp.ClientSession() as session:
        for number in range(10):
            path = tmp_path / f"{number}.pdf"
            path.write_bytes(b"x")
            await mineru_parse_async(session, path, server.url)
    assert (len(server.uploads), len(server.connections)) == (10, 1)


async def test_a_pipe_is_refused_instead_of_read_for_ever(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.pdf")
    async with FakeServer().serving() as server:
        with pytest.raises(OSError, match="not a regular file"):
            await parse(server, tmp_path / "pipe.pdf")


GROWTH = """
import asyncio, json, re, sys
import aiohttp, client

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024

async def main(url, small, big):
    async with aiohttp.ClientSession() as session:
        await client.mineru_parse_async(session, small, url)
        before = peak()
        await client.mineru_parse_async(session, big, url)
        print(json.dumps(peak() - before))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
async def test_a_large_upload_does_not_grow_the_client(tmp_path: Path, paper: Path) -> None:
    big = tmp_path / "big.pdf"
    with big.open("wb") as sink:
        sink.truncate(300 * 2**20)
    async with FakeServer().serving() as server:
        command = (sys.executable, "-c", GROWTH, server.url, str(paper), str(big))
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE)
        out, _ = await process.communicate()
    assert [upload.size for upload in server.uploads] == [5009, 300 * 2**20]
    grown = json.loads(out)
    print(f"300 MiB uploaded, the client's peak of memory grew by {grown:.1f} MiB")
    assert grown < 8
