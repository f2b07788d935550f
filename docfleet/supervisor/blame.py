"""Whose doing it was that a worker died: the document's that it read, or nobody's.

A process that was killed does not say by whom. What is known: a server that was killed takes all its workers along,
whatever they read; and where workers die under several documents, or with nothing to do, within a minute, somebody
goes about killing workers. Such losses are tried again and do not count against the document. A document that brings
the whole server down comes back later each time, so that the others get through.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from docfleet.records import ProcessIdentity, Shard
from docfleet.sharding.verdicts import MOST_EXCUSED, Fault

#: Seconds for which a death speaks for those that died around it.
_WINDOW = 60.0
#: Deaths under other documents, or of idle workers, that acquit a document.
_WITNESSES = 2


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
        #: By who died and what it held: when, and the job; None where it held nothing.
        self._deaths: dict[tuple[ProcessIdentity, int | None], tuple[float, str | None]] = {}

    def died(self, owner: ProcessIdentity, shard: Shard | None) -> None:
        """Remember the death of a worker, which held the shard or nothing. Safe to tell again."""
        now = self._clock()
        for key in [key for key, (when, _) in self._deaths.items() if now - when > _WINDOW]:
            del self._deaths[key]
        key = (owner, None if shard is None else shard.id)
        self._deaths.setdefault(key, (now, None if shard is None else shard.job_id))

    def of(self, shard: Shard) -> Fault:
        """Return whose doing the loss of the shard's dead worker was."""
        if shard.claimed_at is not None and shard.claimed_at < self._begun:
            return Fault.NOBODY
        # Documents that each kill their workers must not speak for one another for ever.
        if shard.attempt > MOST_EXCUSED:
            return Fault.PROCESS
        now = self._clock()
        recent = [(key, job) for key, (when, job) in self._deaths.items() if now - when <= _WINDOW]
        others = {job for _, job in recent if job not in (None, shard.job_id)}
        idle = sum(job is None for _, job in recent)
        return Fault.NOBODY if len(others) + idle >= _WITNESSES else Fault.PROCESS
