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
    #: What takes all pages at once failed: halves are tried only to find the page, then all once more without it.
    PROBE = "probe"
    #: The job ends with the error.
    FAIL = "fail"


class Fault(StrEnum):
    """Whose doing it is that an attempt failed."""

    #: An engine said that it cannot: trying all of it again is idle.
    ENGINE = "engine"
    #: A process was lost, perhaps because of what it read.
    PROCESS = "process"
    #: Not the document's: the server was killed, or the disk was full. Such attempts do not count.
    NOBODY = "nobody"


#: Attempts of one shard after which everything counts, except the loss of the whole server and trouble with the disk:
#: some 7 minutes of retries.
MOST_EXCUSED = 20


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A failed attempt, as far as the verdict depends on it."""

    stage: Stage
    pages: int
    #: Number of the attempt, from 1, without those that were nobody's doing, and those before the pages were probed.
    attempt: int
    max_attempts: int
    #: Whether the shard is half of one that failed; of what takes all pages: whether they were probed already.
    halved: bool
    fault: Fault


def after(failure: Failure) -> Verdict:
    """Decide.

    A single page gets all attempts before it is given up: a worker may have died of something else. Ranges get one
    once they are known to hold a bad page, as their halves are tried anyway. What is read once more without the pages
    that probes found gets all of them again: it is taken for good now, and nothing comes after it.
    """
    if failure.fault is Fault.NOBODY:
        return Verdict.RETRY
    several, by_engine = failure.pages > 1, failure.fault is Fault.ENGINE
    hasty = failure.halved or by_engine
    if failure.stage.is_part:
        if several and (hasty or failure.attempt >= failure.max_attempts):
            return Verdict.BISECT
        return Verdict.RETRY if failure.attempt < failure.max_attempts else Verdict.QUARANTINE
    if several and not failure.halved:
        if by_engine or failure.attempt >= failure.max_attempts:
            return Verdict.PROBE
        return Verdict.RETRY
    if by_engine or failure.attempt >= failure.max_attempts:
        return Verdict.FAIL
    return Verdict.RETRY
