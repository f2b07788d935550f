"""What is known of one VLM server. Pure; the caller brings the clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from docfleet.addresses import address_id
from docfleet.vlm.breaker import Breaker, Circuit
from docfleet.vlm.flow import Flow, smoothed
from docfleet.vlm.limit import Ceiling
from docfleet.vlm.records import PAGE_KIND, EndpointRow, EndpointState, Member

#: Kinds of requests that are told apart, MinerU has five; the others are one together.
_KINDS = 16
_OTHERS = ""
#: Half of what was learnt of a slow server is forgotten when it had nothing to do for so many times what a request
#: takes there: it gets another chance, the sooner the less that costs.
_FORGET_PACES = 10.0
#: Seconds that a server rests which says that it has too much to do, and not for how long; doubled each time.
_REST = 0.5
_LONGEST_REST = 30.0
_WINDOW = 60.0


class Endpoint:
    """One server: its flows, one for each kind of request, and its breaker."""

    def __init__(self, member: Member, *, pooled: bool, most: int, now: float) -> None:
        self.member = member
        self.pooled = pooled
        self.draining = False
        self.model = ""
        self.breaker = Breaker()
        #: Seconds a request takes; None before the first.
        self.seconds: float | None = None
        #: When it last had something to do, and when a caller last named it.
        self.used_at = self.named_at = now
        self._done = 0
        self._failed = 0
        self._pages = 0
        #: By kind of request. A page's layout takes many times as long as a line of it: like is compared with like.
        self._flows: dict[str, Flow] = {PAGE_KIND: Flow(most)}
        self._most = most
        self._ceiling = Ceiling(most)
        self._rests_until = 0.0
        self._rest = _REST
        self._ends: deque[float] = deque(maxlen=6000)
        self._page_ends: deque[float] = deque(maxlen=6000)

    @property
    def url(self) -> str:
        """Its address; in the pool there is one for each."""
        return self.member.url

    @property
    def lost(self) -> bool:
        """Whether no answer can be hoped for at present."""
        return self.draining or self.breaker.lost

    @property
    def proven(self) -> bool:
        """Whether it is well, and not only on trial."""
        return not self.draining and self.breaker.circuit is Circuit.CLOSED

    @property
    def in_flight(self) -> int:
        """Requests that it has, of all kinds."""
        return sum(flow.in_flight for flow in self._flows.values())

    @property
    def flows(self) -> Mapping[str, Flow]:
        """Its requests by kind."""
        return self._flows

    def flow(self, kind: str) -> Flow:
        """Return its requests of one kind."""
        if kind not in self._flows:
            kind = kind if len(self._flows) < _KINDS else _OTHERS
            self._flows.setdefault(kind, Flow(self._most))
        return self._flows[kind]

    def may_send(self, kind: str, now: float, measure: str | None = None) -> bool:
        """Return whether it may be sent one more request of this kind now.

        One at a time, of whatever kind, until it has answered one of the kind that servers are measured by.
        """
        if self.draining or now < self._rests_until or not self.breaker.may_send(self.in_flight):
            return False
        known = self.pace(measure) is not None
        return self.in_flight < (self._ceiling.value if known else 1) and self.flow(kind).has_room

    def pace(self, kind: str | None) -> float | None:
        """Return the seconds of its time that one of this kind takes; None before it has answered one."""
        return self._flows[kind].pace if kind in self._flows else None

    def curve(self, kind: str | None) -> Mapping[int, float]:
        """Return the seconds that one of this kind takes, see `Flow.curve`; empty where nothing is known."""
        return self._flows[kind].curve if kind in self._flows else {}

    def slowness(self, measure: str | None, others: Iterable[Mapping[int, float]], now: float) -> float:
        """Return how many times as long a request takes here as where it takes least; 1 for an unknown server.

        Args:
            measure: the kind of request to compare servers by.
            others: other servers' curves of that kind.
            now: the clock; a server without work is forgiven as time goes by.
        """
        pace = self.pace(measure)
        if measure is None or not pace:
            return 1.0
        idle = 0.0 if self.in_flight else max(0.0, now - self.used_at)
        ratio = self._flows[measure].slowness(others)
        return 1.0 + (ratio - 1.0) * float(0.5 ** (idle / (_FORGET_PACES * pace)))

    def started(self, kind: str, now: float) -> int:
        """Note a request sent. Return how many of its kind it has now, this one included."""
        self.used_at = now
        return self.flow(kind).started(now)

    def ended(self, kind: str, now: float) -> None:
        """Note that a request is not under way any more, however it ended."""
        self.flow(kind).ended(now)
        self.used_at = now

    def succeeded(self, kind: str, seconds: float, load: int, now: float) -> None:
        """Note an answer after so many seconds to a request of this kind, before it has `ended`.

        Args:
            kind: as in `started`.
            seconds: that it took.
            load: what `started` said.
            now: the clock.
        """
        if self.breaker.circuit is Circuit.HALF_OPEN:
            self._ceiling.restart()
            for flow in self._flows.values():
                flow.limit.restart()
        self.breaker.succeeded()
        self._ceiling.succeeded(self.in_flight)
        self.flow(kind).succeeded(seconds, load)
        self._rest = _REST
        self._done += 1
        self._ends.append(now)
        if kind == PAGE_KIND:
            self._pages += 1
            self._page_ends.append(now)
        self.seconds = smoothed(self.seconds, seconds)

    def congested(self, now: float, retry_after: float | None) -> None:
        """Note that it has too much to do. No failure: the request goes elsewhere, the server rests."""
        self._ceiling.refused(self.in_flight, now, self.seconds or 1.0)
        # Less than a moment would be asking again and again.
        pause = self._rest if retry_after is None else max(_REST, retry_after)
        if now >= self._rests_until:
            # The others of the same burst say nothing new.
            self._rest = min(self._rest * 2, _LONGEST_REST)
        elif retry_after is None:
            return
        self._rests_until = max(self._rests_until, now + min(pause, _LONGEST_REST))

    def failed(self, now: float, reason: str, *, final: bool) -> None:
        """Note a request that it did not answer as it should."""
        self._failed += 1
        self.breaker.failed(now, reason, final=final)

    def row(self, now: float) -> EndpointRow:
        """Return how it stands."""
        for ends in (self._ends, self._page_ends):
            while ends and ends[0] < now - _WINDOW:
                ends.popleft()
        pages = self._page_ends
        return EndpointRow(
            id=address_id(self.url),
            url=self.url,
            state=self._state(now),
            reason=self.breaker.reason,
            pooled=self.pooled,
            has_key=bool(self.member.key),
            model=self.model,
            in_flight=self.in_flight,
            limit=min(self._ceiling.value, max(1, sum(flow.limit.value for flow in self._flows.values()))),
            done=self._done,
            failed=self._failed,
            pages=self._pages,
            seconds=None if self.seconds is None else round(self.seconds, 3),
            per_second=round(len(self._ends) / _WINDOW, 3),
            pages_per_second=round(len(pages) / max(1.0, now - pages[0]), 3) if pages else 0.0,
        )

    def _state(self, now: float) -> EndpointState:
        if self.draining:
            return EndpointState.DRAINING
        states = {
            Circuit.NEW: EndpointState.NEW,
            Circuit.OPEN: EndpointState.DOWN,
            Circuit.HALF_OPEN: EndpointState.TRIAL,
            Circuit.CLOSED: EndpointState.RESTING if now < self._rests_until else EndpointState.UP,
        }
        return states[self.breaker.circuit]
