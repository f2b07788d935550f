"""Leaders and followers, sizes and turns, in the real store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from docfleet.errors import KeyReused
from docfleet.files import DataFolder, new_job_id
from docfleet.options import ParseOptions
from docfleet.records import Job, JobState, Lane, ProcessIdentity, ShardPlan, Stage, WorkerReport, WorkerState
from docfleet.store.admission import Terms
from docfleet.store.reuse import hand_on
from docfleet.store.sqlite import SqliteStore, open_store
from docfleet.supervisor.sizes import keep_within
from tests.integration.store_house import LOST, ME, OTHER, a_document, job_of, must_claim, report

WHOLE = ShardPlan(stage=Stage.WHOLE, first_page=0, last_page=2)
ENGINES = "fingerprint"


@dataclass
class Room:
    store: SqliteStore
    folder: DataFolder
    now: float = 1000.0

    def accept(self, key: str | None = "key", **terms: object) -> Job:
        return self.store.accept(
            new_job_id(), a_document(), ParseOptions(), [WHOLE],
            Terms(**terms), reuse_key=key, engines=[ENGINES],  # type: ignore[arg-type]
        )  # fmt: skip

    def deliver(self, size: int = 100, **extra: object) -> str:
        """Do the next shard as the worker in slot 0 would; return the job's id."""
        self.announce(WorkerState.BUSY)
        claim = must_claim(self.store)
        output = self.folder.result(claim.job_id, claim.attempt)
        (output / "images").mkdir(parents=True)
        (output / "document.md").write_bytes(b"x" * size)
        (output / "images" / "a.png").write_bytes(b"y")
        told = report(3, **{"files": ["document.md", "images/a.png"], **extra})
        assert self.store.complete(claim, output=self.folder.relative(output), report=told)
        self.now += 1
        return claim.job_id

    def announce(self, state: WorkerState, identity: ProcessIdentity = ME, slot: int = 0) -> None:
        self.store.announce(WorkerReport(slot=slot, identity=identity, device="cpu", state=state, engines=ENGINES))

    def states(self, jobs: list[Job]) -> list[JobState]:
        return [job_of(self.store, job).state for job in jobs]


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    folder = DataFolder(tmp_path / "data")
    folder.create()
    room: Room
    with open_store(folder.database, clock=lambda: room.now) as store:
        room = Room(store, folder)
        yield room


def test_followers_offer_no_work_and_get_the_result_in_their_own_folders(room: Room) -> None:
    jobs = [room.accept() for _ in range(4)]
    assert room.deliver() == jobs[0].id
    assert room.store.claim(ME, 0) is None
    assert room.states(jobs) == [JobState.COMPLETED, *[JobState.QUEUED] * 3]
    assert hand_on(room.store, room.folder) == 3
    assert hand_on(room.store, room.folder) == 0
    for job in jobs[1:]:
        ended = job_of(room.store, job)
        assert (ended.state, ended.cached, ended.pages_done) == (JobState.COMPLETED, True, 3)
        assert ended.output is not None
        assert room.folder.absolute(ended.output).is_relative_to(room.folder.job(job.id))
        assert (room.folder.absolute(ended.output) / "images" / "a.png").read_bytes() == b"y"
    assert (room.store.totals().completed, room.store.totals().cached, room.store.totals().pages) == (4, 3, 3)


def end_failed(room: Room) -> None:
    room.store.fail(must_claim(room.store), LOST)


def end_lost(room: Room) -> None:
    # The document is looked through for the page that kills workers, and every one does.
    leader = must_claim(room.store).job_id
    for _ in range(2 * a_document().pages):
        (lease,) = room.store.leases()
        room.store.give_back(lease, cause=LOST, max_attempts=1)
        job = room.store.job(leader)
        assert job is not None
        if job.state is JobState.FAILED:
            return
        assert must_claim(room.store).job_id == leader
    pytest.fail("the leader never failed")


