"""How long leases were silent and how long they have left, counted only while the supervisor saw what went on.

The times in the store are wall-clock times, and they come through the disk. A clock that is set, a machine that sleeps
and a disk that takes nothing more all make a healthy worker look silent or late. So seconds are counted here by a
clock of its own, which goes on only from look to look, and stands still while the store cannot be written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from docfleet.records import Shard

#: Seconds that count at most between two looks: the supervisor did not see the rest of a longer pause.
_STEP = 2.0


@dataclass
class _Seen:
    """A lease. Both moments are by the clock of `Attention`."""

    heartbeat: float | None
    #: When this heartbeat was first seen.
    heard: float
    deadline: float
    due: float


class Attention:
    """One thread."""

    def __init__(
        self,
        grace: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Make it.

        Args:
            grace: seconds that every lease has at least, once the store can be written again.
            clock: seconds from anywhere, never set.
            wall: seconds since the epoch, as in the store.
        """
        self._grace = grace
        self._clock = clock
        self._wall = wall
        self._looked = clock()
        self._watched = 0.0
        self._leases: dict[tuple[int, int], _Seen] = {}

    def look(self, leases: Iterable[tuple[Shard, float]]) -> None:
        """Take in all leases, each with its deadline in seconds since the epoch, while the store can be written."""
        now = self._clock()
        self._watched += min(now - self._looked, _STEP)
        self._looked = now
        wall, seen = self._wall(), {}
        for shard, deadline in leases:
            key = (shard.id, shard.attempt)
            one = self._leases.get(key)
            if one is None or one.deadline != deadline:
                heard = self._watched if one is None else one.heard
                one = _Seen(shard.heartbeat_at, heard, deadline, self._watched + deadline - wall)
            if one.heartbeat != shard.heartbeat_at:
                one.heartbeat, one.heard = shard.heartbeat_at, self._watched
            seen[key] = one
        self._leases = seen

    def blind(self) -> None:
        """Take note that the store cannot be written: whoever is silent or late may be so for that."""
        self._looked = self._clock()
        for one in self._leases.values():
            one.heard = self._watched
            one.due = max(one.due, self._watched + self._grace)

    def silent(self, shard: Shard) -> float:
        """Return for how many seconds the lease, one of the last look, was watched without a heartbeat."""
        return self._watched - self._leases[shard.id, shard.attempt].heard

    def late(self, shard: Shard) -> bool:
        """Return whether the time of the lease, one of the last look, is over."""
        return self._watched > self._leases[shard.id, shard.attempt].due
