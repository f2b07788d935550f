"""One document over all workers, and what becomes of its bad pages. Real server, real signals."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.equality_set import book
from tests.scans import make_scan
from tests.serving import FAULTY, Serving, blank_pdf, running, wait_ready, wait_until

TWO = ("--workers", "2", "--engines", FAULTY)
#: Short deadlines: a page that hangs costs seconds here.
HASTY = (*TWO, "--max-attempts", "2", "--deadline-base", "2", "--page-seconds-flash", "0.2")


def in_background(serving: Serving, name: str, pages: int) -> concurrent.futures.Future[requests.Response]:
    pool = concurrent.futures.ThreadPoolExecutor(1)
    future = pool.submit(serving.predict, blank_pdf(pages), name, 120)
    pool.shutdown(wait=False)
    return future


def answered(response: requests.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def lines_of(markdown: str) -> list[str]:
    return [line for line in markdown.split("\n\n") if line.startswith(("page ", "digest "))]


def nothing_else_stays(body: dict[str, Any]) -> None:
    """The answer is given as soon as the result is recorded; the worker tidies right after."""
    output = Path(body["output_dir"])
    wait_until(lambda: {path.name for path in output.parent.iterdir()} == {output.name, "source.pdf"}, seconds=10)


def test_a_cut_document_is_read_by_all_workers_and_equals_one_that_is_not_cut(tmp_path: Path) -> None:
    with running(tmp_path / "data", *TWO) as serving:
        wait_ready(serving, workers=2)
        cut = answered(serving.predict(blank_pdf(24), "cut-sleep-0.3-a.pdf"))
        whole = answered(serving.predict(blank_pdf(24), "a.pdf"))
        assert cut["status"] == "completed"
        assert lines_of(cut["markdown"]) == lines_of(whole["markdown"])
        job = serving.get(f"/jobs/{cut['job_id']}")
        pages = [shard for shard in job["shards"] if shard["stage"] == "pages"]
        assert len(pages) > 2
        assert {shard["worker"] for shard in pages} == {0, 1}
        assert [shard["stage"] for shard in job["shards"]][-1] == "document"
        assert job["pages_done"] == 24
        # The decision was taken once, and every shard got it.
        readers = cut["markdown"].rpartition("readers ")[2].split()
        assert len(set(readers[1::2])) == 1
        assert len(set(readers[::2])) == 2
        nothing_else_stays(cut)
        # Each worker tells what it did right after it has delivered.
        wait_until(lambda: sum(worker["documents_done"] for worker in serving.workers()) == 2, seconds=10)
        assert sum(worker["pages_done"] for worker in serving.workers()) == 48


def test_a_short_document_does_not_wait_for_a_long_one(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--workers", "1", "--engines", FAULTY) as serving:
        long = in_background(serving, "cut-sleep-0.1-long.pdf", 100)
        wait_until(lambda: any(worker["state"] == "busy" for worker in serving.workers()))
        answered(serving.predict(blank_pdf(1), "short.pdf"))
        assert not long.done()
        assert answered(long.result(120))["pages"] == 100


@pytest.mark.parametrize("cut", ["cut-", ""], ids=["cut", "whole"])
@pytest.mark.parametrize(
    ("fault", "cause"), [("hang", "took longer"), ("die", "died"), ("raise", "cannot be read"), ("garbage", "be used")]
)
def test_a_bad_page_is_left_out_and_every_other_delivered(tmp_path: Path, fault: str, cause: str, cut: str) -> None:
    with running(tmp_path / "data", *HASTY) as serving:
        wait_ready(serving, workers=2)
        bad = in_background(serving, f"{cut}page-5-{fault}.pdf", 8)
        others = [in_background(serving, f"sleep-0.05-{n}.pdf", 3) for n in range(6)]
        body = answered(bad.result(120))
        assert body["status"] == "partial"
        assert [failed["page"] for failed in body["failed_pages"]] == [5]
        assert cause in body["failed_pages"][0]["cause"]
        assert lines_of(body["markdown"])[:-1] == [f"page {page}" for page in range(8) if page != 5]
        assert [answered(other.result(60))["status"] for other in others] == ["completed"] * 6
        nothing_else_stays(body)


@pytest.mark.parametrize(("fault", "cause"), [("hang", "took longer"), ("die", "died"), ("raise", "cannot be read")])
def test_a_page_that_only_the_document_stage_stumbles_over_is_left_out(tmp_path: Path, fault: str, cause: str) -> None:
    with running(tmp_path / "data", *HASTY) as serving:
        wait_ready(serving, workers=2)
        body = answered(serving.predict(blank_pdf(8), f"cut-shelf-finish-5-{fault}.pdf", 120))
        assert body["status"] == "partial"
        assert [failed["page"] for failed in body["failed_pages"]] == [5]
        assert cause in body["failed_pages"][0]["cause"]
        assert lines_of(body["markdown"])[:-1] == [f"page {page}" for page in range(8) if page != 5]
        # Finished pages lie on the shelf: those who look for the bad one read none of them again.
        assert sorted((serving.data / "pages.log").read_text().split()) == [str(page) for page in range(8)]
        nothing_else_stays(body)


def test_a_page_that_eats_memory_is_left_out(tmp_path: Path) -> None:
    with running(tmp_path / "data", *TWO, "--max-attempts", "2", "--worker-memory-mb", "1000") as serving:
        body = answered(serving.predict(blank_pdf(6), "cut-page-2-eat.pdf", 120))
        assert body["status"] == "partial"
        assert [failed["page"] for failed in body["failed_pages"]] == [2]
        assert "memory" in body["failed_pages"][0]["cause"]


def test_a_document_without_one_good_page_fails_and_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "data", *HASTY) as serving:
        response = serving.predict(blank_pdf(4), "cut-raise.pdf", 120)
        assert response.status_code == 422
        assert "a fault on purpose" in response.json()["error"]["message"]
        wait_until(lambda: list((tmp_path / "data" / "jobs").iterdir()) == [], seconds=10)


@pytest.mark.parametrize(
    ("name", "engines", "pages"),
    [("scan", "embedded,mineru", 5), ("model", "tests.reading_engine:ReadingEngine", 104)],
    ids=["recognition", "model"],
)
def test_a_document_read_by_three_workers_equals_one_read_by_one(
    tmp_path: Path, name: str, engines: str, pages: int
) -> None:
    source = tmp_path / f"{name}.pdf"
    if name == "scan":
        make_scan(source, pages, digital=(3,), lines=4)
    else:
        book(source, pages)
    made = []
    for workers in (1, 3):
        options = ("--workers", str(workers), "--overcommit-cpu", "--engines", engines)
        with running(tmp_path / f"data-{workers}", *options) as serving:
            wait_ready(serving, workers=workers)
            formats = {"formats": "markdown,content_list,middle_json"}
            body = answered(serving.predict(source.read_bytes(), "a.pdf", 200, **formats))
            shards = serving.get(f"/jobs/{body['job_id']}")["shards"]
            readers = {shard["worker"] for shard in shards if shard["stage"] == "pages"}
            assert len(readers) >= min(workers, 2)
            assert len(shards) > 2
            output = Path(body["output_dir"])
            made.append({path.relative_to(output): path.read_bytes() for path in output.rglob("*") if path.is_file()})
    assert made[0] == made[1]
    assert len(made[0]) >= 2
