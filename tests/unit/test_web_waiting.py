from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterable

import pytest

from docfleet.errors import Busy, InternalError, NotFound
from docfleet.records import JobState
from docfleet.web.waiting import JobWatch


class Board:
    """The part of a store that waiting needs, in memory: states, and whether anybody wrote since the last look."""

    def __init__(self, **states: JobState) -> None:
        self.jobs = states
        self.wrote = False
        self.broken = False
        #: How many checks from now on find the store held by somebody else.
        self.held = 0
        #: What was asked, call by call.
        self.checks = 0
        self.asked: list[set[str]] = []

    def write(self, job_id: str, state: JobState) -> None:
        self.jobs[job_id] = state
        self.wrote = True

    def changed(self) -> bool:
        self.checks += 1
        if self.broken:
            raise OSError("the disk is gone")
        if self.held:
            self.held -= 1
            raise Busy("The store is held; try again.")
        wrote, self.wrote = self.wrote, False
        return wrote

    def states(self, job_ids: Iterable[str]) -> dict[str, JobState]:
        wanted = set(job_ids)
        self.asked.append(wanted)
        return {job_id: state for job_id, state in self.jobs.items() if job_id in wanted}


def watch_of(board: Board, *, recheck: float = 1e9) -> JobWatch:
    return JobWatch(board, period=0.001, recheck=recheck)  # type: ignore[arg-type]


async def settle(watch: JobWatch, waiting: int) -> None:
    while watch.waiting != waiting:
        await asyncio.sleep(0.001)


async def asked_about(board: Board, job_id: str) -> None:
    while not any(job_id in wanted for wanted in board.asked):
        await asyncio.sleep(0.001)


async def test_a_waiter_gets_the_state_its_job_ends_with() -> None:
    board = Board(a=JobState.RUNNING)
    waiter = asyncio.create_task(watch_of(board).wait("a", 10))
    await asked_about(board, "a")
    board.write("a", JobState.PARTIAL)
    assert await waiter is JobState.PARTIAL


async def test_a_job_that_ended_before_anybody_waited_is_answered_at_once_without_a_change() -> None:
    board = Board(a=JobState.COMPLETED)
    assert await watch_of(board).wait("a", 10) is JobState.COMPLETED


async def test_a_job_that_ended_before_a_later_waiter_came_is_answered_though_nothing_changes_any_more() -> None:
    board = Board(slow=JobState.RUNNING, done=JobState.COMPLETED)
    watch = watch_of(board)
    first = asyncio.create_task(watch.wait("slow", 10))
    await asked_about(board, "slow")
    assert await watch.wait("done", 10) is JobState.COMPLETED
    assert board.asked[-1] == {"done"}, "only the new job needed asking about"
    board.write("slow", JobState.FAILED)
    assert await first is JobState.FAILED


async def test_after_the_time_limit_the_state_is_told_as_it_is() -> None:
    board = Board(a=JobState.RUNNING)
    assert await watch_of(board).wait("a", 0.05) is JobState.RUNNING


async def test_without_any_time_to_wait_the_state_is_still_the_true_one() -> None:
    assert await watch_of(Board(a=JobState.COMPLETED)).wait("a", 0) is JobState.COMPLETED
    assert await watch_of(Board(a=JobState.QUEUED)).wait("a", 0) is JobState.QUEUED


async def test_five_hundred_waiters_cost_one_question_for_each_change() -> None:
    names = [f"job{number}" for number in range(500)]
    board = Board(**dict.fromkeys(names, JobState.QUEUED))
    watch = watch_of(board)
    waiters = [asyncio.create_task(watch.wait(name, 30)) for name in names]
    await asked_about(board, names[-1])
    board.asked.clear()
    for name in names:
        board.jobs[name] = JobState.COMPLETED
    board.wrote = True
    assert await asyncio.gather(*waiters) == [JobState.COMPLETED] * 500
    assert [len(wanted) for wanted in board.asked] == [500]


async def test_while_nothing_changes_no_states_are_read() -> None:
    board = Board(a=JobState.RUNNING)
    waiter = asyncio.create_task(watch_of(board).wait("a", 10))
    await asked_about(board, "a")
    checks = board.checks
    while board.checks < checks + 20:
        await asyncio.sleep(0.001)
    assert len(board.asked) == 1
    waiter.cancel()


