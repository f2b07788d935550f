"""Several documents that kill their workers cost little more than one does. Store and judge together, on a clock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from docfleet.files import new_job_id
from docfleet.options import ParseOptions
from docfleet.records import Claim, JobState, ProcessIdentity, ShardPlan, Stage
from docfleet.sharding.deadlines import retry_delay
from docfleet.sharding.verdicts import Fault
from docfleet.store.admission import Terms
from docfleet.store.sqlite import SqliteStore, open_store
from docfleet.supervisor.blame import Blame
from tests.integration.store_house import LOST, a_document, report

PAGES, BAD, SLOTS = 16, 5, 3
#: Deaths of one such document by itself: three as a whole, one for each half on the way, three of the page alone.
ALONE = 9


class Site:
    """Workers that all die of one page of each document."""

    now = 1000.0

    def __init__(self, path: Path) -> None:
        self.store: SqliteStore = open_store(path, clock=lambda: self.now)
        self.blame = Blame(0.0, clock=lambda: self.now)
        self.born = self.deaths = 0

    def work(self) -> None:
        """Until all is done, or an hour has passed."""
        until = self.now + 3600
        while self.store.totals().backlog_jobs and self.now < until:
            self.now += 0.5
            self._bury([claim for slot in range(SLOTS) if (claim := self._read(slot)) is not None])

    def _read(self, slot: int) -> Claim | None:
        """Return the claim if it kills."""
        self.born += 1
        claim = self.store.claim(ProcessIdentity(pid=self.born, started=1), slot)
        if claim is None:
            return None
        given_up = [failed.page for failed in claim.failed_pages]
        if claim.first_page <= BAD <= claim.last_page and BAD not in given_up:
            return claim
        assert self.store.complete(claim, output="x", report=report(PAGES, *given_up))
        return None

    def _bury(self, dead: list[Claim]) -> None:
        leases = [lease for lease in self.store.leases() if lease.owner in {claim.owner for claim in dead}]
        for lease in leases:
            assert lease.owner is not None
            self.blame.died(lease.owner, lease)
        for lease in leases:
            fault, delay = self.blame.of(lease), retry_delay(lease.attempt)
            remember = 3600.0 if fault is Fault.PROCESS else 0.0
            self.store.give_back(lease, cause=LOST, max_attempts=3, delay=delay, fault=fault, remember=remember)
            self.deaths += 1


@pytest.mark.parametrize("names", ["a", "ab", "abc", "abcde", "aaa"])
def test_documents_that_kill_workers_cost_little_more_together_than_one_by_one(tmp_path: Path, names: str) -> None:
    site = Site(tmp_path / "docfleet.db")
    jobs = []
    for caller, name in enumerate(names):
        document = replace(a_document(PAGES), sha256=name * 64)
        plan = ShardPlan(stage=Stage.WHOLE, first_page=0, last_page=PAGES - 1)
        jobs.append(site.store.accept(new_job_id(), document, ParseOptions(), [plan], Terms(caller=str(caller))))
    site.work()
    found = [site.store.job(job.id) for job in jobs]
    assert {job.state for job in found if job is not None} == {JobState.PARTIAL}
    assert {page.page for one in site.store.remembered() for page in one.pages} == {BAD}
    assert site.deaths <= 1.5 * ALONE * len(names)
    site.store.close()
