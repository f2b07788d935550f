"""Which server gets the next request. Pure; the caller brings the clock.

Least outstanding work, weighted by measured speed: the server that would be done first. A server much slower than the
others is left idle when those would have cleared the queue before it had answered: the best policy for servers of
unequal speed has this threshold (W. Lin, P. R. Kumar, "Optimal control of a queueing system with two heterogeneous
servers", IEEE Transactions on Automatic Control 29, 1984).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from docfleet.vlm.breaker import Circuit
from docfleet.vlm.endpoint import Endpoint
from docfleet.vlm.records import PAGE_KIND, EndpointRow, Member, PoolSettings

#: A server that takes so many times as long as the best is slow; below that the queue's length does not matter.
_SLOW = 2.0
#: Part of the time for the queue that is counted on: what waits may be lighter than it looks.
_CAUTION = 0.7
#: Seconds after which a server that a caller named, and nobody uses, is forgotten.
_GUEST_SECONDS = 600.0

#: Servers that a request may use; None: those of the pool.
Selection = frozenset[str] | None


class NotAllowed(Exception):
    """A server was named that the settings do not allow."""


class Pool:
    """The servers there are, and those that callers named."""

    def __init__(self, settings: PoolSettings, allowed: Iterable[str]) -> None:
        """Make an empty pool; `allowed` are canonical addresses that requests may name beside the members'."""
        self._settings = settings
        self._allowed = frozenset(allowed)
        self._endpoints: dict[str, Endpoint] = {}

    def declare(self, members: Iterable[Member], now: float) -> None:
        """Make these the members: new ones are added, returned ones resume, others are drained."""
        wanted = {member.url: member for member in members}
        for url, member in wanted.items():
            endpoint = self._endpoints.setdefault(url, self._new(member, now, pooled=True))
            endpoint.member, endpoint.pooled, endpoint.draining = member, True, False
        for url, endpoint in self._endpoints.items():
            endpoint.draining = endpoint.draining or (endpoint.pooled and url not in wanted)

    def admit(self, selection: Selection, now: float) -> None:
        """Make sure that the named servers are known.

        Raises:
            NotAllowed: one of them may not be used.
        """
        for url in selection or ():
            endpoint = self._endpoints.get(url)
            if endpoint is not None:
                endpoint.named_at = now
            # A member that was drained may still be allowed by name.
            if endpoint is not None and not endpoint.draining:
                continue
            if url not in self._allowed:
                raise NotAllowed(url)
            if endpoint is None:
                self._endpoints[url] = self._new(Member(url=url), now, pooled=False)
            else:
                endpoint.draining, endpoint.pooled = False, False

    def tidy(self, now: float) -> list[Endpoint]:
        """Forget servers that were drained, and those that callers named and nobody uses any more; return them."""
        gone = [
            endpoint
            for endpoint in self._endpoints.values()
            if not endpoint.in_flight
            and (
                endpoint.draining
                or (not endpoint.pooled and now - max(endpoint.used_at, endpoint.named_at) > _GUEST_SECONDS)
            )
        ]
        for endpoint in gone:
            del self._endpoints[endpoint.url]
        return gone

    def pick(self, selection: Selection, kind: str, queue: int, avoid: Collection[str], now: float) -> Endpoint | None:
        """Return the server for one request, or None if it is better to wait.

        Args:
            selection: servers that it may use.
            kind: of the request; `docfleet.vlm.upstream.kind_of`.
            queue: requests of this kind that wait for the same servers, this one included.
            avoid: addresses of servers at which it failed; used only when no other is alive.
            now: the clock, in seconds.
        """
        if self._settings.serial and any(endpoint.in_flight for endpoint in self._endpoints.values()):
            return None
        alive = [endpoint for endpoint in self._usable(selection) if not endpoint.lost]
        fresh = [endpoint for endpoint in alive if endpoint.url not in avoid]
        measure = _measure(alive)
        ready = [endpoint for endpoint in fresh or alive if endpoint.may_send(kind, now, measure)]
        # A server on trial has to show that it works before it gets its share: it is tried as soon as there is work.
        trials = [endpoint for endpoint in ready if endpoint.breaker.circuit is Circuit.HALF_OPEN]
        if trials:
            return trials[0]
        curves = {one.url: one.curve(measure) for one in alive}
        slowness = {
            one.url: one.slowness(measure, [curve for url, curve in curves.items() if url != one.url], now)
            for one in fresh or alive
        }
        due = {one.url: slowness[one.url] * one.flow(kind).ahead(now) for one in ready}
        worth = [one for one in ready if not _too_slow(one.url, due[one.url], slowness, queue)]
        return min(worth, key=lambda one: (due[one.url], one.in_flight), default=None)

    def stranded(self, selection: Selection) -> bool:
        """Return whether no server that such a request may use is well; one on trial may fail at that, too."""
        return not any(endpoint.proven for endpoint in self._usable(selection))

    def reasons(self, selection: Selection) -> str:
        """Return in words why servers are down."""
        told = [f"{one.url}: {one.breaker.reason or one.breaker.circuit.value}" for one in self._usable(selection)]
        return "; ".join(told) or "there is none"

    def endpoints(self) -> list[Endpoint]:
        """Return all servers, those that are drained or were named by callers too."""
        return list(self._endpoints.values())

    def rows(self, now: float) -> list[EndpointRow]:
        """Return how each server stands."""
        return [endpoint.row(now) for endpoint in self._endpoints.values()]

    def _usable(self, selection: Selection) -> list[Endpoint]:
        found = [one for one in self._endpoints.values() if (one.pooled if selection is None else one.url in selection)]
        return [endpoint for endpoint in found if not endpoint.draining]

    def _new(self, member: Member, now: float, *, pooled: bool) -> Endpoint:
        return Endpoint(member, pooled=pooled, most=self._settings.most, now=now)


def _measure(alive: Iterable[Endpoint]) -> str | None:
    """Return the kind of request to compare servers by: pages' layouts, which are all of one size.

    The others are of any size, and what weighs little has taken as long as what was in its way. Where nobody asks for
    layouts, the kind that is asked for most.
    """
    answered = Counter[str]()
    for endpoint in alive:
        answered.update({kind: flow.answered for kind, flow in endpoint.flows.items() if flow.answered})
    return PAGE_KIND if PAGE_KIND in answered else max(answered, key=answered.__getitem__, default=None)


def _too_slow(url: str, due: float, slowness: Mapping[str, float], queue: int) -> bool:
    """Return whether the faster servers would clear the queue before this one had answered, after `due`.

    Everything in units of what a request takes at the best server.
    """
    faster = [other for other in slowness.values() if other * _SLOW < slowness[url]]
    if not faster:
        return False
    # When the others would have answered this request, as the last of those that wait.
    wait = queue / sum(1.0 / other for other in faster) + min(faster)
    return wait * _CAUTION < due
