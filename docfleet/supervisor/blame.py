"""Whose doing it was that a worker died: the document's that it read, or nobody's.

A process that was killed does not say by whom. What is known: a server that was killed takes all its workers along,
whatever they read; and where workers die under several documents, or with nothing to do, within a minute, somebody
goes about killing workers. Such losses are tried again and do not count against the document. A document that brings
the whole server down comes back later each time, so that the others get through; `docfleet.supervisor.lives` finds it.

Documents that kill their workers must not acquit one another. So whoever has died again and again speaks for nobody,
and what is sent several times is one document: its bytes say which it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from docfleet.records import ProcessIdentity, Shard
from docfleet.sharding.verdicts import MOST_EXCUSED, Fault

#: Seconds for which a death speaks for those that died around it.
_WINDOW = 60.0
#: Deaths under other documents, or of idle workers, that acquit a document.
_WITNESSES = 2
#: Moments at which a document has lost workers from which on it speaks for no other: two may be bad luck, for memory
#: that is too short for several is so for a while.
_UNRELIABLE = 3
#: Seconds for which a document's deaths count for that: with waiting, loading and reading, some come minutes apart.
_MEMORY = 900.0
#: Seconds within which deaths are of one moment: all that was killed at once is not found dead in one look.
_MOMENT = 2.0


@dataclass(frozen=True)
class _Death:
    when: float
    #: SHA-256 of what was read; None: it had nothing to do.
    document: str | None


class Blame:
    """Remembers who died lately. One thread."""

    def __init__(self, begun: float, *, clock: Callable[[], float] = time.time) -> None:
        """Make it.

        Args:
            begun: when this server began; leases from before were lost with the last one.
            clock: seconds since the epoch.
        """
        self._begun = begun
        self._clock = clock
        #: By who died and what it held, oldest first.
        self._deaths: dict[tuple[ProcessIdentity, int | None], _Death] = {}

    def died(self, owner: ProcessIdentity, shard: Shard | None) -> None:
        """Remember the death of a worker, which held the shard or nothing. Safe to tell again."""
        now = self._clock()
        for key in [key for key, death in self._deaths.items() if now - death.when > _MEMORY]:
            del self._deaths[key]
        if shard is None:
            self._deaths.setdefault((owner, None), _Death(now, None))
        elif not self.lost_with_the_last_server(shard):
            self._deaths.setdefault((owner, shard.id), _Death(now, shard.sha256))

    def of(self, shard: Shard) -> Fault:
        """Return whose doing the loss of the shard's dead worker was."""
        if self.lost_with_the_last_server(shard):
            return Fault.NOBODY
        if shard.attempt > MOST_EXCUSED or self._moments(shard.sha256) > MOST_EXCUSED:
            return Fault.PROCESS
        now = self._clock()
        recent = [death.document for death in self._deaths.values() if now - death.when <= _WINDOW]
        others = {document for document in recent if document not in (None, shard.sha256)}
        witnesses = sum(self._moments(other) < _UNRELIABLE for other in others) + recent.count(None)
        return Fault.NOBODY if witnesses >= _WITNESSES else Fault.PROCESS

    def lost_with_the_last_server(self, shard: Shard) -> bool:
        """Return whether the shard was claimed before this server began."""
        return shard.claimed_at is not None and shard.claimed_at < self._begun

    def _moments(self, document: str | None) -> int:
        """Return at how many moments, lately, workers died that read the document."""
        return sum(1 for _ in _apart(death.when for death in self._deaths.values() if death.document == document))


def _apart(moments: Iterator[float]) -> Iterator[float]:
    """Return the first of each group of moments that lie close together."""
    last = None
    for moment in moments:
        if last is None or moment - last > _MOMENT:
            last = moment
            yield moment
