"""The router: requests wait here for their turn, go to a server, and to another if that one fails.

Which server is right depends on what a request asks for, and that stands at its end, after the picture: the first of
those that wait are taken in before they have a server. The others cost a socket each. Those for whom no server is well
are told so when patience is over, counted from when they came or the last server was lost, wherever they wait.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from bisect import insort
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass

from loguru import logger

from docfleet.vlm.budget import Budget
from docfleet.vlm.endpoint import Endpoint
from docfleet.vlm.health import Health
from docfleet.vlm.pool import Pool, Selection
from docfleet.vlm.records import EndpointRow, Member, PoolSettings
from docfleet.vlm.upstream import Congestion, Reply, Trouble, Upstream, kind_of

#: Servers at which one request may go wrong after it was sent before it is taken for the cause.
_TRIES = 3
#: Seconds between two looks at those who wait: rests end, and patience does.
_TICK = 0.1
#: Bytes of requests that are taken in before they have a server: of those for the pool, and of those for the same
#: servers that callers named. These may be gone, and must not hold up the others.
_AHEAD, _AHEAD_NAMED = 64 * 1024 * 1024, 16 * 1024 * 1024
#: Bytes that all requests may take up, whatever the number of workers and servers.
_ALL_REQUESTS = 256 * 1024 * 1024

ReadBody = Callable[[], Awaitable[bytes]]


class Unanswered(Exception):
    """No server that may read the request has been alive for longer than patience lasts."""


class Refused(Exception):
    """The request went wrong wherever it was sent."""


@dataclass(frozen=True)
class _Errand:
    """One request, whichever servers it goes to."""

    selection: Selection
    kind: str
    #: Who came first has the lower one.
    number: int
    came_at: float

    @property
    def like(self) -> tuple[Selection, str]:
        """Requests of which this is the same wait in one queue: they may go to the same servers, and weigh the same."""
        return self.selection, self.kind


@dataclass(frozen=True)
class _Turn:
    endpoint: Endpoint
    #: Requests of the kind at the server, this one included.
    load: int


@dataclass(eq=False)
class _Waiter:
    errand: _Errand
    avoid: frozenset[str]
    turn: asyncio.Future[_Turn]


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
        self._queues: dict[tuple[Selection, str], list[_Waiter]] = {}
        self._numbers = itertools.count()
        #: Each selection has its own: nobody is held up by those who wait for one slow server.
        self._ahead: dict[Selection, Budget] = {}
        self._bodies = Budget(_ALL_REQUESTS)
        #: Since when no server of a selection is well that requests wait for.
        self._stranded_at: dict[Selection, float] = {}
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
        taken_in = sum(map(len, self._queues.values()))
        return taken_in + self._bodies.waiting + sum(ahead.waiting for ahead in self._ahead.values())

    async def send(self, selection: Selection, size: int, read: ReadBody) -> Reply:
        """Have a request answered, by whichever server.

        Args:
            selection: servers that it may go to; None: the pool's.
            size: bytes of its body.
            read: takes the body in; called once, and not for a request that may not go there.

        Raises:
            NotAllowed: a server was named that may not be used.
            Unanswered: no server is alive, and patience is over.
            Refused: servers fail at this request.
        """
        came_at, number = self._clock(), next(self._numbers)
        self._pool.admit(selection, came_at)
        ahead = self._ahead.setdefault(selection, Budget(_AHEAD if selection is None else _AHEAD_NAMED))
        async with AsyncExitStack() as held:
            async with ahead.hold(size):
                # Twice: as it came, for another try, and as it goes out.
                await held.enter_async_context(self._bodies.hold(2 * size))
                body = await read()
                errand = _Errand(selection, kind_of(body), number, came_at)
                turn = await self._turn(errand, frozenset())
            return await self._tried(errand, turn, body)

    async def _tried(self, errand: _Errand, turn: _Turn, body: bytes) -> Reply:
        avoid: frozenset[str] = frozenset()
        tries = 0
        while True:
            try:
                return await self._attempt(turn, errand.kind, body)
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
                turn.endpoint.ended(errand.kind, self._clock())
                self._dispatch()
            turn = await self._turn(errand, avoid)

    async def _attempt(self, turn: _Turn, kind: str, body: bytes) -> Reply:
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
            # Where the caller is gone; what it may have ended with at the same moment, nobody asks for.
            task.cancel()
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        if task.cancelled():
            raise Trouble("it stopped to answer health checks", reached=False)
        reply = task.result()
        now = self._clock()
        if reply.status < 300:
            endpoint.succeeded(kind, now - started, turn.load, now)
        else:
            endpoint.breaker.succeeded()
        return reply

    async def _turn(self, errand: _Errand, avoid: frozenset[str]) -> _Turn:
        queue = self._queues.setdefault(errand.like, [])
        waiter = _Waiter(errand, avoid, asyncio.get_running_loop().create_future())
        # Who was sent away comes back to its place: it has waited before.
        insort(queue, waiter, key=lambda one: one.errand.number)
        self._dispatch()
        try:
            return await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled() and waiter.turn.exception() is None:
                waiter.turn.result().endpoint.ended(errand.kind, self._clock())
                self._dispatch()
            raise
        finally:
            with suppress(ValueError):
                queue.remove(waiter)
            if not queue and self._queues.get(errand.like) is queue:
                del self._queues[errand.like]

    def _dispatch(self) -> None:
        now = self._clock()
        # Kinds take turns by who came first: where one server is all there is, none of them waits for all the others.
        blocked: set[tuple[Selection, str]] = set()
        while heads := {like: queue[0] for like, queue in self._queues.items() if queue and like not in blocked}:
            like = min(heads, key=lambda one: heads[one].errand.number)
            if not self._give_a_turn(self._queues[like], now):
                blocked.add(like)

    def _give_a_turn(self, queue: list[_Waiter], now: float) -> bool:
        for waiter in queue:
            if waiter.turn.done():
                continue
            errand = waiter.errand
            # Those that are not taken in yet may be of any kind.
            ahead = self._ahead.get(errand.selection)
            behind = len(queue) + (ahead.waiting if ahead else 0)
            endpoint = self._pool.pick(errand.selection, errand.kind, behind, waiter.avoid, now)
            if endpoint is not None:
                waiter.turn.set_result(_Turn(endpoint, endpoint.started(errand.kind, now)))
                queue.remove(waiter)
                return True
            if not waiter.avoid:
                return False
        return False

    def _after_check(self, endpoint: Endpoint, well: bool) -> None:
        if not well and endpoint.breaker.lost:
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
        awaited = {selection for selection, _ in self._queues}
        for selection, ahead in list(self._ahead.items()):
            if not ahead.idle:
                awaited.add(selection)
            elif selection is not None:
                del self._ahead[selection]
        stranded = {selection for selection in awaited if self._pool.stranded(selection)}
        self._stranded_at = {selection: self._stranded_at.get(selection, now) for selection in stranded}
        for (selection, _), queue in self._queues.items():
            since = self._stranded_at.get(selection)
            for waiter in queue if since is not None else ():
                waited = now - max(since or 0.0, waiter.errand.came_at)
                if waited > self._settings.patience and not waiter.turn.done():
                    waiter.turn.set_exception(Unanswered(self._pool.reasons(selection)))
