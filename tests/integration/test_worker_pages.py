"""A worker and pages that an engine cannot read: real store, real rounds, an engine with faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from docfleet.records import Job, JobState
from tests.integration.worker_house import House, open_worker_house


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with open_worker_house(tmp_path) as house:
        yield house


def failed_pages(house: House, job: Job) -> list[int]:
    assert job.report is not None
    return [page["page"] for page in job.report["failed_pages"]]


@pytest.mark.parametrize("cut", ["cut-", ""], ids=["cut", "whole"])
@pytest.mark.parametrize("fault", ["raise", "slow"])
def test_a_page_that_an_engine_gives_up_on_is_left_out_whatever_it_says(house: House, fault: str, cut: str) -> None:
    done = house.ended(house.send(f"{cut}page-2-{fault}.pdf", pages=4))
    assert (done.state, failed_pages(house, done)) == (JobState.PARTIAL, [2])


def test_a_page_that_cannot_be_opened_is_left_out_and_a_document_that_cannot_fails(house: House) -> None:
    done = house.ended(house.send("cut-page-2-broken.pdf", pages=4))
    assert (done.state, failed_pages(house, done)) == (JobState.PARTIAL, [2])
    whole = house.ended(house.send("page-2-broken.pdf", pages=4))
    assert whole.error is not None
    assert (whole.state, whole.error["code"]) == (JobState.FAILED, "broken_document")


def test_a_document_that_cannot_be_joined_at_all_fails_for_what_the_engine_says(house: House) -> None:
    done = house.ended(house.send("cut-finish-any-raise.pdf", pages=2))
    assert done.error is not None
    assert done.error["code"] == "parse_failed"