async def test_checks_become_rarer_the_longer_all_have_waited() -> None:
    board = Board(a=JobState.RUNNING)
    await watch_of(board).wait("a", 1)
    # A hundred in the first tenth of a second, then one each hundredth of the time waited; a steady watch makes 900.
    assert board.checks < 500


async def test_nothing_is_checked_while_nobody_waits() -> None:
    board = Board(a=JobState.COMPLETED)
    watch = watch_of(board)
    await watch.wait("a", 10)
    while any(task.get_name() == "job-watch" for task in asyncio.all_tasks()):
        await asyncio.sleep(0.001)
    checks = board.checks
    await asyncio.sleep(0.02)
    assert board.checks == checks
    assert watch.waiting == 0


async def test_a_change_that_the_check_missed_is_found_by_the_recheck() -> None:
    board = Board(a=JobState.RUNNING)
    waiter = asyncio.create_task(watch_of(board, recheck=0.02).wait("a", 10))
    await asked_about(board, "a")
    board.jobs["a"] = JobState.COMPLETED
    assert await waiter is JobState.COMPLETED


async def test_two_requests_can_wait_for_the_same_job() -> None:
    board = Board(a=JobState.RUNNING)
    watch = watch_of(board)
    both = [asyncio.create_task(watch.wait("a", 10)) for _ in range(2)]
    await settle(watch, 2)
    both[0].cancel()
    await settle(watch, 1)
    board.write("a", JobState.COMPLETED)
    assert await both[1] is JobState.COMPLETED


async def test_a_cancelled_waiter_leaves_nothing_behind() -> None:
    board = Board(a=JobState.RUNNING)
    watch = watch_of(board)
    waiter = asyncio.create_task(watch.wait("a", 10))
    await asked_about(board, "a")
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    assert watch.waiting == 0
    assert await watch.wait("a", 0.01) is JobState.RUNNING


async def test_a_job_that_nobody_knows_or_that_is_removed_meanwhile_is_not_waited_for() -> None:
    board = Board(a=JobState.RUNNING)
    watch = watch_of(board)
    with pytest.raises(NotFound):
        await watch.wait("unknown", 10)
    waiter = asyncio.create_task(watch.wait("a", 10))
    await asked_about(board, "a")
    del board.jobs["a"]
    board.wrote = True
    with pytest.raises(NotFound):
        await waiter


async def test_a_store_that_fails_reaches_every_waiter_and_the_next_one_tries_again() -> None:
    board = Board(a=JobState.RUNNING, b=JobState.RUNNING)
    watch = watch_of(board)
    waiters = [asyncio.create_task(watch.wait(name, 10)) for name in "aab"]
    await asked_about(board, "b")
    board.broken = True
    errors = await asyncio.gather(*waiters, return_exceptions=True)
    assert [type(error) for error in errors] == [InternalError] * 3
    assert [type(error.__cause__) for error in errors if isinstance(error, InternalError)] == [OSError] * 3
    assert "the disk is gone" not in str(errors[0]), "callers do not see the inside"
    board.broken = False
    board.write("a", JobState.COMPLETED)
    assert await watch.wait("a", 10) is JobState.COMPLETED


async def test_a_store_that_is_held_for_a_moment_is_asked_again() -> None:
    board = Board(a=JobState.RUNNING)
    waiter = asyncio.create_task(watch_of(board, recheck=0.002).wait("a", 10))
    await asked_about(board, "a")
    board.held = 3
    board.write("a", JobState.COMPLETED)
    assert await waiter is JobState.COMPLETED


async def test_a_waiter_cancelled_in_the_instant_of_a_failure_leaves_no_unread_exception() -> None:
    board = Board(a=JobState.RUNNING)
    watch = watch_of(board)
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    waiter = asyncio.create_task(watch.wait("a", 10))
    await asked_about(board, "a")
    watch._fail(OSError("now"))
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    del waiter
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


async def test_at_the_end_of_the_server_waiters_are_let_go_with_the_state_seen_last() -> None:
    board = Board(a=JobState.RUNNING, b=JobState.QUEUED)
    watch = watch_of(board)
    waiter = asyncio.create_task(watch.wait("a", 1000))
    await asked_about(board, "a")
    watch.release()
    assert await waiter is JobState.RUNNING
    assert await watch.wait("b", 1000) is JobState.QUEUED
