"""Servers and time that exist only on paper, to try the choice of a server on: no clock, no network."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from docfleet.vlm.endpoint import Endpoint
from docfleet.vlm.pool import Pool
from docfleet.vlm.records import PAGE_KIND, Member, PoolSettings

LAYOUT, LINE = PAGE_KIND, "Text Recognition"


@dataclass
class PaperServer:
    """Reads `slots` pages at once, `seconds` each; what comes more waits inside the server."""

    seconds: float
    slots: int = 1
    #: Requests at once that make each take twice as long; 0: they do not mind one another.
    crowd: float = 0.0
    #: Share of the time that a line of a page takes beside its layout.
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
        takes *= 1.0 + ((self.held - 1) / self.crowd if self.crowd else 0.0)
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


@dataclass(frozen=True)
class Asked:
    """A request that waits."""

    kind: str
    avoid: frozenset[str] = frozenset()
    #: Called when it was answered.
    then: Callable[[], None] = lambda: None


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
        self._asked = itertools.count()
        self.waiting: deque[Asked] = deque()
        self.pages: Counter[str] = Counter()
        self.failures = 0

    def at(self, time: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), event))

    def go(self, pages: int, at_once: int = 10_000) -> Outcome:
        """Layouts and lines in turn, so many at once."""
        left = pages
        begun = self.now

        def ask(more: int) -> None:
            nonlocal left
            for _ in range(min(more, left)):
                left -= 1
                kind = LINE if next(self._asked) % 2 else LAYOUT
                self.waiting.append(Asked(kind, then=lambda: ask(1)))

        ask(at_once)
        return self._run_until(sum(self.pages.values()) + pages, begun)

    def go_in_windows(self, documents: list[int], window: int = 16) -> Outcome:
        """As MinerU's client: of each document, a window of pages at once, each a layout and then a line."""
        begun = self.now

        def read(left: int) -> None:
            under_way = pages = min(window, left)

            def read_page() -> None:
                nonlocal under_way
                under_way -= 1
                if not under_way:
                    read(left - pages)

            for _ in range(pages):
                self.waiting.append(Asked(LAYOUT, then=lambda: self.waiting.append(Asked(LINE, then=read_page))))

        for document in documents:
            read(document)
        return self._run_until(sum(self.pages.values()) + 2 * sum(documents), begun)

    def _run_until(self, goal: int, begun: float) -> Outcome:
        self._check_health()
        while sum(self.pages.values()) < goal:
            self._dispatch()
            self.now, _, event = heapq.heappop(self._events)
            event()
        return Outcome(self.now - begun, self.pages, self.failures)

    def _check_health(self) -> None:
        for endpoint in self.pool.endpoints():
            if self.servers[endpoint.url].is_dead(self.now):
                endpoint.breaker.unhealthy(self.now, "dead on paper")
            else:
                endpoint.breaker.healthy(self.now)
        self.at(self.now + 1.0, self._check_health)

    def _dispatch(self) -> None:
        like = Counter(asked.kind for asked in self.waiting)
        blocked = set[str]()
        for asked in list(self.waiting):
            if asked.kind in blocked:
                continue
            endpoint = self.pool.pick(None, asked.kind, like[asked.kind], asked.avoid, self.now)
            if endpoint is not None:
                like[asked.kind] -= 1
                self.waiting.remove(asked)
                self._send(endpoint, asked)
            elif not asked.avoid:
                blocked.add(asked.kind)

    def _send(self, endpoint: Endpoint, asked: Asked) -> None:
        server, sent = self.servers[endpoint.url], self.now
        load = endpoint.started(asked.kind, sent)
        server.held += 1
        server.most_held = max(server.most_held, server.held)
        dead, refused = server.is_dead(sent), bool(server.refuses_over) and server.held > server.refuses_over
        ends = sent + 0.01 if dead or refused else server.answers_at(sent, asked.kind == LINE)

        def end() -> None:
            server.held -= 1
            if refused:
                endpoint.congested(self.now, None)
                self.waiting.appendleft(asked)
            elif dead or (sent < server.dead[0] < self.now):
                self.failures += 1
                endpoint.failed(self.now, "dead on paper", final=False)
                self.waiting.appendleft(replace(asked, avoid=asked.avoid | {endpoint.url}))
            else:
                self.pages[endpoint.url] += 1
                endpoint.succeeded(asked.kind, self.now - sent, load, self.now)
                asked.then()
            endpoint.ended(asked.kind, self.now)

        self.at(ends, end)
