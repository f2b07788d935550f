"""A worker whose memory runs out, or whose device has none: real store, real rounds, an engine with faults."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from docfleet.records import JobState, WorkerState
from docfleet.worker.frugality import GOOD_SHARDS
from tests.integration.worker_house import House, open_worker_house, until


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with open_worker_house(tmp_path) as house:
        yield house


def test_a_document_that_runs_out_of_memory_is_read_again_with_less_and_no_attempt_is_lost(house: House) -> None:
    done = house.ended(house.send("oom-above-0.25-x.pdf"))
    assert done.state is JobState.COMPLETED
    assert house.shares() == [1, 0.5, 0.25]
    assert house.store.totals().retries == 0
    (shard,) = house.store.shards(done.id)
    assert shard.attempt == 1
    assert "memory ran out: it reads with 0.25 of its share" in until(lambda: house.report().detail)


def test_the_worker_takes_more_again_step_by_step(house: House) -> None:
    house.ended(house.send("oom-above-0.5-x.pdf"))
    for number in range(GOOD_SHARDS):
        house.ended(house.send(f"plain-{number}.pdf"))
    assert house.frugality.share == 1
    until(lambda: house.report().detail == "")
    house.ended(house.send("oom-above-0.5-y.pdf"))
    assert house.shares() == [1, 0.5, 1, 0.5]


def test_what_fits_at_no_share_fails_as_out_of_memory_after_all_sizes_were_tried(house: House) -> None:
    done = house.ended(house.send("oom-above-0.0-x.pdf"))
    assert done.state is JobState.FAILED
    assert done.error is not None
    assert (done.error["code"], done.error["retryable"]) == ("out_of_memory", True)
    assert house.shares()[:4] == [1, 0.5, 0.25, 0.125]


def test_while_its_device_is_short_of_memory_a_worker_rests_and_says_why_and_goes_on_after(house: House) -> None:
    house.store.rest({0: "less than 512 MB of the memory of cuda:0 are free"}, 60)
    until(lambda: house.report().state is WorkerState.RESTING)
    assert house.report().detail.startswith("less than 512 MB")
    job = house.send("plain.pdf")
    time.sleep(0.3)
    waiting = house.store.job(job.id)
    assert waiting is not None
    assert waiting.state is JobState.QUEUED
    assert house.store.serving() == 0, "nobody is counted on that takes nothing"
    house.store.rest({}, 60)
    assert house.ended(job).state is JobState.COMPLETED
    assert house.report().state is not WorkerState.RESTING


def test_a_document_waits_where_others_fill_the_device_and_does_not_fail_for_it(house: House) -> None:
    job = house.send("sleep-0.1-oom-above-0.0-x.pdf")
    until(lambda: house.store.leases())
    house.store.rest({0: "others fill it"}, 60)
    until(lambda: house.report().state is WorkerState.RESTING)
    found = house.store.job(job.id)
    assert found is not None
    assert not found.state.final
    assert house.store.totals().retries == 1
