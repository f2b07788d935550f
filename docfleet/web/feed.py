"""Telling listeners how jobs get on: one task for all of them, and none while nobody listens.

A listener is told where its job stands, not what happened in between, so a slow one costs no memory and a late one
misses nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from loguru import logger

from docfleet.store.admission import JobProgress
from docfleet.store.interface import Jobs

#: Seconds between two change checks while somebody listens.
PERIOD = 0.1
#: Seconds after which progress is read even if the change check said nothing.
RECHECK = 2.0


class _Listener:
    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.latest: JobProgress | None = None
        self.gone = False


class ProgressFeed:
    """Lets any number of coroutines of one event loop follow jobs. Must be the only caller of `store.changed()`."""

    def __init__(self, store: Jobs, *, period: float = PERIOD) -> None:
        self._store = store
        self._period = period
        self._listeners: dict[str, set[_Listener]] = {}
        self._fresh = False
        self._released = False
        self._task: asyncio.Task[None] | None = None
        self._limiter = CapacityLimiter(1)

    @property
    def listening(self) -> int:
        """Number of coroutines that follow a job."""
        return sum(len(listeners) for listeners in self._listeners.values())

    def followed(self, job_id: str) -> bool:
        """Return whether anybody follows the job."""
        return job_id in self._listeners

    async def follow(self, job_id: str, *, pause: float) -> AsyncIterator[JobProgress | None]:
        """Yield the job's progress now and whenever it changes; None after each `pause` seconds without a change.

        Ends after the final state, when the job was removed, or when the server ends.
        """
        listener = _Listener()
        self._listeners.setdefault(job_id, set()).add(listener)
        self._fresh = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="progress-feed")
        try:
            while not self._released:
                try:
                    async with asyncio.timeout(pause):
                        await listener.news.wait()
                except TimeoutError:
                    yield None
                    continue
                listener.news.clear()
                if listener.gone or listener.latest is None:
                    return
                latest = listener.latest
                yield latest
                if latest.state.final:
                    return
        finally:
            self._listeners[job_id].discard(listener)
            if not self._listeners[job_id]:
                del self._listeners[job_id]

    def release(self) -> None:
        """Let every listener end now: they come back to the next server with the last id they have seen."""
        self._released = True
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.gone = True
                listener.news.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = 0.0
        while self._listeners:
            try:
                fresh, self._fresh = self._fresh, False
                if self._store.changed() or fresh or loop.time() >= due:
                    await self._tell()
                    due = loop.time() + RECHECK
            except Exception as exc:
                # Listeners stay: the store may be held for a moment. Whoever asks GET /jobs/{id} hears the cause.
                logger.warning("following jobs: {}", exc)
                self._fresh = True
                await asyncio.sleep(RECHECK)
            await asyncio.sleep(self._period)

    async def _tell(self) -> None:
        asked = {job_id: tuple(listeners) for job_id, listeners in self._listeners.items()}
        found = await run_sync(partial(self._store.progress, tuple(asked)), limiter=self._limiter)
        for job_id, listeners in asked.items():
            progress = found.get(job_id)
            for listener in listeners:
                if progress is None or progress != listener.latest:
                    listener.latest, listener.gone = progress, progress is None
                    listener.news.set()
