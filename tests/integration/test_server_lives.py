"""A document that takes the whole server down each time is found; those that were there by chance are not blamed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from docfleet.files import DataFolder, new_job_id
from docfleet.host.lock import hold_folder, one_life, say_stopped, was_killed
from docfleet.host.shutdown import Ending
from docfleet.options import ParseOptions, Tier
from docfleet.records import Claim, Job, JobState, ProcessIdentity, ShardPlan, Stage
from docfleet.sharding.deadlines import Deadlines
from docfleet.store.sqlite import SqliteStore, open_store
from docfleet.supervisor.blame import Blame
from docfleet.supervisor.leases import LeaseKeeper
from docfleet.supervisor.limits import Limits
from docfleet.supervisor.lives import SUSPECTED
from tests.integration.store_house import a_document, job_of, report

LIMITS = Limits(
    max_attempts=3, stale_seconds=60, deadlines=Deadlines(60, dict.fromkeys(Tier, 20.0)), remember_seconds=86400
)
#: Above all numbers of processes.
NOBODY = 2**22 + os.getpid()


class Site:
    """Servers that follow each other on one folder."""

    now = 1000.0
    lives = 0

    def __init__(self, path: Path) -> None:
        self.folder = DataFolder(path / "data")
        self.folder.create()
        self.store: SqliteStore = open_store(self.folder.database, clock=lambda: self.now)

    def accept(self, name: str, pages: int = 1) -> Job:
        document = replace(a_document(pages), sha256=name.ljust(64, "0"))
        plan = ShardPlan(stage=Stage.WHOLE, first_page=0, last_page=pages - 1)
        return self.store.accept(new_job_id(), document, ParseOptions(), [plan])

    def live(self, *, killed: bool, kills: Callable[[str], bool], page: int = 0) -> bool:
        """One life on two workers, that begins and reads until the document that kills is met. Return whether it was.

        Args:
            killed: whether the life before was.
            kills: says of a document, by the begin of its hash, whether it brings the server down.
            page: that does it.
        """
        self.lives += 1
        self.now += 1
        LeaseKeeper(self.store, self.folder, LIMITS, Blame(self.now, clock=lambda: self.now), killed=killed).look()
        self.now += 60
        for _ in range(100):
            claims = [
                claim
                for slot in range(2)
                if (claim := self.store.claim(ProcessIdentity(pid=NOBODY + self.lives, started=slot), slot))
            ]
            if any(kills(claim.document.sha256[0]) for claim in claims if _holds(claim, page)):
                return True
            self.now += 30
            for claim in claims:
                told = report(claim.document.pages, *(failed.page for failed in claim.failed_pages))
                assert self.store.complete(claim, output="x", report=told)
            if not self.store.totals().backlog_jobs:
                return False
        raise AssertionError("it ends in neither way")


def _holds(claim: Claim, page: int) -> bool:
    return claim.first_page <= page <= claim.last_page and page not in [failed.page for failed in claim.failed_pages]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_page_that_kills_the_server_ends_and_what_was_read_beside_it_is_delivered(site: Site) -> None:
    bad, good = site.accept("bad"), site.accept("good")
    killed = False
    while killed := site.live(killed=killed, kills="b".__eq__):
        assert site.lives < 60
    assert job_of(site.store, bad).state is JobState.FAILED
    assert job_of(site.store, good).state is JobState.COMPLETED
    assert [one.sha256 for one in site.store.remembered()] == [bad.document.sha256]


def test_two_that_kill_the_server_are_both_found(site: Site) -> None:
    bad, good, worse = site.accept("bad"), site.accept("good"), site.accept("worse")
    killed = False
    while killed := site.live(killed=killed, kills=lambda name: name in "bw"):
        assert site.lives < 60
    assert [job_of(site.store, job).state for job in (bad, worse)] == [JobState.FAILED] * 2
    assert job_of(site.store, good).state is JobState.COMPLETED


def test_the_page_that_kills_the_server_is_found_in_a_longer_document(site: Site) -> None:
    bad = site.accept("bad", pages=4)
    killed = False
    while killed := site.live(killed=killed, kills="b".__eq__, page=2):
        assert site.lives < 60
    assert job_of(site.store, bad).state is JobState.PARTIAL
    assert [page.page for page in site.store.remembered()[0].pages] == [2]


def test_a_few_kills_of_the_server_are_held_against_no_document(site: Site) -> None:
    jobs = [site.accept("a"), site.accept("b")]
    for life in range(SUSPECTED):
        assert site.live(killed=life > 0, kills=lambda _: True)
    assert not site.live(killed=True, kills=lambda _: False)
    assert site.store.remembered() == []
    assert {job_of(site.store, job).state for job in jobs} == {JobState.COMPLETED}


def test_documents_that_follow_each_other_on_a_server_that_is_killed_all_the_time_are_not_blamed(site: Site) -> None:
    jobs = [site.accept(f"{number}") for number in range(9)]
    for life in range(40):
        # Something else kills it, half a minute after each start: what is read first ends, what comes next is lost.
        begun: list[str] = []
        if not site.live(killed=life > 0, kills=lambda name, begun=begun: begun.append(name) or len(begun) > 2):  # type: ignore[misc]
            break
    assert site.store.remembered() == []
    assert {job_of(site.store, job).state for job in jobs} == {JobState.COMPLETED}


def test_an_ordered_stop_begins_the_count_anew(site: Site) -> None:
    job = site.accept("a")
    for life in range(5 * SUSPECTED):
        assert site.live(killed=life % SUSPECTED != 0, kills=lambda _: True)
        site.now += 60
    assert site.store.remembered() == []
    assert job_of(site.store, job).state is JobState.RUNNING


def test_the_lock_tells_whether_the_last_server_was_killed(tmp_path: Path) -> None:
    lock = hold_folder(tmp_path)
    assert not was_killed(lock), "there was none"
    with one_life(lock):
        assert was_killed(lock), "as the next one finds it if this one cannot say more"
    assert not was_killed(lock)
    with one_life(lock):
        say_stopped(lock)
        assert not was_killed(lock), "an ordered stop that takes too long may end with a kill"
    os.close(lock)


def test_the_end_is_told_as_soon_as_it_is_ordered() -> None:
    ending, told = Ending(), []
    ending.when_ordered(lambda: told.append(1))
    for _ in range(2):
        with suppress(KeyboardInterrupt):
            ending._handle(signal.SIGTERM, None)
    assert told == [1]
    failing = Ending()
    failing.when_ordered(lambda: told.append(2))
    failing.fail()
    assert told == [1]
