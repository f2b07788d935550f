"""How much work the server takes on, and on which terms: plain values and the one rule, whatever the store is."""

from __future__ import annotations

import math
from dataclasses import dataclass

from docfleet.errors import Busy
from docfleet.records import JobState, Lane

#: Seconds after which to ask again where no speed was measured yet.
_UNKNOWN = 5.0
#: Longest time that a caller is sent away for: speeds change, places are given back.
_LONGEST = 300.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Most work that may be accepted and not done."""

    #: Pages. A document with more than that is taken when there is nothing else to do.
    pages: int
    #: Documents.
    jobs: int


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """Work that is accepted and not done, and how fast it gets less."""

    jobs: int
    pages: int
    #: Measured over the last minute, or the part of it in which there was work; 0 where nothing was.
    pages_per_second: float

    def seconds_for(self, pages: float) -> float | None:
        """Return how long so many pages take; None where no speed was measured."""
        return pages / self.pages_per_second if self.pages_per_second > 0 else None


@dataclass(frozen=True, kw_only=True)
class Terms:
    """On which terms a document is accepted."""

    lane: Lane = Lane.INTERACTIVE
    #: Who sent it: callers take turns. Known to the store while the caller has work under way; never shown.
    caller: str = ""
    #: None: accepted however much there is to do.
    limits: Limits | None = None
    #: The caller's Idempotency-Key, made unique for each document of the request.
    key: str | None = None
    #: Digest of what the key stands for: document and options.
    fingerprint: str = ""
    #: Seconds for which the key is remembered.
    key_seconds: float = 0.0
    #: Whether the job goes on when the caller who sent it leaves.
    kept: bool = True

    @property
    def remembered(self) -> bool:
        """Whether somebody relies on finding the job again: it goes on without its caller, or has a key.

        Other jobs are done when the caller has read the answer. One that is answered from a stored result has no work
        to lose, so nothing of it need be on the disk before the answer; a power cut may cost the address, which then
        is answered with 404, never with something else.
        """
        return self.kept or self.key is not None


@dataclass(frozen=True, kw_only=True)
class JobProgress:
    """What changes while a job is on its road."""

    state: JobState
    pages_done: int
    #: Pages asked for.
    pages: int


@dataclass(frozen=True, kw_only=True)
class QueuePlace:
    """Where a job stands."""

    #: Documents that are taken up before it; None when nothing of it waits.
    position: int | None
    #: Pages that are read before its next ones.
    pages_ahead: int


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Which jobs to list. Times are seconds since the epoch."""

    states: tuple[JobState, ...] = ()
    #: Part of the file name, upper or lower case.
    filename: str | None = None
    created_after: float | None = None
    created_before: float | None = None


def refusal(backlog: Backlog, limits: Limits, pages: int) -> Busy | None:
    """Return why a document of `pages` pages cannot be taken now, with the time after which it can; None if it can."""
    too_many_jobs = backlog.jobs + 1 - limits.jobs
    too_many_pages = backlog.pages + pages - limits.pages if backlog.jobs else 0
    if too_many_jobs <= 0 and too_many_pages <= 0:
        return None
    each = backlog.pages / max(1, backlog.jobs)
    # A tenth of the bound at least: whoever comes back for a single page's room finds it taken by another.
    wanted = max(too_many_pages, too_many_jobs * each, limits.jobs * each / 10 if too_many_jobs > 0 else 0, 1)
    known = backlog.seconds_for(wanted)
    seconds = math.ceil(min(_LONGEST, max(1.0, _UNKNOWN if known is None else known)))
    if too_many_jobs > 0:
        bound = f"too many concurrent documents (max {limits.jobs})"
    else:
        bound = f"too many concurrent documents (max {limits.pages} pages, {backlog.pages} are waiting)"
    return Busy(f"The server has {bound}; try again in {seconds} seconds.", retry_after=seconds)
