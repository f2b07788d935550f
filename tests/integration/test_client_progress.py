"""What `python client.py` shows while it runs, on a terminal and elsewhere, and when the server does not help."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import struct
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

import client
from client import Settings, Summary, parse_many
from tests.integration.client_server import (
    FakeServer,
    Upload,
    progress_of,
    refuse,
    row,
    run_client,
    start_client,
    well,
)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.pdf").write_bytes(b"x" * 100)
    return folder


async def telling(_request: web.Request, number: int) -> web.StreamResponse:
    return web.json_response({"version": "0.1.0", "progress": progress_of(10 * number)})


async def half_failing(server: FakeServer, request: web.Request, upload: Upload) -> web.StreamResponse:
    if int(upload.filename[0]) % 2:
        return refuse(422, "encrypted_document", retryable=False)
    return await well(server, request, upload)


def until_looked_at(times: int) -> Callable[[FakeServer, web.Request, Upload], object]:
    """Answer once the server has been asked for its progress so often."""

    async def answer(server: FakeServer, request: web.Request, upload: Upload) -> web.StreamResponse:
        while server.statuses < times:
            await asyncio.sleep(0.02)
        return await half_failing(server, request, upload)

    return answer


async def on_terminal(columns: int, lines: int, *arguments: object) -> tuple[int, str, str]:
    """Run the command on a terminal of its own; return its status, its output and what the terminal showed."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    process = await start_client(*arguments, terminal=theirs, TERM="xterm", COLUMNS=str(columns), LINES=str(lines))
    os.close(theirs)
    shown = bytearray()

    def drain() -> None:
        try:
            while chunk := os.read(ours, 4096):
                shown.extend(chunk)
        except OSError:  # how Linux says that the other side is closed
            pass

    (out, _), _ = await asyncio.gather(process.communicate(), asyncio.to_thread(drain))
    os.close(ours)
    return process.returncode or 0, out.decode(), shown.decode(errors="replace")


def plain(shown: str) -> list[str]:
    """Return the lines that a terminal was sent, without what moves its cursor and colours them."""
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown))


async def test_a_terminal_shows_the_run_and_a_row_for_each_device_and_vlm_server(docs: Path, tmp_path: Path) -> None:
    server = FakeServer(until_looked_at(2), status=telling)  # type: ignore[arg-type]
    async with server.serving():
        status, out, shown = await on_terminal(100, 30, docs, "--out", tmp_path / "out", "--url", server.url)
    lines = plain(shown)
    assert status == 1
    assert "━" in shown
    assert any(line.startswith("6/6, 3 ok, 3 failed, 9 pages, ") and line.endswith("0:00:00 left") for line in lines)
    assert "server: 2 documents running, 7 waiting, 3.0 pages/s" in lines
    for name, doing in (("cpu", "1/2 busy"), ("cuda:0", "1/1 busy"), ("10.0.0.5:8001", "3 under way, up")):
        assert any(line.split()[0] == name and line.endswith(doing) for line in lines if line.strip()), name
    # The closing table counts from the first look to the last, which comes after all documents.
    assert int(row(out, "cuda:0")) >= 10


async def test_a_small_terminal_is_never_overrun_by_many_devices(docs: Path, tmp_path: Path) -> None:
    devices = [{"device": f"cuda:{number}", "workers": 1, "busy": 1, "pages_done": 5} for number in range(60)]

    async def crowded(_request: web.Request, _number: int) -> web.StreamResponse:
        return web.json_response({"progress": progress_of(1, devices=devices)})

    server = FakeServer(until_looked_at(2), status=crowded)  # type: ignore[arg-type]
    async with server.serving():
        _, _, shown = await on_terminal(44, 10, docs, "--out", tmp_path / "out", "--url", server.url)
    picture = [line for line in plain(shown) if line.startswith(("server:", "  ", "━"))]
    assert any(line.startswith("  and 57 more: ") for line in picture)
    assert not any("cuda:40" in line for line in picture)
    assert all(len(line.rstrip()) <= 44 for line in picture)


async def test_quiet_shows_a_line_for_each_document_and_asks_the_server_for_nothing_else(
    docs: Path, tmp_path: Path
) -> None:
    async with FakeServer(half_failing, status=telling).serving() as server:
        status, _, shown = await on_terminal(100, 30, docs, "--out", tmp_path / "out", "--url", server.url, "--quiet")
    assert status == 1
    assert "━" not in shown
    assert "[6/6, 3 ok, 3 failed" in shown
    assert server.statuses == 0


async def test_the_report_tells_what_each_device_did_meanwhile(docs: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    async with FakeServer(until_looked_at(1), status=telling).serving() as server:  # type: ignore[arg-type]
        arguments = (docs, "--out", tmp_path / "out", "--url", server.url, "--json", report)
        status, out, _ = await run_client(*arguments)
    assert status == 1
    # Two looks: before the first document and after the last one.
    assert server.statuses == 2
    written = json.loads(report.read_text())
    told = {each["name"]: (each["kind"], each["pages"]) for each in written["server"]["rows"]}
    assert told == {"cpu": ("device", 10), "cuda:0": ("device", 10), "10.0.0.5:8001": ("endpoint", 10)}
    assert "The server meanwhile, for all callers" in out
    assert row(out, "10.0.0.5:8001") == "10"


async def hang(_request: web.Request, _number: int) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def nonsense(_request: web.Request, _number: int) -> web.StreamResponse:
    return web.Response(text="<html>")


async def endless(request: web.Request, _number: int) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" " * 65536)


async def locked(_request: web.Request, _number: int) -> web.StreamResponse:
    return refuse(401, "unauthorized", retryable=False)


async def older(_request: web.Request, _number: int) -> web.StreamResponse:
    return web.json_response({"version": "0.0.9", "workers": []})


@pytest.mark.parametrize("status", [None, hang, nonsense, endless, locked, older])
async def test_a_server_that_does_not_tell_costs_one_quiet_line_and_nothing_else(
    status: Callable[[web.Request, int], object] | None,
    docs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "LOOK_TIMEOUT", 0.2)
    monkeypatch.setattr(client, "LOOK_AGAIN", 0.05)
    told = list[str]()

    def watch(line: str, _summary: Summary, outcome: object) -> None:
        if line and outcome is None:
            told.append(line)

    async with FakeServer(until_looked_at(3), status=status).serving() as server:  # type: ignore[arg-type]
        settings = Settings(url=server.url, look_every=0.05)
        summary = await parse_many([docs], tmp_path / "out", settings, watch=watch)
    assert (summary.succeeded, summary.failed, summary.server.rows) == (3, 3, ())
    assert len(told) == 1
    assert told[0].startswith("nothing is shown of the server's devices: ")


async def test_the_key_is_shown_to_the_server_when_it_is_asked_for_its_progress(docs: Path, tmp_path: Path) -> None:
    async def keyed(request: web.Request, number: int) -> web.StreamResponse:
        if request.headers.get("Authorization") != "Bearer k3y":
            return await locked(request, number)
        return await telling(request, number)

    async with FakeServer(status=keyed).serving() as server:
        settings = Settings(url=server.url, look_every=0.05, api_key="k3y")
        summary = await parse_many([docs], tmp_path / "out", settings)
    assert [each.name for each in summary.server.rows] == ["cpu", "cuda:0", "10.0.0.5:8001"]