def end_cancelled(room: Room) -> None:
    claim = must_claim(room.store)
    assert not room.store.cancel(claim.job_id, LOST, even_kept=False), "others wait for it"
    assert room.store.cancel(claim.job_id, LOST)
    assert not room.store.complete(claim, output="x", report=report(3))


def end_removed(room: Room) -> None:
    claim = must_claim(room.store)
    room.store.remove(claim.job_id)


def end_vanished(room: Room) -> None:
    job = room.deliver(files=["document.md", "missing.png"])
    hand_on(room.store, room.folder)
    assert room.store.reusable("key", [ENGINES]) is None, job


@pytest.mark.parametrize("end", [end_failed, end_lost, end_cancelled, end_removed, end_vanished])
def test_whatever_ends_a_leader_its_oldest_follower_takes_its_place_alone(
    room: Room, end: Callable[[Room], None]
) -> None:
    _, heir, *others = jobs = [room.accept() for _ in range(5)]
    end(room)
    assert room.states(jobs[1:]) == [JobState.QUEUED] * 4
    assert room.deliver() == heir.id
    assert room.store.claim(ME, 0) is None, "two jobs were promoted"
    assert hand_on(room.store, room.folder) == 3
    assert room.states([heir, *others]) == [JobState.COMPLETED] * 4


def test_cancelling_a_follower_ends_only_that_one(room: Room) -> None:
    leader, follower, other = jobs = [room.accept() for _ in range(3)]
    assert room.store.cancel(follower.id, LOST)
    assert room.deliver() == leader.id
    assert hand_on(room.store, room.folder) == 1
    assert room.states(jobs) == [JobState.COMPLETED, JobState.CANCELLED, JobState.COMPLETED]
    assert job_of(room.store, other).cached


BATCH: dict[str, object] = {"lane": Lane.BATCH}
BUSY_CALLER: dict[str, object] = {"caller": "busy"}


@pytest.mark.parametrize("patient", [BATCH, BUSY_CALLER])
def test_whose_turn_comes_first_takes_the_lead_of_a_job_that_waits(room: Room, patient: dict[str, object]) -> None:
    others = [room.accept(None, **patient) for _ in range(5)]
    leader, follower = room.accept(**patient), room.accept(**patient)
    assert room.deliver() == others[0].id
    newcomer, later = room.accept(caller="new"), room.accept(caller="new")
    assert room.store.place(newcomer.id).position is not None
    assert [room.store.place(job.id).position for job in (leader, follower, later)] == [None] * 3
    while room.deliver() != newcomer.id:
        assert job_of(room.store, others[2]).state is JobState.QUEUED, "it came no sooner than the job it shares with"
    assert hand_on(room.store, room.folder) == 3
    assert room.states([leader, follower, newcomer, later]) == [JobState.COMPLETED] * 4
    assert not job_of(room.store, newcomer).cached
    waiting = room.states(others).count(JobState.QUEUED)
    assert (room.store.backlog().jobs, room.store.totals().queued_jobs) == (waiting, waiting)


def test_a_leader_that_is_read_and_one_whose_turn_comes_first_keep_the_lead(room: Room) -> None:
    running = room.accept(lane=Lane.BATCH)
    claim = must_claim(room.store)
    sooner, waiting = room.accept("other"), room.accept("other", lane=Lane.BATCH)
    assert room.store.place(room.accept().id).position is None
    assert claim.job_id == running.id
    assert room.store.place(waiting.id).position is None
    assert must_claim(room.store).job_id == sooner.id
    assert room.store.claim(ME, 0) is None


@pytest.mark.parametrize("end", [end_failed, end_lost, end_cancelled, end_removed, end_vanished])
def test_whatever_ends_a_job_that_took_the_lead_the_one_before_has_it_again(
    room: Room, end: Callable[[Room], None]
) -> None:
    before, follower = room.accept(lane=Lane.BATCH), room.accept(lane=Lane.BATCH)
    room.accept()
    end(room)
    assert room.deliver() == before.id
    assert room.store.claim(ME, 0) is None, "two jobs were promoted"
    assert hand_on(room.store, room.folder) == 1
    assert room.states([before, follower]) == [JobState.COMPLETED] * 2


