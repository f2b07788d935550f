"""Servers and time that exist only on paper, to try the choice of a server on: no clock, no network."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from docfleet.vlm.endpoint import Endpoint
from docfleet.vlm.pool import Pool
from docfleet.vlm.records import Member, PoolSettings


@dataclass
class PaperServer:
    """Reads `slots` pages at once, `seconds` each; what comes more waits inside the server."""

    seconds: float
    slots: int = 1
    #: Share of the time that every second request takes: a line of a page beside its layout.
    light: float = 1.0
    #: Seconds of the run between which every request is refused at once.
    dead: tuple[float, float] = (0.0, 0.0)
    #: Requests at once over which it answers 429; 0: none.
    refuses_over: int = 0
    free_at: list[float] = field(default_factory=list)
    held: int = 0
    most_held: int = 0

    def answers_at(self, now: float, light: bool) -> float:
        self.free_at = self.free_at or [0.0] * self.slots
        begins = max(now, heapq.heappop(self.free_at))
        takes = self.seconds * (self.light if light else 1.0)
        heapq.heappush(self.free_at, begins + takes)
        return begins + takes

    def is_dead(self, now: float) -> bool:
        return self.dead[0] <= now < self.dead[1]


@dataclass
class Outcome:
    """What came of a run."""

    seconds: float
    #: Pages by server.
    pages: Counter[str]
    failures: int


def url_of(name: str) -> str:
    return f"http://{name}.example"


class Run:
    """Sends pages to the servers, so many at once, as the router does."""

    def __init__(self, servers: dict[str, PaperServer], settings: PoolSettings | None = None) -> None:
        self.servers = {url_of(name): server for name, server in servers.items()}
        self.pool = Pool(settings or PoolSettings(), ())
        self.now = 0.0
        self.pool.declare([Member(url=url) for url in self.servers], 0.0)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._sent = itertools.count()
        self.waiting: deque[frozenset[str]] = deque()
        self.pages: Counter[str] = Counter()
        self.failures = 0

    def at(self, time: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), event))

    def go(self, pages: int, at_once: int = 10_000) -> Outcome:
        left = pages
        begun = self.now
        self.waiting.extend([frozenset()] * min(at_once, left))
        left -= len(self.waiting)
        goal = sum(self.pages.values()) + pages
        self._check_health()
        while sum(self.pages.values()) < goal:
            self._dispatch()
            self.now, _, event = heapq.heappop(self._events)
            before = sum(self.pages.values())
            event()
            done = sum(self.pages.values()) - before
            self.waiting.extend([frozenset()] * min(done, left))
            left -= min(done, left)
        return Outcome(self.now - begun, self.pages, self.failures)

    def _check_health(self) -> None:
        for endpoint in self.pool.endpoints():
            if self.servers[endpoint.url].is_dead(self.now):
                endpoint.breaker.unhealthy(self.now, "dead on paper")
            else:
                endpoint.breaker.healthy(self.now)
        self.at(self.now + 1.0, self._check_health)

    def _dispatch(self) -> None:
        for avoid in list(self.waiting):
            endpoint = self.pool.pick(None, len(self.waiting), avoid, self.now)
            if endpoint is not None:
                self.waiting.remove(avoid)
                self._send(endpoint, avoid)
            elif not avoid:
                return

    def _send(self, endpoint: Endpoint, avoid: frozenset[str]) -> None:
        server, sent = self.servers[endpoint.url], self.now
        load = endpoint.started(sent)
        server.held += 1
        server.most_held = max(server.most_held, server.held)
        dead, refused = server.is_dead(sent), bool(server.refuses_over) and server.held > server.refuses_over
        light = next(self._sent) % 2 == 1
        ends = sent + 0.01 if dead or refused else server.answers_at(sent, light)

        def end() -> None:
            server.held -= 1
            if refused:
                endpoint.congested(self.now, None)
                self.waiting.appendleft(avoid)
            elif dead or (sent < server.dead[0] < self.now):
                self.failures += 1
                endpoint.failed(self.now, "dead on paper", final=False)
                self.waiting.appendleft(avoid | {endpoint.url})
            else:
                self.pages[endpoint.url] += 1
                endpoint.succeeded(self.now - sent, load, self.now, "line" if light else "layout")
            endpoint.ended(self.now)

        self.at(ends, end)
