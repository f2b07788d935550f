"""Who may come in: the bound on work at hand, a bounded wait for room, and a count of those sent away.

The store decides, in the transaction that enters a job. What is here keeps callers from uploading in vain, and lets
them wait: one task looks at the store for all of them, and none while nobody waits.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from anyio.to_thread import run_sync
from loguru import logger

from docfleet.errors import Busy
from docfleet.store.admission import Limits, refusal
from docfleet.store.interface import Jobs

#: Query parameters of the doors that take documents; they are no options of a document.
OWN_PARAMETERS = ("admission_wait",)
#: Longest wait for room that a caller may ask for, in seconds.
LONGEST_WAIT = 600.0
#: Seconds between two looks at the backlog while somebody waits for room.
_PERIOD = 0.05
#: Callers that may wait for room; more would only pile up.
_MOST_WAITING = 1000
#: Seconds for which one look that found room is enough for all who come, unless work came in since. The store decides
#: in the end; the look only keeps callers from uploading in vain.
_TRUST = 0.05
#: Seconds that counts of refusals are gathered before they are written.
_GATHER = 1.0


@dataclass(eq=False)
class _Waiter:
    pages: int
    come_in: asyncio.Future[None]


class Admission:
    """The bounds, and those who wait for room. Belongs to one event loop."""

    def __init__(self, store: Jobs, limits: Limits, *, wait: float) -> None:
        """Make an admission.

        Args:
            store: where the work at hand is counted.
            limits: most work at hand.
            wait: seconds that callers of `/predict` wait for room unless they say otherwise.
        """
        self.limits = limits
        self.wait = wait
        self._store = store
        self._waiters: list[_Waiter] = []
        self._task: asyncio.Task[None] | None = None
        self._refused = 0
        self._open_until = -math.inf
        self._flush: asyncio.Task[None] | None = None

    @property
    def unwritten(self) -> int:
        """Refusals that the store was not told of yet."""
        return self._refused

    @property
    def waiting(self) -> int:
        """Number of callers that wait for room."""
        return len(self._waiters)

    def patience(self, seconds: float) -> Patience:
        """Begin the time that one request may wait for room."""
        return Patience(self, asyncio.get_running_loop().time() + seconds)

    @property
    def open(self) -> bool:
        """Whether there was room a moment ago, and no work came in since."""
        return asyncio.get_running_loop().time() < self._open_until

    def found_room(self) -> None:
        """A look at the store has found room."""
        self._open_until = asyncio.get_running_loop().time() + _TRUST

    def took_work(self) -> None:
        """A document was accepted that must be worked on: there may be no room any more."""
        self._open_until = -math.inf

    def refusal(self) -> Busy | None:
        """Return why not even one page more can be taken now; None if it can. Blocks on the store."""
        return refusal(self._store.backlog(), self.limits, 1)

    def count(self, number: int = 1) -> None:
        """Count documents that were sent away. Gathered: a flood must not make the store write for each."""
        self._refused += number
        if self._flush is None or self._flush.done():
            self._flush = asyncio.create_task(self._write_soon(), name="refusals")

    async def write(self) -> None:
        """Tell the store of the refusals counted so far."""
        number, self._refused = self._refused, 0
        if number:
            await run_sync(partial(self._store.count_refused, number))

    async def _write_soon(self) -> None:
        await asyncio.sleep(_GATHER)
        try:
            await self.write()
        except Exception as exc:
            logger.warning("refusals could not be counted: {}", exc)

    async def room(self, pages: int, deadline: float) -> bool:
        """Wait until there seems to be room, at most until `deadline` of the loop's clock. False: there was none."""
        loop = asyncio.get_running_loop()
        if loop.time() >= deadline or len(self._waiters) >= _MOST_WAITING:
            return False
        waiter = _Waiter(pages, loop.create_future())
        self._waiters.append(waiter)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look(), name="room")
        try:
            async with asyncio.timeout_at(deadline):
                await waiter.come_in
        except TimeoutError:
            return False
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        return True

    async def _look(self) -> None:
        while self._waiters:
            await asyncio.sleep(_PERIOD)
            try:
                backlog = await run_sync(self._store.backlog)
            except Exception as exc:
                # Each waiter has a deadline of its own, and then hears that there is no room.
                logger.warning("waiting for room: {}", exc)
                continue
            for waiter in tuple(self._waiters):
                if refusal(backlog, self.limits, waiter.pages) is None:
                    self._waiters.remove(waiter)
                    if not waiter.come_in.done():
                        waiter.come_in.set_result(None)
                    backlog = replace(backlog, jobs=backlog.jobs + 1, pages=backlog.pages + waiter.pages)


class Patience:
    """How long one request still waits for room."""

    def __init__(self, admission: Admission, deadline: float) -> None:
        self._admission = admission
        self._deadline = deadline

    async def wait(self, busy: Busy, pages: int) -> None:
        """Wait for room after a refusal.

        Raises:
            Busy: the refusal itself, when the time is over.
        """
        if not await self._admission.room(pages, self._deadline):
            raise busy


def wait_parameter() -> dict[str, Any]:
    """Return what the API description says of the wait for room."""
    return {
        "name": "admission_wait",
        "in": "query",
        "required": False,
        "description": "seconds to wait for room before 429, when the server has as much work as it takes on",
        "schema": {"type": "number", "minimum": 0, "maximum": LONGEST_WAIT},
    }
