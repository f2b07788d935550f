"""The client and the real doors speak one language: no fake server in between."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import client
from client import Settings, Summary, parse_many
from tests.integration.web_house import PDF, open_house


def parse(paths: list[Path], out: Path, url: str, **settings: object) -> Summary:
    return asyncio.run(parse_many(paths, out, Settings(url=url, **settings)))  # type: ignore[arg-type]


def test_results_partial_results_and_refusals_of_the_real_doors_end_where_they_belong(tmp_path: Path) -> None:
    docs, out = tmp_path / "docs", tmp_path / "out"
    docs.mkdir()
    for name in ("a.pdf", "论文 é.pdf", "b partial.pdf", "c broken.pdf"):
        (docs / name).write_bytes(PDF)
    (docs / "empty.pdf").write_bytes(b"")
    with open_house(tmp_path / "data") as house:
        summary = parse([docs], out, house.url, retries=0, options={"formats": ["markdown", "html"]})
    assert (summary.inputs, summary.succeeded, summary.partial, summary.failed) == (5, 3, 1, 2)
    assert {Path(each.source).name: each.code for each in summary.failures} == {
        "c broken.pdf": "broken_document",
        "empty.pdf": "empty_document",
    }
    page = out / "论文 é" / "论文 é.md"
    assert page.read_text() == "# 论文 é.pdf\n\n![](images/x.png)\n"
    assert (page.parent / "images" / "x.png").stat().st_size > 0
    assert json.loads((out / "b partial" / client.MARKER).read_text())["failed_pages"][0]["page"] == 0


def test_a_document_that_outlasts_the_servers_wait_is_followed_and_not_sent_again(tmp_path: Path) -> None:
    path = tmp_path / "slow.pdf"
    path.write_bytes(PDF)
    with open_house(tmp_path / "data", wait_timeout=0.05) as house:
        house.worker.delivering.clear()

        async def run() -> Summary:
            task = asyncio.create_task(parse_many([path], tmp_path / "out", Settings(url=house.url, retries=0)))
            while not list(house.doors.folder.jobs.iterdir()):
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.3)
            house.worker.delivering.set()
            return await task

        summary = asyncio.run(run())
        assert len(list(house.doors.folder.jobs.iterdir())) == 1
    assert summary.succeeded == 1
    assert (tmp_path / "out" / "slow" / "slow.md").exists()


def test_an_option_that_the_server_does_not_know_is_a_failure_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(PDF)
    with open_house(tmp_path / "data") as house:
        summary = parse([path], tmp_path / "out", house.url, per_file={"a.pdf": {"colour": "red"}})
    assert summary.failures[0].code == "invalid_option"
    assert "colour" in (summary.failures[0].cause or "")
