"""Counts that outlive jobs, workers and the server, on SQLite. The functions run inside the caller's transaction."""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass

from docfleet.errors import code_of
from docfleet.options import Tier
from docfleet.store.sqlite.connection import Database
from docfleet.store.sqlite.speed import recent_speeds, record_speed
from docfleet.store.sqlite.statements import sql
from docfleet.store.tallies import SHARD_SECONDS, DeviceTally, DurationTally, Event, Tallies

_TIERS = frozenset(tier.value for tier in Tier)
_EVENTS = frozenset(event.value for event in Event)


class SqliteTallies(Database):
    """Implements `docfleet.store.tallies.Tallying`."""

    def tallies(self) -> Tallies:
        """Return all counts; there are as many rows as devices, tiers and codes make, whatever was done."""
        now = int(self._clock())
        with self._reading() as connection:
            under_way = connection.execute(sql("pages_under_way")).fetchall()
            shards = connection.execute(sql("shard_tallies")).fetchall()
            attempts = connection.execute(sql("attempt_tallies")).fetchall()
            events = connection.execute(sql("events")).fetchall()
            speeds = recent_speeds(connection, now)
        failures: Counter[str] = Counter()
        for row in attempts:
            failures[row["code"]] += row["attempts"]
        counted: dict[Event, dict[str, int]] = {event: {} for event in Event}
        for row in events:
            # A later version may have counted what this one does not know.
            if row["name"] in _EVENTS:
                counted[Event(row["name"])][row["kind"]] = row["value"]
        return Tallies(
            devices=_devices(shards, attempts, under_way, speeds),
            durations=_durations(shards),
            failures=dict(failures),
            events=counted,
        )

    def count_event(self, event: Event, kind: str) -> None:
        """Count an event."""
        with self._writing(durable=False) as connection:
            count_event(connection, event, kind)


@dataclass(frozen=True, kw_only=True)
class Done:
    """A piece that was just delivered."""

    slot: int | None
    stage: str
    claimed_at: float | None
    #: Pages in its range, and those of them that were left out of the result.
    pages: int
    pages_failed: int = 0
    #: Empty where the worker did not say.
    tier: str = ""


def tally_shard(connection: sqlite3.Connection, done: Done, now: float) -> None:
    """Count a piece that was just delivered; pages count where they are read."""
    seconds = max(0.0, now - (now if done.claimed_at is None else done.claimed_at))
    reads = done.stage in ("pages", "whole")
    values = {
        "slot": done.slot,
        "tier": done.tier if done.tier in _TIERS else "",
        "stage": done.stage,
        "bucket": bisect_left(SHARD_SECONDS, seconds),
        "pages": max(0, done.pages - done.pages_failed) if reads else 0,
        "pages_failed": done.pages_failed if reads else 0,
        "seconds": seconds,
    }
    connection.execute(sql("tally_shard"), values)
    if reads:
        record_speed(connection, done.pages, done.claimed_at, now, done.slot)


def tally_attempt(connection: sqlite3.Connection, slot: int | None, error: str, pages: int) -> None:
    """Count an attempt that ended without a result.

    Args:
        connection: in a transaction.
        slot: whose worker held the piece.
        error: `DocfleetError.record()`, JSON.
        pages: given up with it.
    """
    values = {"slot": slot, "code": code_of(json.loads(error)), "pages": pages}
    connection.execute(sql("tally_attempt"), values)


def count_event(connection: sqlite3.Connection, event: Event, kind: str) -> None:
    """Count an event."""
    connection.execute(sql("count_event"), {"name": event.value, "kind": kind, "increase": 1})


def _devices(
    shards: list[sqlite3.Row], attempts: list[sqlite3.Row], under_way: list[sqlite3.Row], speeds: dict[str, float]
) -> tuple[DeviceTally, ...]:
    done: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in shards:
        counts = {"shards_done": row["shards"], "pages_done": row["pages"], "pages_failed": row["pages_failed"]}
        done[row["device"]].update(counts)
    for row in attempts:
        done[row["device"]].update({"shards_failed": row["attempts"], "pages_failed": row["pages"]})
    for row in under_way:
        done[row["device"]].update({"pages_under_way": row["pages"]})
    # Pages of the schema before this one are known by their moment alone.
    named = sorted(set(done) | set(speeds))
    return tuple(DeviceTally(device=name, pages_per_second=speeds.get(name, 0.0), **done[name]) for name in named)


def _durations(shards: list[sqlite3.Row]) -> tuple[DurationTally, ...]:
    counts: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0] * (len(SHARD_SECONDS) + 1))
    seconds: Counter[tuple[str, str]] = Counter()
    for row in shards:
        key = (row["tier"], row["stage"])
        counts[key][row["bucket"]] += row["shards"]
        seconds[key] += row["seconds"]
    return tuple(
        DurationTally(tier=tier, stage=stage, counts=tuple(counts[tier, stage]), seconds=seconds[tier, stage])
        for tier, stage in sorted(counts)
    )
