"""Counts of requests, kept by the process that answers them. They begin anew with it, as Prometheus expects.

Belongs to one event loop: nothing here is locked. Counting a request costs microseconds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass

#: Upper bounds, in seconds, between which durations are counted: probes take milliseconds, documents minutes.
REQUEST_SECONDS = (0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 60.0, 300.0, 600.0)
#: Statuses of a server that has too much to do, cannot do it yet, or has no room: no errors, and counted apart.
REFUSALS = frozenset({429, 503, 507})
#: In the place of paths that are nobody's, and of methods that nobody has heard of: callers make these up.
OTHER = "other"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A request that has ended."""

    method: str
    #: Template of the route ("/jobs/{job_id}"), never the path that was asked for; None: there is no such route.
    route: str | None
    #: None: the caller left before there was an answer.
    status: int | None
    seconds: float
    #: Of the error that was the answer; None where it was none.
    code: str | None = None


@dataclass(frozen=True, kw_only=True)
class Durations:
    """How long requests of one method and route took."""

    method: str
    route: str
    #: Requests between each two bounds of `REQUEST_SECONDS`, and beyond the last.
    counts: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TrafficCounts:
    """All counts at one moment."""

    in_progress: int
    #: By method, route and class of status ("2xx"; "none": the caller left).
    requests: dict[tuple[str, str, str], int]
    durations: tuple[Durations, ...]
    #: By code.
    refusals: dict[str, int]
    errors: dict[str, int]


class Traffic:
    """Counts requests."""

    def __init__(self) -> None:
        self._in_progress = 0
        self._requests: Counter[tuple[str, str, str]] = Counter()
        self._counts: dict[tuple[str, str], list[int]] = {}
        self._seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._refusals: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()

    def begin(self) -> None:
        """Count a request that comes in."""
        self._in_progress += 1

    def end(self, one: Answered) -> None:
        """Count a request that `begin` counted."""
        self._in_progress -= 1
        method = one.method if one.method in _METHODS else OTHER
        place = (method, one.route or OTHER)
        self._requests[*place, "none" if one.status is None else f"{one.status // 100}xx"] += 1
        counts = self._counts.setdefault(place, [0] * (len(REQUEST_SECONDS) + 1))
        counts[bisect_left(REQUEST_SECONDS, one.seconds)] += 1
        self._seconds[place] += one.seconds
        if one.code is not None:
            (self._refusals if one.status in REFUSALS else self._errors)[one.code] += 1

    def counts(self) -> TrafficCounts:
        """Return all counts."""
        return TrafficCounts(
            in_progress=self._in_progress,
            requests=dict(self._requests),
            durations=tuple(
                Durations(method=method, route=route, counts=tuple(counts), seconds=self._seconds[method, route])
                for (method, route), counts in self._counts.items()
            ),
            refusals=dict(self._refusals),
            errors=dict(self._errors),
        )
