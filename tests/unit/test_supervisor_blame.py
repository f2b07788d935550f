"""Whose doing the loss of a worker is."""

from __future__ import annotations

from docfleet.records import ProcessIdentity, Shard, ShardState, Stage
from docfleet.sharding.verdicts import MOST_EXCUSED, Fault
from docfleet.supervisor.blame import Blame

BEGUN = 1000.0


def held(job: str, number: int, *, at: float = BEGUN + 1, attempt: int = 1) -> Shard:
    return Shard(
        id=number,
        job_id=job,
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
