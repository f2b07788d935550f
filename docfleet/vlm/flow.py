"""Requests of one kind at one server: how many are there, how many may be, what one takes. Pure.

Where a page's layout takes a second and a line of it ten milliseconds, one limit for both grows whenever the mixture
gets lighter, and a moment later as many layouts are queued as lines had room. By kind, like is compared with like.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from docfleet.vlm.limit import AdaptiveLimit

#: Share of the newest request in the smoothed figures.
_NEWEST = 0.25


class Flow:
    """One kind of request at one server."""

    def __init__(self, most: int) -> None:
        """Begin with none; never more than `most` at once."""
        self.limit = AdaptiveLimit(most)
        self.in_flight = 0
        self.answered = 0
        #: Seconds of the server's time: what one takes, shared by those of its kind there at once. None: unknown.
        self.pace: float | None = None
        #: Seconds that one takes, by how many were there when it was sent: by the number of binary digits of that.
        self.curve: dict[int, float] = {}
        self._newest = 0
        #: When the last one left, or came where none was.
        self._since = 0.0

    @property
    def has_room(self) -> bool:
        """Whether its limit allows one more."""
        return self.in_flight < self.limit.value

    def started(self, now: float) -> int:
        """Note one sent. Return how many there are now, this one included."""
        self.in_flight += 1
        if self.in_flight == 1:
            self._since = now
        return self.in_flight

    def ended(self, now: float) -> None:
        """Note that one is gone, however it ended."""
        self.in_flight -= 1
        self._since = now

    def ahead(self, now: float) -> float:
        """Return how many requests one more would wait for, itself included: the first of them may be nearly done."""
        if not self.in_flight or not self.pace:
            return self.in_flight + 1.0
        return self.in_flight + 1.0 - min(1.0, (now - self._since) / self.pace)

    def succeeded(self, seconds: float, load: int) -> None:
        """Note an answer, before it has left; `load` requests of the kind were there when it was sent."""
        self.limit.succeeded(seconds, load, self.in_flight)
        self.pace = smoothed(self.pace, seconds / load)
        self._newest = load.bit_length()
        self.curve[self._newest] = smoothed(self.curve.get(self._newest), seconds)
        self.answered += 1

    def slowness(self, others: Iterable[Mapping[int, float]]) -> float:
        """Return how many times as long one takes here as at the best of others, at least 1; 1 where nothing is known.

        Compared is what took as many at once: a server that batches takes longer over each of thirty than its idle
        twin over one, and is no slower. What has many there shares its time better, and is no faster either.

        Args:
            others: curves of other servers.
        """
        known = list(others)
        for digits in (self._newest, *sorted(self.curve, reverse=True)):
            rivals = [curve[digits] for curve in known if digits in curve]
            if rivals and digits in self.curve:
                return max(1.0, self.curve[digits] / max(min(rivals), 1e-9))
        return 1.0


def smoothed(old: float | None, new: float) -> float:
    """Return the old figure moved towards the new one."""
    return new if old is None else old + _NEWEST * (new - old)
