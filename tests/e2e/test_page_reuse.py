"""Finished pages serve other ranges, formats and attempts: the real server under SIGKILL, upgrades and harmed files."""

from __future__ import annotations

import os
import signal
import threading
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.serving import FAULTY, Serving, blank_pdf, running, wait_ready, wait_until

OPTIONS = ("--reuse-results", "--engines", FAULTY)
PAGES = 6

#: The same bytes each time: a saved PDF has an id of its own.
pdf = cache(blank_pdf)


def read(data: Path) -> list[int]:
    """The pages that were really read, in the order of reading."""
    log = data / "pages.log"
    return [int(line) for line in log.read_text().splitlines()] if log.exists() else []


def answer(serving: Serving, name: str = "shelf.pdf", **options: str) -> dict[str, Any]:
    response = serving.predict(pdf(PAGES), name, **options)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def lines(body: dict[str, Any]) -> list[str]:
    """What depends on the pages alone."""
    return [line for line in body["markdown"].split("\n\n") if line.startswith(("page ", "digest "))]


def pieces(data: Path) -> list[Path]:
    return sorted(path for path in data.glob("pages/*/*") if path.parent.name != "drafts")


def test_each_page_is_read_once_for_all_ranges_and_formats_and_once_more_for_another_method(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--workers", "1", *OPTIONS) as serving:
        part = answer(serving, start_page_id="2", end_page_id="3")
        assert read(serving.data) == [2, 3]
        whole = answer(serving)
        assert read(serving.data) == [2, 3, 0, 1, 4, 5]
        again = answer(serving, start_page_id="2", end_page_id="3", formats="markdown,html")
        assert (whole["cached"], again["cached"]) == (False, False)
        assert lines(again) == lines(part)
        assert len(read(serving.data)) == PAGES
        answer(serving, end_page_id="0", method="ocr")
        assert read(serving.data)[PAGES:] == [0]
        # A caller who wants it parsed again gets that, and leaves nothing for others.
        fresh = answer(serving, cache="false")
        assert lines(fresh) == lines(whole)
        assert len(read(serving.data)) == 2 * PAGES + 1
        assert len(pieces(serving.data)) == PAGES + 1


def test_pages_outlive_a_restart_and_not_a_change_of_the_engine(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data, "--workers", "1", *OPTIONS) as serving:
        answer(serving, end_page_id="1")
    draft = data / "pages" / "drafts" / "cut-off"
    draft.write_bytes(b"docfleet piece 1 ")
    with running(data, "--workers", "1", *OPTIONS) as serving:
        assert not draft.exists()
        answer(serving)
        assert read(data) == list(range(PAGES))
    with running(data, "--workers", "1", *OPTIONS, FAULTY_VERSION="2") as serving:
        answer(serving)
        assert read(data) == [*range(PAGES), *range(PAGES)]


@pytest.mark.parametrize("cache_option", ["true", "false"])
def test_the_next_attempt_goes_on_where_the_killed_one_was(tmp_path: Path, cache_option: str) -> None:
    with running(tmp_path / "data", "--workers", "1", *OPTIONS) as serving:
        bodies: list[dict[str, Any]] = []
        name = "cut3-sleep-0.7-shelf.pdf"
        asking = threading.Thread(target=lambda: bodies.append(answer(serving, name, cache=cache_option)))
        asking.start()
        wait_until(lambda: len(read(serving.data)) >= 2, 60)
        (worker,) = serving.workers()
        os.kill(worker["pid"], signal.SIGKILL)
        asking.join(90)
        done = read(serving.data)
        assert len(done) == len(set(done))
        assert lines(bodies[0])[:PAGES] == [f"page {page}" for page in range(PAGES)]
        assert bodies[0]["status"] == "completed"
        wait_until(lambda: not [*serving.data.glob("jobs/*/work")], 30)


def test_a_killed_server_goes_on_from_its_finished_pages(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data, "--workers", "1", *OPTIONS) as serving:
        files = {"file": ("sleep-0.7-shelf.pdf", pdf(PAGES))}
        job = requests.post(f"{serving.url}/jobs", files=files, timeout=30).json()["job_id"]
        wait_until(lambda: len(read(data)) >= 2, 60)
        for process in serving.family():
            process.kill()
        serving.process.wait(timeout=15)
    with running(data, "--workers", "2", *OPTIONS) as serving:
        wait_until(lambda: serving.get(f"/jobs/{job}")["state"] == "completed", 60)
        assert len(read(data)) == len(set(read(data)))
        assert lines(serving.get(f"/jobs/{job}/result"))[:PAGES] == [f"page {page}" for page in range(PAGES)]


def test_pages_whose_files_vanish_or_are_harmed_are_read_again(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--workers", "1", *OPTIONS) as serving:
        whole = answer(serving)
        first, second, third, *_ = pieces(serving.data)
        first.unlink()
        second.write_bytes(second.read_bytes()[:-3])
        third.write_bytes(b"garbage")
        assert lines(answer(serving, formats="markdown,html")) == lines(whole)
        assert len(read(serving.data)) == PAGES + 3
        assert len(pieces(serving.data)) == PAGES


def test_a_document_that_its_caller_deletes_leaves_no_page_behind(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--workers", "1", *OPTIONS) as serving:
        first, second = answer(serving), answer(serving, formats="markdown,html")
        assert len(pieces(serving.data)) == PAGES
        # Nor does one that is stopped in the middle.
        files = {"file": ("sleep-1-shelf.pdf", pdf(9))}
        job = requests.post(f"{serving.url}/jobs", files=files, timeout=30).json()["job_id"]
        wait_until(lambda: len(pieces(serving.data)) > PAGES, 60)
        assert requests.delete(f"{serving.url}/jobs/{job}", timeout=30).json()["state"] == "cancelled"
        for body in (first, second):
            assert len(pieces(serving.data)) >= PAGES
            assert requests.delete(f"{serving.url}/jobs/{body['job_id']}", timeout=30).status_code == 204
        wait_until(lambda: not pieces(serving.data), 60)


def test_what_an_unusable_part_was_made_of_is_not_kept(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--workers", "2", *OPTIONS, "--max-attempts", "1") as serving:
        body = answer(serving, "cut3-page-4-garbage-shelf.pdf")
        assert (body["status"], [page["page"] for page in body["failed_pages"]]) == ("partial", [4])
        assert len(pieces(serving.data)) == PAGES - 1
        # Another document's name, the same bytes: the good pages are there, and the bad one is read at last.
        before = len(read(serving.data))
        whole = answer(serving)
        assert whole["status"] == "completed"
        assert lines(whole)[:PAGES] == [f"page {page}" for page in range(PAGES)]
        assert read(serving.data)[before:] == [4]


def test_a_server_without_room_for_pages_keeps_none(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--workers", "1", *OPTIONS, "--page-cache-gb", "0") as serving:
        wait_ready(serving)
        answer(serving)
        answer(serving, end_page_id="0")
        assert read(serving.data) == [*range(PAGES), 0]
        assert not pieces(serving.data)
