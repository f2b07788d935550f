"""Shares of the work: between callers, and between the documents of one."""

from __future__ import annotations

import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from docfleet.records import Claim, Job, Lane, ShardPlan, Stage
from docfleet.sharding.fairness import WHOLE_TURN
from docfleet.store.admission import Terms
from docfleet.store.sqlite import SqliteStore, open_store
from tests.integration.store_house import ME, accept, accept_cut, must_claim, report

PATIENT = settings(max_examples=20, deadline=None, derandomize=True)
#: Pages of a document's shards.
DOCUMENT = st.lists(st.integers(1, 20), min_size=1, max_size=5)


@contextmanager
def fresh() -> Iterator[SqliteStore]:
    with tempfile.TemporaryDirectory() as folder, open_store(Path(folder) / "docfleet.db") as store:
        yield store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "docfleet.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with open_store(path) as opened:
        yield opened


def names_in(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return [name for (name,) in database.execute("SELECT name FROM callers ORDER BY name")]


def send(store: SqliteStore, caller: str, sizes: list[int], lane: Lane = Lane.INTERACTIVE) -> Job:
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    ranges = [(start, start + size - 1) for start, size in zip(starts, sizes, strict=True)]
    return accept_cut(store, *ranges, terms=Terms(caller=caller, lane=lane))


def pages_of(claim: Claim) -> int:
    return claim.last_page - claim.first_page + 1


@PATIENT
@given(st.lists(st.lists(DOCUMENT, min_size=1, max_size=6), min_size=2, max_size=5))
def test_callers_with_work_left_have_had_the_same_share_within_a_shard_of_each(sent: list[list[list[int]]]) -> None:
    with fresh() as store:
        owners: dict[str, int] = {}
        left: Counter[int] = Counter()
        for caller, documents in enumerate(sent):
            for sizes in documents:
                owners[send(store, f"caller {caller}", sizes).id] = caller
                left[caller] += sum(sizes)
        largest = [max(size for sizes in documents for size in sizes) for documents in sent]
        had = Counter(dict.fromkeys(left, 0))
        while all(left.values()):
            claim = must_claim(store)
            had[owners[claim.job_id]] += pages_of(claim)
            left[owners[claim.job_id]] -= pages_of(claim)
            for one in had:
                for other in had:
                    assert abs(had[one] - had[other]) <= largest[one] + largest[other]


@PATIENT
@given(DOCUMENT, st.integers(0, 60), st.integers(1, 20))
def test_one_document_waits_for_a_shard_or_two_however_many_another_caller_sent_before(
    sizes: list[int], claims: int, pages: int
) -> None:
    with fresh() as store:
        for _ in range(20):
            send(store, "many", sizes)
        for _ in range(min(claims, 20 * len(sizes) - 1)):
            must_claim(store)
        mine = accept(store, pages=pages, terms=Terms(caller="one"))
        waited = 0
        while (claim := store.claim(ME, 0)) is not None and claim.job_id != mine.id:
            waited += pages_of(claim)
        assert claim is not None
        assert waited <= min(pages, WHOLE_TURN) + max(sizes)


@PATIENT
@given(st.integers(1, 60), st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_an_endless_row_of_new_callers_starves_nobody(pages: int, others: list[int]) -> None:
    with fresh() as store:
        send(store, "first", [1])
        must_claim(store)
        first = send(store, "first", [pages])
        waited = 0
        for number in range(200):
            accept(store, pages=others[number % len(others)], terms=Terms(caller=f"new {number}"))
            claim = must_claim(store)
            if claim.job_id == first.id:
                return
            waited += pages_of(claim)
            assert waited <= WHOLE_TURN + max(others)
        raise AssertionError("never claimed")


@PATIENT
@given(st.lists(st.integers(1, 5), min_size=2, max_size=2), st.integers(1, 4))
def test_documents_of_one_caller_take_turns_while_another_is_served(sizes: list[int], other: int) -> None:
    with fresh() as store:
        own = [send(store, "mine", [size] * 12).id for size in sizes]
        for _ in range(40):
            send(store, "other", [other] * 6)
        had: Counter[str] = Counter()
        for _ in range(12):
            claim = must_claim(store)
            had[claim.job_id] += pages_of(claim)
            assert abs(had[own[0]] - had[own[1]]) <= sum(sizes)
        assert had[own[0]] or had[own[1]]


def test_a_caller_who_sent_200_documents_gets_no_more_than_one_who_sent_a_few(store: SqliteStore) -> None:
    many = {accept(store, pages=2, terms=Terms(caller="many")).id for _ in range(200)}
    few = {accept(store, pages=2, terms=Terms(caller="few")).id for _ in range(10)}
    claimed = [must_claim(store).job_id for _ in range(20)]
    assert len(few.intersection(claimed)) == len(many.intersection(claimed)) == 10


def test_shares_are_kept_in_each_lane_and_a_lane_is_not_left_to_one_caller(store: SqliteStore) -> None:
    owners = {}
    for number in range(30):
        for lane in Lane:
            owners[send(store, "many", [1], lane).id] = ("many", lane)
            if number < 3:
                owners[send(store, "few", [1], lane).id] = ("few", lane)
    claimed = Counter(owners[must_claim(store).job_id] for _ in range(30))
    assert [claimed["few", lane] for lane in Lane] == [3, 3]
    assert claimed["many", Lane.BATCH] == 3


def test_cutting_a_document_costs_its_caller_no_more_than_its_shards(store: SqliteStore) -> None:
    job = accept(store, pages=100, terms=Terms(caller="long"))
    plans = [ShardPlan(stage=Stage.PAGES, first_page=page, last_page=page + 9) for page in range(0, 100, 10)]
    plans.append(ShardPlan(stage=Stage.DOCUMENT, first_page=0, last_page=99))
    assert store.split(must_claim(store), plans, {})
    other = {send(store, "other", [10]).id for _ in range(5)}
    claimed = [must_claim(store).job_id for _ in range(8)]
    assert claimed.count(job.id) in (4, 5)
    assert len(other.intersection(claimed)) >= 3


def test_callers_who_went_away_are_forgotten(path: Path, store: SqliteStore) -> None:
    staying = [send(store, "staying", [5] * 40).id]
    for number in range(300):
        accept(store, pages=1, terms=Terms(caller=f"passing {number}"))
        claim = must_claim(store)
        while claim.job_id in staying:
            claim = must_claim(store)
        assert store.complete(claim, output="x", report=report(1))
        assert len(names_in(path)) < 12
    store.remove(staying[0])
    assert names_in(path) == []


def test_a_caller_is_known_by_name_only_while_it_has_work_under_way(path: Path, store: SqliteStore) -> None:
    for end in (store.remove, lambda job: store.cancel(job, {"code": "cancelled", "message": "x"})):
        job = accept(store, terms=Terms(caller="address 192.0.2.7"))
        assert names_in(path) == ["address 192.0.2.7"]
        end(job.id)
        assert names_in(path) == []


def test_a_job_of_another_caller_knows_its_place_in_the_queue(store: SqliteStore) -> None:
    many = [accept(store, pages=2, terms=Terms(caller="many")) for _ in range(10)]
    one = accept(store, pages=2, terms=Terms(caller="one"))
    assert store.place(one.id).position == 1
    assert store.place(many[0].id).position == 0
    assert store.place(many[1].id).position == 2
    order = [must_claim(store).job_id for _ in range(3)]
    assert order == [many[0].id, one.id, many[1].id]
