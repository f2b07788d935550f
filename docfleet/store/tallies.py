"""Counts that outlive jobs, workers and the server: what was done where, how long it took, what went wrong.

Each is written in the transaction that does what it counts, so a kill at any moment neither loses one nor counts twice.
Ends of processes alone are no part of a transaction: they are counted right after, and never twice.
Labels are words of the program's own (devices of the plan, tiers, stages, error codes): there is a bounded number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

#: Upper bounds, in seconds, between which the durations of shards are counted. The database holds places in this row:
#: a change needs a step of the schema.
SHARD_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Event(StrEnum):
    """What is counted by kind."""

    #: A job ended without a result; kind: the code of its error.
    JOB_FAILED = "job_failed"
    #: A worker process ended; kind: "status_<n>", or the name of the signal.
    WORKER_EXIT = "worker_exit"
    #: The supervisor killed a worker; kind: silent, deadline, memory, cancelled.
    WORKER_KILL = "worker_kill"
    #: A worker left to be replaced; kind: documents, hours, memory, weights.
    WORKER_RECYCLED = "worker_recycled"


@dataclass(frozen=True, kw_only=True)
class DeviceTally:
    """What was done on one device."""

    #: "cpu", "cuda:0"; empty: by a worker that nothing is known of.
    device: str
    #: Pieces delivered: ranges of pages, whole documents, document stages, probes.
    shards_done: int = 0
    #: Attempts at a piece that ended without a result.
    shards_failed: int = 0
    #: Pages read and delivered.
    pages_done: int = 0
    #: Pages read of pieces that are not delivered yet; they count as done then, or are read again.
    pages_under_way: int = 0
    #: Pages given up there.
    pages_failed: int = 0
    #: Over the last minute, or the part of it in which there was work.
    pages_per_second: float = 0.0


@dataclass(frozen=True, kw_only=True)
class DurationTally:
    """How long pieces of one tier and stage took, from the claim to the delivery."""

    tier: str
    stage: str
    #: Pieces between each two bounds of `SHARD_SECONDS`, and beyond the last: one number more than there are bounds.
    counts: tuple[int, ...]
    #: Of all of them together.
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Tallies:
    """All of them, since the data folder was made."""

    devices: tuple[DeviceTally, ...] = ()
    durations: tuple[DurationTally, ...] = ()
    #: Attempts that ended without a result, by the code of the error.
    failures: Mapping[str, int]
    #: By event, then by kind.
    events: Mapping[Event, Mapping[str, int]]


class Tallying(Protocol):
    """What is asked of a store."""

    def tallies(self) -> Tallies:
        """Return all counts. Costs the same however much was done."""
        ...

    def count_event(self, event: Event, kind: str) -> None:
        """Count an event. Lost in a power cut at worst."""
        ...