def test_a_job_whose_caller_left_is_wanted_while_somebody_waits_for_its_result(room: Room) -> None:
    leader, follower, kept = room.accept(kept=False), room.accept(kept=False), room.accept("kept")
    assert not room.store.cancel(kept.id, LOST, even_kept=False)
    assert room.store.cancel(room.accept("kept", kept=False).id, LOST, even_kept=False)
    assert not room.store.cancel(leader.id, LOST, even_kept=False)
    assert room.store.unwanted() == []
    assert room.store.cancel(follower.id, LOST, even_kept=False)
    assert room.store.unwanted() == [leader.id]
    assert room.store.cancel(leader.id, LOST, even_kept=False)
    assert room.store.unwanted() == []


def test_a_caller_who_has_not_left_keeps_a_job_that_nobody_else_waits_for(room: Room) -> None:
    room.accept(kept=False)
    assert room.store.cancel(room.accept(kept=False).id, LOST, even_kept=False)
    assert room.store.unwanted() == []


def test_jobs_that_follow_one_another_and_were_all_left_are_all_unwanted(room: Room) -> None:
    before, follower = room.accept(lane=Lane.BATCH, kept=False), room.accept(lane=Lane.BATCH, kept=False)
    assert not room.store.cancel(before.id, LOST, even_kept=False)
    newcomer = room.accept(kept=False)
    assert not room.store.cancel(newcomer.id, LOST, even_kept=False)
    assert room.store.cancel(follower.id, LOST, even_kept=False)
    assert room.store.unwanted() == [before.id, newcomer.id]
    for job in (newcomer, before):
        assert room.store.cancel(job.id, LOST, even_kept=False)
    assert room.store.claim(ME, 0) is None


def test_a_job_that_was_left_and_is_told_of_goes_on(room: Room) -> None:
    leader, follower = room.accept(kept=False), room.accept()
    assert not room.store.cancel(leader.id, LOST, even_kept=False)
    room.store.keep(leader.id)
    assert room.store.cancel(follower.id, LOST)
    assert room.store.unwanted() == []


def test_a_job_that_ends_with_a_stored_result_is_no_backlog_and_its_key_stands_for_it(room: Room) -> None:
    first = room.accept()
    room.deliver()
    source = job_of(room.store, first)
    terms = Terms(lane=Lane.BATCH, key="k", fingerprint="a", key_seconds=60)
    assert source.output is not None
    served = room.store.serve(new_job_id(), "a.pdf", ParseOptions(), source, source.output, terms)
    again = room.store.serve(new_job_id(), "a.pdf", ParseOptions(), source, source.output, terms)
    assert served is not None
    assert again == job_of(room.store, served)
    assert (again.state, again.lane) == (JobState.COMPLETED, Lane.BATCH)
    assert room.store.progress([served.id])[served.id].pages == 3
    with pytest.raises(KeyReused):
        room.store.serve(new_job_id(), "a.pdf", ParseOptions(), source, source.output, replace(terms, fingerprint="b"))
    assert (room.store.backlog().jobs, room.store.backlog().pages) == (0, 0)
    assert room.store.totals().cached == 1


def test_followers_leave_the_backlog_with_their_leader(room: Room) -> None:
    for _ in range(3):
        room.accept()
    room.deliver()
    hand_on(room.store, room.folder)
    assert (room.store.backlog().jobs, room.store.backlog().pages) == (0, 0)


def test_a_follower_that_was_removed_meanwhile_leaves_no_files(room: Room) -> None:
    leader, follower = room.accept(), room.accept()
    room.deliver()
    due = room.store.followers_due(10)
    room.store.remove(follower.id)
    room.store.followers_due = lambda limit: due  # type: ignore[method-assign]
    assert hand_on(room.store, room.folder) == 0
    assert [path.name for path in room.folder.jobs.iterdir()] == [leader.id]


