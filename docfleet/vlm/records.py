"""What the pool is told, and what it tells."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

#: The kind of request of which MinerU's client sends one for each page, before those for what is on it.
PAGE_KIND = "Layout Detection"


class EndpointState(StrEnum):
    """Where a VLM server stands."""

    #: Nobody has heard of it yet.
    NEW = "new"
    #: It gets its share.
    UP = "up"
    #: It said that it has too much to do, and is left alone for a moment.
    RESTING = "resting"
    #: It gets nothing; it is asked every second whether it is back.
    DOWN = "down"
    #: It answers again; one request will show whether it works.
    TRIAL = "trial"
    #: It was taken out; what it has in hand it may finish.
    DRAINING = "draining"


@dataclass(frozen=True, kw_only=True)
class Member:
    """A server of the pool."""

    #: Canonical, see `docfleet.addresses`.
    url: str
    #: Sent as bearer token to this server and to no other. Not shown, not logged.
    key: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """How the pool works."""

    #: One request at a time over all servers together.
    serial: bool = False
    #: Requests at one server at once, at most; the limit in force adapts below this.
    most: int = 100
    #: Seconds that one request may take at one server. Less than the deadline of a shard of one page, so that there
    #: is time for another.
    timeout: float = 180.0
    #: Seconds that a request waits while no server that may read it is alive. Less than that deadline, too.
    patience: float = 120.0
    #: Seconds between two health checks of a server.
    check_interval: float = 1.0
    #: Seconds that a health check may take.
    check_timeout: float = 5.0
    #: Model to ask for; empty: the one that a server offers.
    model: str = ""


@dataclass(frozen=True, kw_only=True)
class EndpointRow:
    """How one server stands, for `/status` and `/vlm/endpoints`."""

    id: str
    url: str
    state: EndpointState
    #: Why it is not up; empty otherwise.
    reason: str
    #: Whether it is one of the pool; false: callers named it.
    pooled: bool
    has_key: bool
    model: str
    in_flight: int
    #: Requests at once that it gets at present.
    limit: int
    done: int
    failed: int
    #: Requests done of the kind that there is one of for each page.
    pages: int
    #: Seconds a request takes there, smoothed; None before the first.
    seconds: float | None
    #: Requests a second over the last minute.
    per_second: float
    #: Over the last minute, or the part of it in which there was work.
    pages_per_second: float

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Self:
        """Return the row that `to_json` told."""
        return cls(**{**told, "state": EndpointState(told["state"])})
