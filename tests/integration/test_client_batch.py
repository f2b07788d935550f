"""`parse_many`: results on disk, the journal, what is done again and what is not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import client
from client import Outcome, OutFolder, OutFolderBusy, Settings, Summary, parse_many
from tests.integration.client_server import PICTURE, FakeServer, Upload, refuse, result_of, well


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "BACKOFF_FIRST", 0.02)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.pdf", "b.docx", "sub/a.pdf", "c.png"):
        (folder / name).write_bytes(b"x" * 100)
    return folder


async def parse(server: FakeServer, docs: Path, out: Path, **settings: Any) -> Summary:
    paths = settings.pop("paths", [docs])
    summary = await parse_many(paths, out, Settings(url=server.url, **settings))
    assert summary.inputs == summary.succeeded + summary.failed
    assert list((out / ".docfleet" / "tmp").glob("*")) == []
    return summary


def journal(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / ".docfleet" / "journal.jsonl").read_text().splitlines() if line]


async def failing_png(server: FakeServer, request: web.Request, upload: Upload) -> web.StreamResponse:
    if upload.filename.endswith(".png"):
        return refuse(422, "broken_document", retryable=False)
    return await well(server, request, upload)


def answering(**changes: Any) -> FakeServer:
    async def answer(_server: FakeServer, _request: web.Request, upload: Upload) -> web.StreamResponse:
        return web.json_response(result_of("a" * 32, upload.filename, **changes))

    return FakeServer(answer)


async def test_results_mirror_the_inputs_with_markdown_images_and_links_that_work(docs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    async with FakeServer().serving() as server:
        summary = await parse(server, docs, out)
    assert (summary.inputs, summary.succeeded, summary.pages) == (4, 4, 12)
    found = {path.relative_to(out).as_posix() for path in out.rglob("*.md")}
    assert found == {"a/a.md", "b/b.md", "c/c.md", "sub/a/a.md"}
    page = (out / "a" / "a.md").read_text()
    assert "![](images/a.png)" in page
    assert "src='images/a.png'" in page
    assert (out / "a" / "images" / "a.png").read_bytes() == PICTURE
    assert (out / "a" / "content_list.json").exists()
    assert not (out / "a" / "document.md").exists()
    assert json.loads((out / "a" / client.MARKER).read_text())["tier"] == "flash"


async def test_markdown_that_is_not_in_the_answer_is_fetched(docs: Path, tmp_path: Path) -> None:
    async def text(request: web.Request, _number: int) -> web.StreamResponse | None:
        return web.Response(text="# fetched") if request.path.endswith(".md") else None

    server = answering(markdown=None)
    server.fetch = text
    async with server.serving():
        await parse(server, docs, tmp_path / "out")
    assert (tmp_path / "out" / "a" / "a.md").read_text() == "# fetched"


async def test_a_file_of_the_result_that_comes_broken_is_fetched_again_without_parsing_again(
    docs: Path, tmp_path: Path
) -> None:
    async def stumble(request: web.Request, number: int) -> web.StreamResponse | None:
        if number > 1:
            return None
        response = web.StreamResponse(headers={"Content-Length": str(len(PICTURE))})
        await response.prepare(request)
        await response.write(PICTURE[:100])
        assert request.transport is not None
        request.transport.close()
        return response

    async with FakeServer(fetch=stumble).serving() as server:
        summary = await parse(server, docs, tmp_path / "out", paths=[docs / "a.pdf"])
    assert (summary.succeeded, len(server.uploads)) == (1, 1)
    assert (tmp_path / "out" / "a" / "images" / "a.png").read_bytes() == PICTURE


@pytest.mark.parametrize("name", ["../../escaped.txt", "/tmp/escaped.txt", "images/..\\..\\escaped.txt"])
async def test_hostile_file_names_fail_the_document_and_write_nothing(name: str, docs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    async with answering(files={name: "/jobs/1/files/x"}).serving() as server:
        summary = await parse(server, docs, out, paths=[docs / "a.pdf"])
    assert [failure.code for failure in summary.failures] == ["invalid_answer"]
    assert [path.name for path in out.iterdir()] == [".docfleet"]
    assert not server.fetches


async def test_a_file_that_the_server_does_not_give_fails_the_document(docs: Path, tmp_path: Path) -> None:
    async def gone(_request: web.Request, _number: int) -> web.StreamResponse:
        return refuse(404, "not_found", retryable=False)

    async with FakeServer(fetch=gone).serving() as server:
        summary = await parse(server, docs, tmp_path / "out", paths=[docs / "a.pdf"])
    assert (summary.failed, summary.failures[0].code) == (1, "not_found")
    assert not (tmp_path / "out" / "a").exists()


async def test_every_cause_is_told_and_the_others_go_on(docs: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    paths = [docs, tmp_path / "none.pdf", tmp_path / "*.xlsx"]
    async with FakeServer(failing_png).serving() as server:
        settings = Settings(url=server.url)
        out = tmp_path / "out"
        summary = await parse_many(paths, out, settings, watch=lambda line, _summary, _outcome: lines.append(line))
    assert (summary.inputs, summary.succeeded, summary.failed) == (6, 3, 3)
    assert {Path(each.source).name: each.code for each in summary.failures} == {
        "c.png": "broken_document",
        "none.pdf": "file_error",
        "*.xlsx": "no_input",
    }
    assert len(lines) == 6


async def test_partial_documents_are_successes_that_are_counted(docs: Path, tmp_path: Path) -> None:
    failed = [{"page": 1, "cause": "too slow"}]
    async with answering(status="partial", pages=2, failed_pages=failed).serving() as server:
        summary = await parse(server, docs, tmp_path / "out")
    assert (summary.succeeded, summary.partial, summary.failed, summary.pages) == (4, 4, 0, 8)


async def test_resume_does_what_is_new_changed_failed_or_asked_otherwise(docs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    async with FakeServer(failing_png).serving() as server:
        await parse(server, docs, out)
        (docs / "a.pdf").write_bytes(b"changed")
        (docs / "new.pdf").write_bytes(b"new")
        before = server.names()
        again = await parse(server, docs, out, resume=True)
        assert server.names() - before == {"a.pdf": 1, "c.png": 1, "new.pdf": 1}
        assert (again.inputs, again.succeeded, again.skipped, again.failed) == (5, 4, 2, 1)
        before = server.names()
        await parse(server, docs, out, resume=True, per_file={"b.docx": {"tier": "basic"}})
        assert server.names() - before == {"b.docx": 1, "c.png": 1}


async def test_resume_does_again_what_lost_its_result(docs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    async with FakeServer().serving() as server:
        await parse(server, docs, out)
        (out / "b" / client.MARKER).unlink()
        (out / "b" / "b.md").unlink()
        before = server.names()
        await parse(server, docs, out, resume=True)
        assert server.names() - before == {"b.docx": 1}


async def test_without_resume_everything_is_done_anew_in_the_same_places(docs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (docs / "a.docx").write_bytes(b"same name, other type")
    async with FakeServer().serving() as server:
        await parse(server, docs, out)
        before = {path.relative_to(out) for path in out.rglob("*.md")}
        (out / "a" / "stale.txt").write_text("of the earlier result")
        await parse(server, docs, out, paths=[docs / "a.pdf", docs])
        assert {path.relative_to(out) for path in out.rglob("*.md")} == before
    assert set(server.names().values()) == {2, 4}
    assert not (out / "a" / "stale.txt").exists()


@pytest.mark.parametrize("named", [True, False], ids=["paths given", "no paths"])
async def test_retry_failed_does_only_those(named: bool, docs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    async with FakeServer(failing_png).serving() as server:
        await parse(server, docs, out)
        (docs / "new.pdf").write_bytes(b"new")
        server.answer = well
        before = server.names()
        again = await parse(server, docs, out, paths=[docs] if named else [], retry_failed=True)
        assert server.names() - before == {"c.png": 1}
        assert (again.inputs, again.succeeded) == (1, 1)
        assert (await parse(server, docs, out, paths=[], retry_failed=True)).inputs == 0


async def test_a_torn_last_line_costs_one_document_and_no_later_line(docs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    async with FakeServer().serving() as server:
        await parse(server, docs, out, concurrency=1)
        path = out / ".docfleet" / "journal.jsonl"
        path.write_bytes(path.read_bytes()[:-40])
        first = await parse(server, docs, out, resume=True)
        second = await parse(server, docs, out, resume=True)
    assert (first.skipped, second.skipped, len(server.uploads)) == (3, 4, 5)


async def test_two_clients_never_share_an_out_folder(docs: Path, tmp_path: Path) -> None:
    async with FakeServer().serving() as server:
        with OutFolder.hold(tmp_path / "out"), pytest.raises(OutFolderBusy, match="another client"):
            await parse(server, docs, tmp_path / "out")
        assert not server.uploads
        assert (await parse(server, docs, tmp_path / "out")).succeeded == 4


async def test_a_folder_that_is_no_result_is_never_replaced(docs: Path, tmp_path: Path) -> None:
    (docs / "a").mkdir()
    (docs / "a" / "diary.txt").write_text("mine")
    async with FakeServer().serving() as server:
        summary = await parse(server, docs, docs, paths=[docs / "a.pdf"])
    assert summary.succeeded == 1
    assert (docs / "a" / "diary.txt").read_text() == "mine"
    assert (docs / "a-pdf" / "a-pdf.md").exists()


async def test_no_more_documents_are_under_way_than_asked_and_all_of_them_are_done_once(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for number in range(60):
        (docs / f"{number}.pdf").write_bytes(b"x")

    async def slow(server: FakeServer, request: web.Request, upload: Upload) -> web.StreamResponse:
        await asyncio.sleep(0.01)
        return await well(server, request, upload)

    async with FakeServer(slow).serving() as server:
        summary = await parse(server, docs, tmp_path / "out", concurrency=5)
    assert summary.succeeded == 60
    assert set(server.names().values()) == {1}
    assert server.most_running == 5
    assert len(server.connections) <= 5 * client.DOWNLOADS
    assert len(journal(tmp_path / "out")) == 60


async def test_a_document_past_its_time_fails_with_the_last_cause(docs: Path, tmp_path: Path) -> None:
    async def busy(_server: FakeServer, _request: web.Request, _upload: Upload) -> web.StreamResponse:
        return refuse(429, "busy", retryable=True, headers={"Retry-After": "1"})

    async with FakeServer(busy).serving() as server:
        summary = await parse(server, docs, tmp_path / "out", paths=[docs / "a.pdf"], timeout=0.5, retries=1)
    (failure,) = summary.failures
    assert failure.code == "timed_out"
    assert "busy: do something about it" in (failure.cause or "")
    assert summary.refusals == 1


async def hanging(server: FakeServer, request: web.Request, upload: Upload) -> web.StreamResponse:
    if upload.filename == "a.pdf":
        return await well(server, request, upload)
    await asyncio.sleep(60)
    return web.Response()


async def test_a_stop_counts_every_input_and_leaves_the_rest_to_resume(docs: Path, tmp_path: Path) -> None:
    stop, out = asyncio.Event(), tmp_path / "out"

    def watch(_line: str, summary: Summary, outcome: Outcome | None) -> None:
        if outcome and summary.succeeded == 1:
            asyncio.get_running_loop().call_later(0.2, stop.set)

    async with FakeServer(hanging).serving() as server:
        settings = Settings(url=server.url, concurrency=2)
        summary = await parse_many([docs / "a.pdf", docs], out, settings, watch=watch, stop=stop)
        assert summary.interrupted
        assert (summary.inputs, summary.succeeded + summary.failed) == (4, 4)
        assert summary.failed == summary.not_started + len(summary.failures)
        assert {failure.code for failure in summary.failures} == {"interrupted"}
        server.answer = well
        assert (await parse(server, docs, out, resume=True)).succeeded == 4


async def test_a_caller_may_cancel_and_the_journal_knows_what_was_under_way(docs: Path, tmp_path: Path) -> None:
    started = asyncio.Event()

    async def hang(_server: FakeServer, _request: web.Request, _upload: Upload) -> web.StreamResponse:
        started.set()
        await asyncio.sleep(60)
        return web.Response()

    async with FakeServer(hang).serving() as server:
        task = asyncio.create_task(parse_many([docs / "a.pdf"], tmp_path / "out", Settings(url=server.url)))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    (entry,) = journal(tmp_path / "out")
    assert (entry["status"], entry["code"]) == ("failed", "interrupted")


@pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"retries": -1}, {"timeout": 0}, {"url": "nowhere"}])
async def test_settings_that_cannot_be_used_are_refused(wrong: dict[str, Any], docs: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"concurrency|address"):
        await parse_many([docs], tmp_path / "out", Settings(**wrong))
    assert not (tmp_path / "out").exists()
