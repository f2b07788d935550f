"""Whose doing the loss of a worker is."""

from __future__ import annotations

from dataclasses import replace

from docfleet.records import ProcessIdentity, Shard, ShardState, Stage
from docfleet.sharding.verdicts import MOST_EXCUSED, Fault
from docfleet.supervisor.blame import Blame

BEGUN = 1000.0


def held(job: str, number: int, *, at: float = BEGUN + 1, attempt: int = 1) -> Shard:
    return Shard(
        id=number,
        job_id=f"job of {job}",
        sha256=job,
        stage=Stage.WHOLE,
        first_page=0,
        last_page=0,
        state=ShardState.RUNNING,
        attempt=attempt,
        owner=worker(number),
        claimed_at=at,
    )


def worker(number: int) -> ProcessIdentity:
    return ProcessIdentity(pid=number, started=1)


class Clock:
    now = BEGUN + 5

    def __call__(self) -> float:
        return self.now


def test_what_was_held_when_the_server_was_killed_is_nobodys_doing_however_often() -> None:
    blame = Blame(BEGUN, clock=Clock())
    assert blame.of(held("a", 1, at=BEGUN - 1, attempt=1)) is Fault.NOBODY
    assert blame.of(held("a", 1, at=BEGUN - 1, attempt=1000)) is Fault.NOBODY


def test_a_document_under_which_workers_die_alone_is_blamed_however_many_die() -> None:
    blame = Blame(BEGUN, clock=Clock())
    for number in range(5):
        shard = held("a", number)
        blame.died(worker(number), shard)
        assert blame.of(shard) is Fault.PROCESS


def test_a_document_is_acquitted_where_workers_die_under_others_and_idle_too_for_a_minute() -> None:
    clock = Clock()
    blame = Blame(BEGUN, clock=clock)
    mine = held("a", 1)
    blame.died(worker(1), mine)
    blame.died(worker(2), held("b", 2))
    # Told again at the next look.
    blame.died(worker(2), held("b", 2))
    assert blame.of(mine) is Fault.PROCESS
    blame.died(worker(3), None)
    assert blame.of(mine) is Fault.NOBODY
    clock.now += 61
    assert blame.of(mine) is Fault.PROCESS


def test_documents_that_each_kill_their_workers_speak_for_one_another_only_so_long() -> None:
    blame = Blame(BEGUN, clock=Clock())
    for number, job in enumerate("abc"):
        blame.died(worker(number), held(job, number))
    assert blame.of(held("a", 0, attempt=MOST_EXCUSED)) is Fault.NOBODY
    assert blame.of(held("a", 0, attempt=MOST_EXCUSED + 1)) is Fault.PROCESS


def test_all_workers_may_be_killed_twice_and_no_document_is_blamed() -> None:
    clock = Clock()
    blame = Blame(BEGUN, clock=clock)
    for time in range(2):
        shards = [held(job, number + 10 * time) for number, job in enumerate("abc")]
        for shard in shards:
            # Found dead one after the other.
            clock.now += 0.5
            blame.died(worker(shard.id), shard)
        assert {blame.of(shard) for shard in shards} == {Fault.NOBODY}
        clock.now += 30


def test_documents_that_die_again_and_again_do_not_acquit_one_another_or_their_halves() -> None:
    clock = Clock()
    blame = Blame(BEGUN, clock=clock)
    faults = []
    for time in range(6):
        # Each time another shard: halves of the last.
        shards = [held(job, number + 10 * time) for number, job in enumerate("abcde")]
        for shard in shards:
            blame.died(worker(shard.id), shard)
        faults.append({blame.of(shard) for shard in shards})
        clock.now += 10
    assert faults == [{Fault.NOBODY}] * 2 + [{Fault.PROCESS}] * 4
    # They say nothing of one that comes later, either.
    late = held("late", 99)
    blame.died(worker(99), late)
    assert blame.of(late) is Fault.PROCESS


def test_a_document_that_comes_again_and_again_among_ever_new_ones_is_blamed_in_the_end() -> None:
    clock = Clock()
    blame = Blame(BEGUN, clock=clock)
    faults = []
    for time in range(MOST_EXCUSED + 1):
        mine = held("mine", 3 * time)
        blame.died(worker(3 * time), mine)
        for more in (1, 2):
            blame.died(worker(3 * time + more), held(f"other {time} {more}", 3 * time + more))
        faults.append(blame.of(mine))
        clock.now += 10
    assert faults == [Fault.NOBODY] * MOST_EXCUSED + [Fault.PROCESS]


def test_one_document_that_was_sent_several_times_is_no_witness_for_itself() -> None:
    blame = Blame(BEGUN, clock=Clock())
    shards = [replace(held("same", number), job_id=f"job {number}") for number in range(3)]
    for shard in shards:
        blame.died(worker(shard.id), shard)
    assert {blame.of(shard) for shard in shards} == {Fault.PROCESS}


def test_what_was_lost_with_the_last_server_is_no_witness_for_what_dies_on_this_one() -> None:
    blame = Blame(BEGUN, clock=Clock())
    for number, job in enumerate("abc"):
        blame.died(worker(number), held(job, number, at=BEGUN - 1))
    mine = held("mine", 9)
    blame.died(worker(9), mine)
    assert blame.of(mine) is Fault.PROCESS
