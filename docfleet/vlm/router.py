"""The router: requests wait here for their turn, go to a server, and to another if that one fails.

A request is taken in full only when it has a server, so that a thousand that wait cost a socket each.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from loguru import logger

from docfleet.vlm.endpoint import Endpoint
from docfleet.vlm.health import Health
from docfleet.vlm.pool import Pool, Selection
from docfleet.vlm.records import EndpointRow, Member, PoolSettings
from docfleet.vlm.upstream import Congestion, Reply, Trouble, Upstream, kind_of

#: Servers at which one request may go wrong after it was sent before it is taken for the cause.
_TRIES = 3
#: Seconds between two looks at those who wait: rests end, and patience does.
_TICK = 0.1

ReadBody = Callable[[], Awaitable[bytes]]


class Unanswered(Exception):
    """No server that may read the request has been alive for longer than patience lasts."""


class Refused(Exception):
    """The request went wrong wherever it was sent."""


@dataclass(frozen=True)
class _Turn:
    endpoint: Endpoint
    #: Requests at the server, this one included.
    load: int


@dataclass(eq=False)
class _Waiter:
    turn: asyncio.Future[_Turn]
    avoid: frozenset[str]
    stranded_at: float | None = None


@dataclass(eq=False)
class _Queue:
    waiters: deque[_Waiter] = field(default_factory=deque)


class Router:
    """For one event loop."""

    def __init__(
        self, settings: PoolSettings, allowed: Iterable[str], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Make a router without servers; `allowed` are addresses that requests may name."""
        self._settings = settings
        self._clock = clock
        self._pool = Pool(settings, allowed)
        self._upstream = Upstream(settings)
        self._health = Health(settings, self._upstream, clock=clock, changed=self._after_check)
        self._queues: dict[Selection, _Queue] = {}
        self._under_way: dict[str, set[asyncio.Task[Reply]]] = {}
        self._ticking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look after the servers."""
        self._ticking = asyncio.create_task(self._tick())

    async def close(self) -> None:
        """Stop; requests under way are cut off."""
        if self._ticking is not None:
            self._ticking.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticking
        await self._health.close()
        await self._upstream.close()

    def declare(self, members: Iterable[Member]) -> None:
        """Make these the members of the pool."""
        self._pool.declare(members, self._clock())
        self._dispatch()

    def rows(self) -> list[EndpointRow]:
        """Return how each server stands."""
        return self._pool.rows(self._clock())

    @property
    def waiting(self) -> int:
        """Requests that have no server yet."""
        return sum(len(queue.waiters) for queue in self._queues.values())

    async def send(self, selection: Selection, read: ReadBody) -> Reply:
        """Have a request answered, by whichever server.

        Args:
            selection: servers that it may go to; None: the pool's.
            read: takes the body in; called once, when there is a server for it.

        Raises:
            NotAllowed: a server was named that may not be used.
            Unanswered: no server is alive, and patience is over.
            Refused: servers fail at this request.
        """
        self._pool.admit(selection, self._clock())
        body: bytes | None = None
        avoid: frozenset[str] = frozenset()
        tries, again = 0, False
        while True:
            turn = await self._turn(selection, avoid, first=again)
            again = True
            try:
                if body is None:
                    body = await read()
                return await self._attempt(turn, body)
            except Congestion as told:
                turn.endpoint.congested(self._clock(), told.retry_after)
            except Trouble as trouble:
                turn.endpoint.failed(self._clock(), trouble.reason, final=trouble.final)
                logger.info("VLM server {}: {}; the request goes elsewhere", turn.endpoint.url, trouble.reason)
                avoid |= {turn.endpoint.url}
                tries += trouble.reached
                if tries >= _TRIES:
                    raise Refused(f"{tries} attempts failed, the last because {trouble.reason}") from None
            finally:
                turn.endpoint.ended(self._clock())
                self._dispatch()

    async def _attempt(self, turn: _Turn, body: bytes) -> Reply:
        endpoint, started = turn.endpoint, self._clock()
        task = asyncio.create_task(self._upstream.ask(endpoint, body))
        under_way = self._under_way.setdefault(endpoint.url, set())
        under_way.add(task)
        try:
            await asyncio.wait([task])
        finally:
            under_way.discard(task)
            if not under_way:
                self._under_way.pop(endpoint.url, None)
            if not task.done():
                # The caller is gone.
                task.cancel()
        if task.cancelled():
            raise Trouble("it stopped to answer health checks", reached=False)
        reply = task.result()
        now = self._clock()
        if reply.status < 300:
            endpoint.succeeded(now - started, turn.load, now, kind_of(body))
        else:
            endpoint.breaker.succeeded()
        return reply

    async def _turn(self, selection: Selection, avoid: frozenset[str], *, first: bool) -> _Turn:
        queue = self._queues.setdefault(selection, _Queue())
        waiter = _Waiter(asyncio.get_running_loop().create_future(), avoid)
        # Who was sent away comes first: it has waited before.
        queue.waiters.appendleft(waiter) if first else queue.waiters.append(waiter)
        self._dispatch()
        try:
            return await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled() and waiter.turn.exception() is None:
                waiter.turn.result().endpoint.ended(self._clock())
                self._dispatch()
            raise
        finally:
            with suppress(ValueError):
                queue.waiters.remove(waiter)
            if not queue.waiters and self._queues.get(selection) is queue:
                del self._queues[selection]

    def _dispatch(self) -> None:
        now = self._clock()
        for selection, queue in list(self._queues.items()):
            for waiter in list(queue.waiters):
                if waiter.turn.done():
                    continue
                endpoint = self._pool.pick(selection, len(queue.waiters), waiter.avoid, now)
                if endpoint is not None:
                    waiter.turn.set_result(_Turn(endpoint, endpoint.started(now)))
                    queue.waiters.remove(waiter)
                elif not waiter.avoid:
                    break

    def _after_check(self, endpoint: Endpoint) -> None:
        if endpoint.breaker.lost:
            # Nobody waits for the time limit of a server that is known to be gone.
            for task in self._under_way.get(endpoint.url, ()):
                task.cancel()
        self._dispatch()

    async def _tick(self) -> None:
        while True:
            now = self._clock()
            for endpoint in self._pool.tidy(now):
                self._health.forget(endpoint)
            self._health.look(self._pool.endpoints())
            self._lose_patience(now)
            self._dispatch()
            await asyncio.sleep(_TICK)

    def _lose_patience(self, now: float) -> None:
        for selection, queue in self._queues.items():
            stranded = self._pool.stranded(selection)
            for waiter in queue.waiters:
                if not stranded:
                    waiter.stranded_at = None
                elif waiter.stranded_at is None:
                    waiter.stranded_at = now
                elif now - waiter.stranded_at > self._settings.patience and not waiter.turn.done():
                    waiter.turn.set_exception(Unanswered(self._pool.reasons(selection)))
