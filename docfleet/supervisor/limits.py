"""What a worker may not do with a shard: be silent, take too long, or take too much memory."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

import psutil

from docfleet.errors import DocfleetError, TooSlow, WorkerLost
from docfleet.records import ProcessIdentity, Shard
from docfleet.sharding.deadlines import Deadlines
from docfleet.supervisor.attention import Attention

_MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class Broken:
    """A limit that was not kept."""

    #: For the counts: silent, deadline, memory.
    limit: str
    cause: DocfleetError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of every lease. They are looked at from outside: a worker that hangs cannot look at itself."""

    max_attempts: int
    #: Seconds without a heartbeat, while the supervisor watched.
    stale_seconds: float
    deadlines: Deadlines
    #: Resident memory of a worker with its children; 0 is no limit.
    memory_bytes: int = 0
    #: Seconds for which a document that killed its worker is remembered; 0 is not at all.
    remember_seconds: float = 0.0

    def lost(self, shard: Shard, lives: int = 0) -> DocfleetError:
        """Return the cause for a worker that is gone; `lives`: of the server, in a row, that were lost with it."""
        told = f"died with the whole server, {lives} times in a row," if lives > 1 else "died"
        return WorkerLost(self._told(shard, told))

    def deadline(self, shard: Shard) -> float:
        """Return when the shard has to be done, in seconds since the epoch."""
        begun = self._begun(shard)
        return shard.deadline_at or begun + self.deadlines.at_most(shard.last_page - shard.first_page + 1)

    def broken(self, shard: Shard, owner: ProcessIdentity, seen: Attention) -> Broken | None:
        """Return which limit a living worker has broken, for which it has to be killed; None while it keeps them."""
        silent = seen.silent(shard)
        if silent > self.stale_seconds:
            told = f"was silent for {silent:.0f} s and was killed"
            return Broken("silent", WorkerLost(self._told(shard, told)))
        if seen.late(shard):
            told = f"took longer than {self.deadline(shard) - self._begun(shard):.0f} s and was killed"
            return Broken("deadline", TooSlow(self._told(shard, told)))
        return self.too_large(shard, owner)

    def too_large(self, shard: Shard, owner: ProcessIdentity) -> Broken | None:
        """Return the limit of memory if a living worker has broken it."""
        if self.memory_bytes and (held := group_bytes(owner.pid)) > self.memory_bytes:
            told = f"took {held // _MEGABYTE} MB of memory (allowed: {self.memory_bytes // _MEGABYTE}) and was killed"
            return Broken("memory", WorkerLost(self._told(shard, told)))
        return None

    def _begun(self, shard: Shard) -> float:
        return shard.claimed_at or time.time()

    def _told(self, shard: Shard, what: str) -> str:
        # Pages as people count them: this is read by the caller.
        first, last = shard.first_page + 1, shard.last_page + 1
        pages = f"page {first}" if first == last else f"pages {first}-{last}"
        return (
            f"The worker {what} while it read {pages}, attempt {shard.attempt} of {self.max_attempts}. "
            "If it happens again, the document is likely the cause."
        )


def group_bytes(pid: int) -> int:
    """Return the resident memory of a process and all its children, in bytes; 0 if it is gone."""
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += member.memory_info().rss
    return total
