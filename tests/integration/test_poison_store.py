"""Documents that killed workers are remembered, treated with care, and forgotten in the end."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from docfleet.errors import WorkerLost
from docfleet.files import DataFolder, new_job_id
from docfleet.options import Method, ParseOptions, Tier
from docfleet.records import Claim, Job, JobState, Lane, ProcessIdentity, ShardPlan, Stage
from docfleet.sharding.deadlines import Deadlines
from docfleet.store.admission import Terms
from docfleet.store.sqlite import SqliteStore, open_store
from docfleet.supervisor.blame import Blame
from docfleet.supervisor.leases import LeaseKeeper
from docfleet.supervisor.limits import Limits
from tests.integration.store_house import LOST, ME, a_document, job_of, must_claim, report

DAY = 86400.0
DOCUMENT = a_document(8, "bad.pdf")


@dataclass
class Room:
    path: Path
    store: SqliteStore = field(init=False)
    now: float = 1000.0

    def accept(
        self,
        sha256: str = DOCUMENT.sha256,
        pages: int = 8,
        key: str | None = None,
        caller: str = "",
        lane: Lane = Lane.INTERACTIVE,
        **options: object,
    ) -> Job:
        wanted = ParseOptions.model_validate(options)
        first, last = wanted.page_range(pages)
        plan = ShardPlan(stage=Stage.WHOLE, first_page=first, last_page=last)
        document = replace(DOCUMENT, sha256=sha256, pages=pages)
        terms = Terms(caller=caller, lane=lane)
        return self.store.accept(new_job_id(), document, wanted, [plan], terms, reuse_key=key)

    def claim(self) -> Claim:
        self.now += 3600
        return must_claim(self.store)

    def die(self, claim: Claim, max_attempts: int = 2) -> None:
        (lease,) = [lease for lease in self.store.leases() if lease.id == claim.shard_id]
        assert self.store.give_back(lease, cause=LOST, max_attempts=max_attempts, remember=30 * DAY)

    def work(self, bad: int | None, max_attempts: int = 2) -> int:
        """Work until nothing is left; the bad page kills. Return the deaths."""
        deaths = 0
        while True:
            self.now += 3600
            claim = self.store.claim(ME, 0)
            if claim is None:
                return deaths
            given_up = [failed.page for failed in claim.failed_pages]
            if bad is not None and claim.first_page <= bad <= claim.last_page and bad not in given_up:
                self.die(claim, max_attempts)
                deaths += 1
            else:
                told = report(claim.last_page - claim.first_page + 1, *given_up)
                assert self.store.complete(claim, output="x", report=told)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path / "docfleet.db")
    with open_store(room.path, clock=lambda: room.now) as store:
        room.store = store
        yield room


def test_a_page_that_killed_workers_is_left_out_from_the_beginning_with_its_cause(room: Room) -> None:
    first = room.accept()
    assert room.work(bad=5) > 3
    assert job_of(room.store, first).state is JobState.PARTIAL
    (one,) = room.store.remembered()
    assert (one.sha256, one.filename, [page.page for page in one.pages]) == (DOCUMENT.sha256, "bad.pdf", [5])
    assert one.cause == LOST["message"]
    assert one.options["tier"] == "auto"

    second = room.accept()
    claim = room.claim()
    (left_out,) = claim.failed_pages
    assert left_out.page == 5
    assert left_out.cause.startswith(LOST["message"])
    assert f"DELETE /poison/{DOCUMENT.sha256}" in left_out.cause
    assert room.store.complete(claim, output="x", report=report(7, 5))
    assert job_of(room.store, second).state is JobState.PARTIAL
    assert room.store.remembered() == [one], "a part of it is no acquittal"


def test_one_death_has_no_consequence_and_reading_to_the_end_acquits(room: Room) -> None:
    room.accept()
    room.die(room.claim())
    room.accept()
    assert [one.deaths for one in room.store.remembered()] == [1]
    assert room.work(bad=None) == 0
    assert room.store.remembered() == []


def test_a_single_page_is_not_convicted_for_one_death(room: Room) -> None:
    for expected in ([], [0], [0]):
        room.accept(pages=1)
        room.work(bad=0, max_attempts=1)
        (one,) = room.store.remembered()
        assert [page.page for page in one.pages] == expected
    assert one.deaths == 2


def test_a_document_of_which_every_page_is_left_out_is_told_to_the_worker_as_such(room: Room) -> None:
    for _ in range(2):
        room.accept(pages=1)
        room.work(bad=0, max_attempts=1)
    room.accept(pages=1)
    assert room.claim().all_given_up


def test_a_document_whose_page_was_not_found_gets_one_attempt_a_piece(room: Room) -> None:
    job = room.accept()
    for _ in range(2):
        room.die(room.claim(), max_attempts=9)
    room.store.cancel(job.id, LOST)
    room.accept()
    assert room.work(bad=5, max_attempts=9) == 4, "the whole, and then halves of 4, 2 and 1"
    assert [page.page for page in room.store.remembered()[0].pages] == [5]


def test_probes_leave_out_what_is_known_and_find_what_is_not(room: Room) -> None:
    room.accept()
    room.work(bad=5)
    job = room.accept()
    assert room.work(bad=4) == 4
    assert job_of(room.store, job).state is JobState.PARTIAL
    assert [page.page for page in room.store.remembered()[0].pages] == [4, 5]


def test_what_is_read_with_care_has_all_attempts_once_its_pages_were_probed(room: Room) -> None:
    first = room.accept()
    for _ in range(2):
        room.die(room.claim())
    room.store.cancel(first.id, LOST)
    job = room.accept()
    room.die(room.claim())
    while (claim := room.claim()).stage is Stage.PROBE:
        assert room.store.complete(claim, output="x", report=report(4))
    room.die(claim)
    assert room.store.complete(room.claim(), output="x", report=report(8))
    assert job_of(room.store, job).state is JobState.COMPLETED


@pytest.mark.parametrize("options", [{"tier": Tier.BASIC}, {"method": Method.OCR}, {"table_enable": False}])
def test_with_other_options_it_is_another_case(room: Room, options: dict[str, object]) -> None:
    room.accept()
    room.work(bad=5)
    room.accept(**options)
    assert room.claim().failed_pages == ()


@pytest.mark.parametrize("options", [{"formats": "html"}, {"cache": False}, {"backend": "auto"}, {"end_page_id": 6}])
def test_options_that_do_not_decide_how_pages_are_read_make_no_difference(
    room: Room, options: dict[str, object]
) -> None:
    room.accept()
    room.work(bad=5)
    room.accept(**options)
    assert [failed.page for failed in room.claim().failed_pages] == [5]


def test_pages_outside_the_wanted_range_are_not_reported_and_good_ones_acquit_nothing(room: Room) -> None:
    room.accept()
    room.work(bad=5)
    job = room.accept(end_page_id=3)
    assert room.work(bad=5) == 0
    assert job_of(room.store, job).state is JobState.COMPLETED
    assert [page.page for page in room.store.remembered()[0].pages] == [5]


def test_it_is_forgotten_when_its_time_is_over_or_on_request(room: Room) -> None:
    room.accept()
    room.work(bad=5)
    (one,) = room.store.remembered()
    room.now = one.until - 1
    assert room.store.remembered() == [one]
    room.now = one.until
    assert room.store.remembered() == []
    room.accept()
    assert room.store.claim(ME, 0).failed_pages == ()  # type: ignore[union-attr]
    room.store.forget_expired()

    room.accept("cd" * 32)
    room.work(bad=5)
    assert room.store.forget("ef" * 32) == 0
    assert room.store.forget("cd" * 32) == 1
    assert room.store.remembered() == []


def test_what_is_remembered_survives_a_restart(room: Room) -> None:
    room.accept()
    room.work(bad=5)
    with open_store(room.path, clock=lambda: room.now) as again:
        assert again.remembered() == room.store.remembered()
        assert again.forget(None) == 1
    assert room.store.remembered() == []


def test_after_its_second_death_and_when_it_comes_again_whatever_waits_goes_first(room: Room) -> None:
    bad = room.accept()
    claim = room.claim()
    others = [room.accept(f"{number:064d}") for number in range(3)]
    room.die(claim, max_attempts=9)
    claim = room.claim()
    assert claim.job_id == bad.id, "one death has no consequence"
    room.die(claim, max_attempts=9)
    order = []
    for _ in range(4):
        order.append(room.claim().job_id)
    assert order == [*(other.id for other in others), bad.id]

    room.accept()
    for number in range(3):
        room.accept(f"{number:064d}")
    order = [room.claim().document.sha256 == DOCUMENT.sha256 for _ in range(4)]
    assert order.index(True) < 3, "it waits for its turn, not for ever"


@pytest.mark.parametrize("lane", Lane)
def test_what_another_caller_waits_for_goes_first_too_and_the_senders_other_documents_lose_nothing(
    room: Room, lane: Lane
) -> None:
    bad = room.accept(pages=1, caller="one", lane=lane)
    room.die(room.claim(), max_attempts=9)
    claim = room.claim()
    others = [room.accept(f"{number:064d}", caller="other", lane=lane) for number in range(3)]
    own = room.accept("cd" * 32, pages=1, caller="one", lane=lane)
    room.die(claim, max_attempts=9)
    order = []
    for _ in range(4):
        order.append((claim := room.claim()).job_id)
        assert room.store.complete(claim, output="x", report=report(8))
    assert sorted(order) == sorted([own.id, *(other.id for other in others)])
    assert order.index(own.id) < 2, "its sender has the same turn as before"
    assert room.claim().job_id == bad.id


def test_a_document_that_was_put_last_is_halved_and_delivered_like_any_other(room: Room) -> None:
    for caller in ("one", "other"):
        room.accept(pages=16, caller=caller)
        room.accept("cd" * 32, pages=16, caller=caller)
    room.work(bad=5)
    totals = room.store.totals()
    assert (totals.partial, totals.backlog_jobs) == (4, 0)
    with sqlite3.connect(room.path) as connection:
        assert connection.execute("SELECT count(*) FROM callers").fetchone() == (0,), "all were forgotten in the end"


def test_shards_that_others_read_meanwhile_go_along(room: Room) -> None:
    job = room.accept(pages=16)
    first = room.claim()
    plans = [ShardPlan(stage=Stage.PAGES, first_page=8 * part, last_page=8 * part + 7) for part in range(2)]
    assert room.store.split(first, [*plans, ShardPlan(stage=Stage.DOCUMENT, first_page=0, last_page=15)], {})
    other = room.claim()
    for _ in range(2):
        room.die(room.claim(), max_attempts=2)
    assert room.store.give_way(other, 3, output="y")
    room.accept("cd" * 32)
    room.work(bad=None)
    assert job_of(room.store, job).state is JobState.COMPLETED


def test_those_who_waited_for_its_result_are_treated_with_care_too(room: Room) -> None:
    leader = room.accept(pages=1, key="same")
    follower = room.accept(pages=1, key="same")
    other = room.accept("cd" * 32, pages=1)
    for _ in range(2):
        claim = room.claim()
        assert claim.job_id == leader.id
        room.die(claim)
    assert job_of(room.store, leader).state is JobState.FAILED
    assert room.claim().job_id == other.id
    claim = room.claim()
    assert claim.job_id == follower.id
    assert claim.all_given_up


def test_workers_of_the_last_run_did_not_die_of_what_they_read(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.create()
    nobody = ProcessIdentity(pid=2**22 + os.getpid(), started=1)
    limits = Limits(
        max_attempts=5, stale_seconds=60, deadlines=Deadlines(60, dict.fromkeys(Tier, 20.0)), remember_seconds=DAY
    )
    with open_store(folder.database) as store:
        plan = ShardPlan(stage=Stage.WHOLE, first_page=0, last_page=7)
        store.accept(new_job_id(), DOCUMENT, ParseOptions(), [plan])
        assert store.claim(nobody, 0) is not None
        keeper = LeaseKeeper(store, folder, limits, Blame(time.time()))
        assert keeper.look() == 1
        assert store.remembered() == []
        while (claim := store.claim(nobody, 1)) is None:
            pass
        assert keeper.look() == 1
        (one,) = store.remembered()
        assert (one.deaths, one.cause) == (1, store.shards(claim.job_id)[0].error["message"])  # type: ignore[index]
        assert WorkerLost.code == store.shards(claim.job_id)[0].error["code"]  # type: ignore[index]
