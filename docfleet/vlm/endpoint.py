"""What is known of one VLM server. Pure; the caller brings the clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from docfleet.addresses import address_id
from docfleet.vlm.breaker import Breaker, Circuit
from docfleet.vlm.limit import AdaptiveLimit
from docfleet.vlm.records import PAGE_KIND, EndpointRow, EndpointState, Member

#: Share of the newest request in the smoothed figures.
_NEWEST = 0.25
#: Kinds of requests that are told apart; MinerU has five.
_KINDS = 16
#: Seconds without a request after which half of what was learnt of a slow server is forgotten: it gets another chance.
_FORGET_SECONDS = 60.0
#: Seconds that a server rests which says that it has too much to do, and not for how long; doubled each time.
_REST = 0.5
_LONGEST_REST = 30.0
_WINDOW = 60.0


class Endpoint:
    """One server: its limit, its breaker, its measured speed."""

    def __init__(self, member: Member, *, pooled: bool, most: int, now: float) -> None:
        self.member = member
        self.pooled = pooled
        self.draining = False
        self.model = ""
        self.breaker = Breaker()
        self.limit = AdaptiveLimit(most)
        self.in_flight = 0
        #: Seconds a request takes; None before the first.
        self.seconds: float | None = None
        #: When it was last of use to somebody.
        self.used_at = now
        self._done = 0
        self._failed = 0
        self._pages = 0
        #: By kind of request: seconds of the server's time, which is what one takes, shared by those there at once.
        #: A page's layout takes many times as long as a line of it: only like is compared with like.
        self.paces: dict[str, float] = {}
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

    def may_send(self, now: float, heaviest: str | None = None) -> bool:
        """Return whether it may be sent one more request now.

        One at a time until it has answered one of the kind that takes longest.
        """
        known = bool(self.paces) and (heaviest is None or heaviest in self.paces)
        room = self.limit.value if known else 1
        resting = now < self._rests_until
        return not self.draining and not resting and self.in_flight < room and self.breaker.may_send(self.in_flight)

    def slowness(self, best: Mapping[str, float], now: float) -> float:
        """Return how many times as long a request takes here as where it takes least; 1 for an unknown server.

        Args:
            best: the least of all servers' `paces`, by kind.
            now: the clock; a server without work is forgiven as time goes by.
        """
        least = sum(best.get(kind, 0.0) for kind in self.paces)
        if not least:
            return 1.0
        # Of the sums, not of the kinds: what takes long decides, and what takes milliseconds is noise.
        ratio = sum(self.paces.values()) / least
        idle = 0.0 if self.in_flight else max(0.0, now - self.used_at)
        return 1.0 + (ratio - 1.0) * float(0.5 ** (idle / _FORGET_SECONDS))

    def started(self, now: float) -> int:
        """Note a request sent. Return how many it has now, this one included."""
        self.in_flight += 1
        self.used_at = now
        return self.in_flight

    def ended(self, now: float) -> None:
        """Note that a request is not under way any more, however it ended."""
        self.in_flight -= 1
        self.used_at = now

    def succeeded(self, seconds: float, load: int, now: float, kind: str = "") -> None:
        """Note an answer after so many seconds to a request of this kind; `load` is what `started` said."""
        if self.breaker.circuit is Circuit.HALF_OPEN:
            self.limit.restart()
        self.breaker.succeeded()
        self.limit.succeeded(seconds, load)
        self._rest = _REST
        self._done += 1
        self._ends.append(now)
        if kind == PAGE_KIND:
            self._pages += 1
            self._page_ends.append(now)
        self.seconds = _smoothed(self.seconds, seconds)
        if kind in self.paces or len(self.paces) < _KINDS:
            self.paces[kind] = _smoothed(self.paces.get(kind), seconds / load)

    def congested(self, now: float, retry_after: float | None) -> None:
        """Note that it has too much to do. No failure: the request goes elsewhere, the server rests."""
        self.limit.congested(now, self.seconds or 1.0)
        pause = self._rest if retry_after is None else retry_after
        self._rests_until = max(self._rests_until, now + min(pause, _LONGEST_REST))
        self._rest = min(self._rest * 2, _LONGEST_REST)

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
            limit=self.limit.value,
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


def _smoothed(old: float | None, new: float) -> float:
    return new if old is None else old + _NEWEST * (new - old)
