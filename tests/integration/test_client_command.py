"""`python client.py` as a user runs it: real processes, exit statuses, Ctrl-C, SIGKILL."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest
from aiohttp import web

from tests.integration.client_server import FakeServer, Upload, refuse, row, run_client, start_client, well


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number:02}.pdf").write_bytes(b"x" * 100)
    return folder


async def half_failing(server: FakeServer, request: web.Request, upload: Upload) -> web.StreamResponse:
    if int(upload.filename[:2]) % 2:
        return refuse(422, "encrypted_document", retryable=False)
    return await well(server, request, upload)


async def test_a_clean_run_prints_a_line_for_each_file_and_a_table(docs: Path, tmp_path: Path) -> None:
    async with FakeServer().serving() as server:
        status, out, err = await run_client(docs, "--out", tmp_path / "out", "--url", server.url, "--quiet")
    assert status == 0, err
    assert [row(out, name) for name in ("inputs", "succeeded", "partial", "failed", "pages")] == list(
        ("12", "12", "0", "0", "36")
    )
    lines = err.splitlines()
    assert len(lines) == 12
    assert all("completed" in line and "pages/s" in line and "failed" in line for line in lines)
    assert (tmp_path / "out" / "03" / "03.md").exists()


async def test_failures_are_named_with_their_cause_and_the_status_is_1(docs: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    async with FakeServer(half_failing).serving() as server:
        arguments = (docs, "--out", tmp_path / "out", "--url", server.url, "--json", report)
        status, out, _ = await run_client(*arguments)
        assert status == 1
        assert (row(out, "succeeded"), row(out, "failed")) == ("6", "6")
        assert out.count("FAILED") == 6
        assert "01.pdf: encrypted_document: encrypted_document: do something about it" in out
        written = json.loads(report.read_text())
        assert (written["inputs"], written["failed"], len(written["results"])) == (12, 6, 12)
        server.answer = well
        status, out, _ = await run_client("--retry-failed", "--out", tmp_path / "out", "--url", server.url)
    assert (status, row(out, "inputs"), row(out, "succeeded")) == (0, "6", "6")


async def test_options_reach_the_server_for_all_and_for_each_file(docs: Path, tmp_path: Path) -> None:
    per_file = tmp_path / "options.toml"
    per_file.write_text('["0*.pdf"]\nmethod = "ocr"\n["01.pdf"]\ntable_enable = true\n')
    async with FakeServer().serving() as server:
        status, _, err = await run_client(
            *(docs, "--out", tmp_path / "out", "--url", server.url, "--options-file", per_file),
            *("--backend", "pipeline", "--tier", "basic", "--method", "txt", "--lang", "en", "--start-page-id", "1"),
            *("--end-page-id", "2", "--formula-enable", "--no-table-enable", "--formats", "markdown,html"),
            *("--server-url", "http://vlm", "--shards", "fast"),
        )
    assert status == 0, err
    sent = {upload.filename: upload.fields for upload in server.uploads}
    everybody = {
        "backend": "pipeline",
        "tier": "basic",
        "method": "txt",
        "lang": "en",
        "start_page_id": "1",
        "end_page_id": "2",
        "formula_enable": "true",
        "table_enable": "false",
        "formats": "markdown,html",
        "server_url": "http://vlm",
        "shards": "fast",
    }
    assert sent["11.pdf"] == everybody
    assert sent["02.pdf"] == everybody | {"method": "ocr"}
    assert sent["01.pdf"] == everybody | {"method": "ocr", "table_enable": "true"}


async def test_the_key_is_sent_and_written_nowhere(docs: Path, tmp_path: Path) -> None:
    key = "k3y-that-nobody-may-see"
    async with FakeServer(half_failing).serving() as server:
        arguments = (docs, "--out", tmp_path / "out", "--url", server.url, "--json", tmp_path / "report.json")
        _, out, err = await run_client(*arguments, DOCFLEET_API_KEY=key)
        await run_client(docs / "00.pdf", "--out", tmp_path / "out", "--url", server.url, "--api-key", "other")
    assert {upload.headers["Authorization"] for upload in server.uploads[:12]} == {f"Bearer {key}"}
    assert server.uploads[-1].headers["Authorization"] == "Bearer other"
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert key not in out + err
    assert key.encode() not in written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name at least one"),
        (("x.pdf", "--concurrency", "0"), "concurrency must be at least 1"),
        (("x.pdf", "--url", "nowhere"), "no HTTP address"),
        (("x.pdf", "--resume", "--retry-failed"), "not allowed with"),
        (("x.pdf", "--options-file", "bad.json"), "must map file names"),
        (("x.pdf", "--unknown"), "unrecognized arguments"),
    ],
)
async def test_a_wrong_command_line_ends_with_2_and_says_why(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text('["not a mapping"]')
    status, _, err = await run_client(*arguments, "--out", tmp_path / "out")
    assert status == 2
    assert message in err


async def test_an_out_folder_that_cannot_be_made_ends_with_1_and_says_why(docs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    status, _, err = await run_client(docs, "--out", tmp_path / "file")
    assert status == 1
    assert "File exists" in err or "Not a directory" in err
    assert "Traceback" not in err


async def test_a_low_limit_of_open_files_fails_nothing(docs: Path, tmp_path: Path) -> None:
    for number in range(12, 100):
        (docs / f"{number:02}.pdf").write_bytes(b"x")
    together = asyncio.Barrier(50)

    async def all_at_once(server: FakeServer, request: web.Request, upload: Upload) -> web.StreamResponse:
        await together.wait()
        return await well(server, request, upload)

    under = ("sh", "-c", 'ulimit -S -n 100; exec "$@"', "sh")
    async with FakeServer(all_at_once).serving() as server:
        many = ("--out", tmp_path / "out", "--url", server.url, "--concurrency", "50")
        process = await start_client(docs, *many, under=under)
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert row(out.decode(), "succeeded") == "100"
    assert b"waiting" not in err


async def test_where_the_system_allows_few_open_files_fewer_documents_are_under_way_and_the_client_says_so(
    docs: Path, tmp_path: Path
) -> None:
    under = ("sh", "-c", 'ulimit -n 100; exec "$@"', "sh")
    async with FakeServer().serving() as server:
        many = ("--out", tmp_path / "out", "--url", server.url, "--concurrency", "50")
        process = await start_client(docs, *many, under=under)
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert row(out.decode(), "succeeded") == "12"
    assert b"4 documents at the same time: the limit of open files allows no more" in err
    assert server.most_running <= 4


async def test_many_who_are_told_to_wait_are_a_line_a_second_and_all_are_counted(docs: Path, tmp_path: Path) -> None:
    async def busy_once(server: FakeServer, request: web.Request, upload: Upload) -> web.StreamResponse:
        if upload.time == 1:
            return refuse(429, "busy", retryable=True, headers={"Retry-After": "0"})
        return await well(server, request, upload)

    async with FakeServer(busy_once).serving() as server:
        arguments = (docs, "--out", tmp_path / "out", "--url", server.url, "--concurrency", "12")
        status, out, err = await run_client(*arguments)
    assert (status, row(out, "succeeded"), row(out, "refusals")) == (0, "12", "12")
    assert 1 <= err.count("waiting ") < 12


async def first_then_hang(server: FakeServer, request: web.Request, upload: Upload) -> web.StreamResponse:
    if len(server.uploads) <= 4:
        return await well(server, request, upload)
    await asyncio.sleep(60)
    return web.Response()


async def until_busy(server: FakeServer, running: int) -> None:
    while len(server.uploads) < 4 + running:
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_ends_in_order_with_every_input_counted(
    number: int, expected: int, docs: Path, tmp_path: Path
) -> None:
    async with FakeServer(first_then_hang).serving() as server:
        process = await start_client(docs, "--out", tmp_path / "out", "--url", server.url, "--concurrency", "2")
        await until_busy(server, 2)
        process.send_signal(number)
        out, err = (text.decode() for text in await process.communicate())
        assert process.returncode == expected
        assert "Traceback" not in err
        cells = [row(out, name) for name in ("inputs", "succeeded", "failed", "not started")]
        assert cells == ["12", "4", "8", "6"]
        assert out.count("interrupted: the run was stopped") == 2
        server.answer = well
        status, out, _ = await run_client(docs, "--out", tmp_path / "out", "--url", server.url, "--resume")
    assert (status, row(out, "succeeded"), row(out, "skipped")) == (0, "12", "4")


async def test_after_sigkill_resume_does_the_rest_and_nothing_twice(docs: Path, tmp_path: Path) -> None:
    out_folder = tmp_path / "out"
    async with FakeServer(first_then_hang).serving() as server:
        process = await start_client(docs, "--out", out_folder, "--url", server.url, "--concurrency", "2")
        await until_busy(server, 2)
        process.kill()
        await process.communicate()
        before, server.answer = server.names(), well
        journal = out_folder / ".docfleet" / "journal.jsonl"
        done = {Path(json.loads(line)["source"]).name for line in journal.read_text().splitlines()}
        with journal.open("ab") as torn:
            torn.write(b'{"source": "/half/a/li')
        status, out, _ = await run_client(docs, "--out", out_folder, "--url", server.url, "--resume")
    assert (status, row(out, "succeeded"), row(out, "skipped")) == (0, "12", "4")
    assert set(server.names() - before) == {path.name for path in docs.iterdir()} - done
    assert len(list(out_folder.rglob("*.md"))) == 12
    assert list((out_folder / ".docfleet" / "tmp").glob("*")) == []


async def test_a_second_client_on_the_same_out_folder_is_turned_away(docs: Path, tmp_path: Path) -> None:
    async with FakeServer(first_then_hang).serving() as server:
        arguments = (docs, "--out", tmp_path / "out", "--url", server.url, "--concurrency", "1")
        first = await start_client(*arguments)
        await until_busy(server, 1)
        status, _, err = await run_client(*arguments)
        first.send_signal(signal.SIGINT)
        await first.communicate()
    assert status == 2
    assert f"another client (process {first.pid})" in err