def test_a_result_serves_only_those_who_accept_its_engines_and_if_it_is_whole(room: Room) -> None:
    room.accept()
    done = room.deliver()
    assert room.store.reusable("key", ["another", ENGINES]) == room.store.job(done)
    assert room.store.reusable("key", ["another"]) is None
    assert room.store.reusable("other key", [ENGINES]) is None
    room.accept("partial")
    room.deliver(failed_pages=[{"page": 1, "cause": "x"}])
    assert room.store.reusable("partial", [ENGINES]) is None
    room.accept("partial")
    assert must_claim(room.store).document.pages == 3


def test_the_result_of_a_document_that_was_cut_is_as_good_as_who_cut_it_not_as_who_ended_it(room: Room) -> None:
    room.accept()
    room.announce(WorkerState.BUSY)
    plans = [ShardPlan(stage=Stage.PAGES, first_page=first, last_page=first) for first in range(3)]
    plans.append(ShardPlan(stage=Stage.DOCUMENT, first_page=0, last_page=2))
    assert room.store.split(must_claim(room.store), plans, {}, reader="mine/flash")
    room.store.retire(0, ME, "it is replaced")
    told = WorkerReport(slot=0, identity=OTHER, device="cpu", state=WorkerState.READY, engines="newer")
    assert room.store.announce(told)
    same = room.accept()
    alone = room.store.accept(new_job_id(), a_document(), ParseOptions(), [WHOLE], reuse_key="key", engines=["newer"])
    for _ in range(4):
        assert room.store.complete(must_claim(room.store, OTHER), output="r", report=report(3))
    assert room.store.reusable("key", ["newer"]) is None
    assert room.store.reusable("key", [ENGINES]) is not None
    # Of those who asked meanwhile, one may have it.
    assert [follower.id for follower in room.store.followers_due(9)] == [same.id]
    assert must_claim(room.store, OTHER).job_id == alone.id


def test_jobs_without_a_key_stand_alone(room: Room) -> None:
    jobs = [room.accept(None), room.accept(None)]
    assert [room.deliver(), room.deliver()] == [job.id for job in jobs]
    assert hand_on(room.store, room.folder) == 0


def test_the_oldest_results_go_until_the_rest_fits_and_shared_files_count_once(room: Room) -> None:
    first, follower, second, third = room.accept("a"), room.accept("a"), room.accept("b"), room.accept("c")
    for _ in range(3):
        room.deliver(size=1000)
    room.now += 1
    hand_on(room.store, room.folder)
    running = room.accept("d")
    must_claim(room.store)
    assert keep_within(room.folder, room.store, 0) == 0
    assert room.store.stored_bytes() == 3 * 1001
    # Of two that share, the first frees nothing: the next oldest goes too.
    assert keep_within(room.folder, room.store, 2500) == 2
    assert room.store.known([job.id for job in (first, follower, second, third, running)]) == {
        follower.id, third.id, running.id,
    }  # fmt: skip
    assert {path.name for path in room.folder.jobs.iterdir()} == {follower.id, third.id}
    assert keep_within(room.folder, room.store, 1) == 2
    assert room.store.stored_bytes() == 0
    assert room.store.known([running.id]) == {running.id}


def test_the_turn_to_be_replaced_comes_back_with_the_replacement_or_after_a_while(room: Room) -> None:
    third = ProcessIdentity(pid=300, started=3)
    room.announce(WorkerState.BUSY, ME, 0)
    room.announce(WorkerState.READY, OTHER, 1)
    assert room.store.may_recycle(ME, 0)
    assert not room.store.may_recycle(OTHER, 1)
    room.store.retire(0, ME, "it left")
    room.announce(WorkerState.LOADING, third, 0)
    assert not room.store.may_recycle(OTHER, 1)
    room.announce(WorkerState.READY, third, 0)
    assert room.store.may_recycle(OTHER, 1)
    assert not room.store.may_recycle(third, 0)
    room.now += 601
    assert room.store.may_recycle(third, 0)
    assert room.store.totals().recycled == 3
