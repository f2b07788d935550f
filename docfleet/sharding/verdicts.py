"""What becomes of a shard whose attempt failed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from docfleet.records import Stage


class Verdict(StrEnum):
    """What happens next."""

    #: The same again, later, on another worker if there is one.
    RETRY = "retry"
    #: Each half on its own: one of them holds the bad page.
    BISECT = "bisect"
    #: The bad page is found; the document is delivered without it.
    QUARANTINE = "quarantine"
    #: The document cannot be cut: halves are tried only to find the page, then the whole once more without it.
    PROBE = "probe"
    #: The job ends with the error.
    FAIL = "fail"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A failed attempt, as far as the verdict depends on it."""

    stage: Stage
    pages: int
    #: Number of the attempt, from 1.
    attempt: int
    max_attempts: int
    #: Whether the shard is half of one that failed; of a whole document: whether its pages were probed already.
    halved: bool
    #: Whether an engine said that it cannot, rather than a process that was lost: trying all of it again is idle.
    by_engine: bool


def after(failure: Failure) -> Verdict:
    """Decide.

    A single page gets all attempts before it is given up: a worker may have died of something else. Ranges get one
    once they are known to hold a bad page, as their halves are tried anyway.
    """
    several = failure.pages > 1
    hasty = failure.halved or failure.by_engine
    if failure.stage in (Stage.PAGES, Stage.PROBE):
        if several and (hasty or failure.attempt >= failure.max_attempts):
            return Verdict.BISECT
        return Verdict.RETRY if failure.attempt < failure.max_attempts else Verdict.QUARANTINE
    if failure.stage is Stage.WHOLE and several and not failure.halved:
        if failure.by_engine or failure.attempt >= failure.max_attempts:
            return Verdict.PROBE
        return Verdict.RETRY
    if failure.by_engine or failure.halved or failure.attempt >= failure.max_attempts:
        return Verdict.FAIL
    return Verdict.RETRY
