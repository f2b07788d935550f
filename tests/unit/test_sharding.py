"""Into which shards documents are cut, when their turn comes, and what becomes of those that fail."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docfleet.engine.mineru.flash_shards import CONTEXT, SAMPLES, pages_to_read
from docfleet.options import Tier
from docfleet.records import ShardPlan, Stage
from docfleet.sharding.cutting import LONGEST, SHORTEST, Cuts, cut, halves, turns
from docfleet.sharding.deadlines import Deadlines, retry_delay
from docfleet.sharding.verdicts import Failure, Fault, Verdict, after


def cuts_of(*costs: float, first: int = 0, step: int = 1) -> Cuts:
    pages = range(first, first + len(costs))
    return Cuts(costs=costs, starts=frozenset(page for page in pages if (page - first) % step == 0))


def sizes(plans: list[ShardPlan]) -> list[int]:
    return [plan.pages for plan in plans if plan.stage is Stage.PAGES]


@given(
    st.lists(st.sampled_from([0.0, 0.1, 1.0, 5.0, 100.0]), min_size=1, max_size=80),
    st.integers(0, 9),
    st.integers(1, 7),
    st.integers(1, 40),
)
def test_shards_hold_every_page_once_in_order_and_begin_where_the_engine_lets_them(
    costs: list[float], first: int, step: int, workers: int
) -> None:
    cuts = cuts_of(*costs, first=first, step=step)
    plans = cut(cuts, first, workers)
    if not plans:
        return
    *parts, document = plans
    last = first + len(costs) - 1
    assert (document.stage, document.first_page, document.last_page) == (Stage.DOCUMENT, first, last)
    pages = [page for part in parts for page in range(part.first_page, part.last_page + 1)]
    assert pages == list(range(first, last + 1))
    assert len(parts) > 1
    assert all(part.first_page in cuts.starts for part in parts[1:])
    assert all(part.stage is Stage.PAGES for part in parts)


def test_shards_get_shorter_towards_the_end() -> None:
    found = sizes(cut(cuts_of(*[3.0] * 40), 0, 2))
    assert found == sorted(found, reverse=True)
    assert found[0] == 10
    assert found[-1] == 1


def test_no_shard_is_longer_than_bounds_allow_and_none_is_hardly_worth_handing_over() -> None:
    costs = [0.05] * 10_000
    found = sizes(cut(cuts_of(*costs), 0, 1))
    assert max(found) * 0.05 <= LONGEST + 0.05
    assert min(found) * 0.05 >= SHORTEST / 2


@pytest.mark.parametrize("costs", [[3.0], [1.0, 1.0, 1.0], [0.0] * 500, [100.0]])
def test_a_document_that_costs_little_or_has_one_page_stays_whole(costs: list[float]) -> None:
    assert cut(cuts_of(*costs), 0, 8) == []


def test_windows_are_never_cut_in_two() -> None:
    assert sizes(cut(cuts_of(*[10.0] * 40, step=16), 0, 8)) == [16, 16, 8]


def test_pages_that_cost_nothing_go_along_with_their_neighbours() -> None:
    costs = [0.0] * 50 + [5.0] * 4 + [0.0] * 50
    found = sizes(cut(cuts_of(*costs), 0, 2))
    assert sum(found) == 104
    assert len(found) == 4


def test_short_work_gets_an_earlier_turn_and_parts_follow_each_other() -> None:
    scan = cut(cuts_of(*[3.0] * 40), 0, 2)
    letter = [ShardPlan(stage=Stage.WHOLE, first_page=0, last_page=0)]
    book = [ShardPlan(stage=Stage.WHOLE, first_page=0, last_page=349)]
    *parts, document = turns(scan, 100)
    assert document == 100
    assert parts == sorted(parts)
    assert turns(letter, 100) == [101]
    assert turns(letter, 100) < turns(book, 100) < [150]


@given(st.integers(0, 50), st.integers(1, 200))
def test_halves_hold_what_the_range_held(first: int, more: int) -> None:
    (a, b), (c, d) = halves(first, first + more)
    assert (a, d) == (first, first + more)
    assert a <= b < c <= d
    assert c == b + 1


def failure(stage: Stage, pages: int, attempt: int, *, halved: bool = False, by: Fault = Fault.PROCESS) -> Failure:
    return Failure(stage=stage, pages=pages, attempt=attempt, max_attempts=3, halved=halved, fault=by)


@pytest.mark.parametrize(
    ("failed", "verdict"),
    [
        (failure(Stage.PAGES, 8, 1), Verdict.RETRY),
        (failure(Stage.PAGES, 8, 3), Verdict.BISECT),
        (failure(Stage.PAGES, 4, 1, halved=True), Verdict.BISECT),
        (failure(Stage.PAGES, 8, 1, by=Fault.ENGINE), Verdict.BISECT),
        (failure(Stage.PAGES, 1, 2, halved=True), Verdict.RETRY),
        (failure(Stage.PAGES, 1, 3, halved=True), Verdict.QUARANTINE),
        (failure(Stage.PROBE, 2, 1, halved=True), Verdict.BISECT),
        (failure(Stage.PROBE, 1, 3, halved=True, by=Fault.ENGINE), Verdict.QUARANTINE),
        (failure(Stage.WHOLE, 8, 2), Verdict.RETRY),
        (failure(Stage.WHOLE, 8, 3), Verdict.PROBE),
        (failure(Stage.WHOLE, 8, 1, by=Fault.ENGINE), Verdict.PROBE),
        (failure(Stage.WHOLE, 8, 0, by=Fault.NOBODY), Verdict.RETRY),
        (failure(Stage.WHOLE, 1, 3, halved=True, by=Fault.NOBODY), Verdict.RETRY),
        (failure(Stage.PAGES, 1, 3, halved=True, by=Fault.NOBODY), Verdict.RETRY),
        (failure(Stage.DOCUMENT, 8, 3, by=Fault.NOBODY), Verdict.RETRY),
        (failure(Stage.WHOLE, 8, 2, halved=True), Verdict.RETRY),
        (failure(Stage.WHOLE, 8, 3, halved=True), Verdict.FAIL),
        (failure(Stage.WHOLE, 8, 1, halved=True, by=Fault.ENGINE), Verdict.FAIL),
        (failure(Stage.WHOLE, 1, 2), Verdict.RETRY),
        (failure(Stage.WHOLE, 1, 3), Verdict.FAIL),
        (failure(Stage.DOCUMENT, 8, 2), Verdict.RETRY),
        (failure(Stage.DOCUMENT, 8, 3), Verdict.PROBE),
        (failure(Stage.DOCUMENT, 8, 1, by=Fault.ENGINE), Verdict.PROBE),
        (failure(Stage.DOCUMENT, 8, 2, halved=True), Verdict.RETRY),
        (failure(Stage.DOCUMENT, 8, 3, halved=True), Verdict.FAIL),
        (failure(Stage.DOCUMENT, 1, 3), Verdict.FAIL),
    ],
)
def test_a_failed_shard_meets_its_verdict(failed: Failure, verdict: Verdict) -> None:
    assert after(failed) is verdict


def test_deadlines_grow_with_pages_by_the_work_of_the_stage() -> None:
    deadlines = Deadlines(60, {Tier.FLASH: 20, Tier.BASIC: 160, Tier.STANDARD: 200, Tier.ADVANCED: 300})
    assert deadlines.seconds(Stage.PAGES, Tier.BASIC, 16) == 60 + 16 * 160
    assert deadlines.seconds(Stage.WHOLE, Tier.STANDARD, 2) == 60 + 2 * 200
    assert deadlines.seconds(Stage.DOCUMENT, Tier.BASIC, 16) == 60 + 16 * 20
    assert deadlines.seconds(Stage.PROBE, Tier.BASIC, 16) == 60 + 16 * 160
    assert deadlines.at_most(2) == 60 + 2 * 300


def test_retries_wait_longer_each_time_up_to_a_bound() -> None:
    assert [retry_delay(attempt) for attempt in (1, 2, 3)] == [0.5, 1.0, 2.0]
    assert retry_delay(1000) == 30


@pytest.mark.parametrize("size", [1, 2, 7, 16])
def test_a_shard_of_flash_reads_its_own_pages_in_order_with_neighbours_and_samples_out_of_reach(size: int) -> None:
    begin, end = 3, 66
    for first in range(begin, end + 1, size):
        last = min(first + size - 1, end)
        read = pages_to_read((first, last), (begin, end))
        assert len(read) == len(set(read)) <= size + 2 * CONTEXT + SAMPLES
        assert set(read) <= set(range(begin, end + 1))
        own = [place for place, page in enumerate(read) if first <= page <= last]
        assert [read[place] for place in own] == list(range(first, last + 1))
        # The first page of the document has rules of its own; no other page may stand in its place.
        assert (own[0] == 0) == (first == begin)
        for place, page in enumerate(read):
            near = min(abs(place - own[0]), abs(place - own[-1])) <= CONTEXT
            assert not near or first - CONTEXT <= page <= last + CONTEXT
