"""Waiting for jobs to end: one task for all waiters, and none while nobody waits.

The work is done by other processes, so the news comes through the store. Its change check costs microseconds and takes
no lock; only when it says yes are the states of all waited jobs read, in one call.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from functools import partial

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from loguru import logger

from docfleet.errors import DocfleetError, InternalError, NotFound, from_record
from docfleet.records import JobState
from docfleet.store.interface import Jobs

#: Seconds between two change checks while somebody has just begun to wait. On average half of it is added as delay.
PERIOD = 0.01

#: And at most, when all have waited for long: a hundred checks a second would take a core's fortieth from the workers.
LONGEST_PERIOD = 0.05

#: The part of the time waited so far that a check may come late.
_PATIENCE = 0.01

#: Seconds after which states are read even if the change check said nothing: a missed change must not hang a caller.
RECHECK = 1.0


class JobWatch:
    """Lets any number of coroutines of one event loop wait for jobs.

    The watch must be the only caller of `store.changed()` on the store it is given.
    """

    def __init__(self, store: Jobs, *, period: float = PERIOD, recheck: float = RECHECK) -> None:
        self._store = store
        self._period = period
        self._recheck = recheck
        self._waiters: dict[str, set[asyncio.Future[JobState | None]]] = {}
        #: Waited jobs that the store was not asked about yet.
        self._fresh: set[str] = set()
        #: Newest state seen of each waited job.
        self._seen: dict[str, JobState] = {}
        self._task: asyncio.Task[None] | None = None
        self._released = False
        self._next_recheck = -math.inf
        #: When the newest waiter came, by the loop's clock.
        self._newest = -math.inf
        # A thread of its own: uploads that fill the shared ones must not keep finished work from being told.
        self._limiter = CapacityLimiter(1)

    @property
    def waiting(self) -> int:
        """Number of coroutines that wait."""
        return sum(len(futures) for futures in self._waiters.values())

    def waited(self, job_id: str) -> bool:
        """Return whether anybody waits for the job."""
        return job_id in self._waiters

    async def wait(self, job_id: str, seconds: float) -> JobState:
        """Return the job's state as soon as it is final, or the state it has after `seconds`.

        Raises:
            NotFound: there is no such job, or it was removed meanwhile.
            DocfleetError: the store cannot be read, and says why; the job itself goes on.
        """
        future: asyncio.Future[JobState | None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(job_id, set()).add(future)
        self._fresh.add(job_id)
        self._newest = asyncio.get_running_loop().time()
        self._ensure_running()
        try:
            await asyncio.wait({future}, timeout=0 if self._released else seconds)
            state = future.result() if future.done() else self._seen.get(job_id)
            return state or await self._state_now(job_id)
        finally:
            self._leave(job_id, future)

    def release(self) -> None:
        """Let every waiter return now with the state seen last, and later ones without waiting.

        For the end of the server: requests answer with their job's address instead of holding the server up.
        """
        self._released = True
        for job_id, futures in self._waiters.items():
            _resolve(futures, self._seen.get(job_id))

    def _ensure_running(self) -> None:
        if self._task is None or self._task.done():
            self._next_recheck = -math.inf
            self._task = asyncio.create_task(self._run(), name="job-watch")

    def _leave(self, job_id: str, future: asyncio.Future[JobState | None]) -> None:
        if future.done() and not future.cancelled():
            # A waiter that was cancelled after its future had failed never asks for the exception.
            future.exception()
        futures = self._waiters.get(job_id)
        if futures is None:
            return
        futures.discard(future)
        if not futures:
            del self._waiters[job_id]
            self._fresh.discard(job_id)
            self._seen.pop(job_id, None)

    async def _run(self) -> None:
        try:
            # Nothing awaits between the last look at `_waiters` and the end of the task: no waiter is left behind.
            while self._waiters:
                try:
                    await self._step()
                except DocfleetError as exc:
                    if not exc.retryable:
                        raise
                    # Held for a moment: every waiter has a time limit, and then hears of it.
                    logger.warning("waiting for jobs: {}", exc.message)
                    self._next_recheck = -math.inf
                    await asyncio.sleep(self._recheck)
                await asyncio.sleep(self._pause())
        except Exception as exc:
            logger.opt(exception=exc).error("waiting for jobs failed: the store cannot be read")
            self._fail(exc)

    def _pause(self) -> float:
        waited = asyncio.get_running_loop().time() - self._newest
        return max(self._period, min(LONGEST_PERIOD, waited * _PATIENCE))

    async def _step(self) -> None:
        loop = asyncio.get_running_loop()
        fresh, self._fresh = self._fresh, set()
        if self._store.changed() or loop.time() >= self._next_recheck:
            await self._look(tuple(self._waiters))
            self._next_recheck = loop.time() + self._recheck
        elif fresh:
            await self._look(tuple(fresh))

    async def _look(self, job_ids: tuple[str, ...]) -> None:
        states = await self._states(job_ids)
        for job_id in job_ids:
            futures = self._waiters.get(job_id)
            if futures is None:
                continue
            state = states.get(job_id)
            if state is None:
                _reject(futures, [_missing(job_id) for _ in futures])
                continue
            self._seen[job_id] = state
            if state.final:
                _resolve(futures, state)

    def _fail(self, cause: Exception) -> None:
        for job_id, futures in self._waiters.items():
            # One exception each: a shared one would gather the traceback of every waiter.
            _reject(futures, [_unreadable(job_id, cause) for _ in futures])

    async def _state_now(self, job_id: str) -> JobState:
        try:
            states = await self._states((job_id,))
        except Exception as exc:
            raise _unreadable(job_id, exc) from exc
        if job_id not in states:
            raise _missing(job_id)
        return states[job_id]

    async def _states(self, job_ids: tuple[str, ...]) -> dict[str, JobState]:
        return await run_sync(partial(self._store.states, job_ids), limiter=self._limiter)


def _resolve(futures: Iterable[asyncio.Future[JobState | None]], state: JobState | None) -> None:
    for future in futures:
        if not future.done():
            future.set_result(state)


def _reject(futures: Iterable[asyncio.Future[JobState | None]], errors: Iterable[DocfleetError]) -> None:
    for future, error in zip(futures, errors, strict=True):
        if not future.done():
            future.set_exception(error)


def _missing(job_id: str) -> NotFound:
    return NotFound(f"There is no job {job_id}: it was removed, or its results have passed their retention time.")


def _unreadable(job_id: str, cause: Exception) -> DocfleetError:
    if isinstance(cause, DocfleetError):
        error = from_record(cause.record())
        error.retry_after = cause.retry_after
    else:
        error = InternalError(f"The state of job {job_id} cannot be read now; the job goes on: ask GET /jobs/{job_id}.")
    error.__cause__ = cause
    return error
