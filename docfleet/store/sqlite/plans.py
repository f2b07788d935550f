"""Enter the shards of a document, each with its turn, for its caller. Runs inside the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from docfleet.records import Lane, ShardPlan, Stage
from docfleet.sharding.cutting import turns
from docfleet.sharding.fairness import SHORT_PAGES, arrival_pages, charge
from docfleet.store.sqlite.connection import first
from docfleet.store.sqlite.rows import text
from docfleet.store.sqlite.statements import sql


@dataclass(frozen=True)
class CallerRow:
    """A caller in its lane."""

    id: int
    #: The turn of its shard that was claimed last.
    clock: int


def enter_caller(connection: sqlite3.Connection, lane: Lane, name: str, pages: int) -> CallerRow:
    """Return the caller, about to send a document of so many pages; one with nothing under way begins anew."""
    row = first(connection, "enter_caller", lane=lane.value, caller=text(name), pages=arrival_pages(pages))
    assert row is not None, "inserted or updated"
    return CallerRow(int(row["id"]), int(row["clock"]))


def take_turn(connection: sqlite3.Connection, shard: sqlite3.Row) -> None:
    """Move the clocks on for a shard that was just claimed, and forget callers whose state says nothing any more."""
    pages = charge(Stage(shard["stage"]), shard["last_page"] - shard["first_page"] + 1)
    charged = first(connection, "charge_caller", caller=shard["caller"], pages=pages, turn=shard["turn"])
    assert charged is not None, "a caller with work under way is not forgotten"
    connection.execute(sql("advance_lanes"), {"lane": shard["lane"], "served_at": charged["served_at"]})
    connection.execute(sql("forget_callers"), {"lane": shard["lane"]})


def enter_shards(connection: sqlite3.Connection, job: int, plans: Sequence[ShardPlan], since: int) -> None:
    """Insert the shards into the lane of their job; their turns count from `since`."""
    plans = sorted(plans, key=lambda plan: plan.first_page)
    rows = [
        {
            "job": job,
            "stage": plan.stage.value,
            "first_page": plan.first_page,
            "last_page": plan.last_page,
            "ready": int(plan.stage is not Stage.DOCUMENT),
            "turn": turn,
            "seconds": plan.seconds,
            "short": SHORT_PAGES,
        }
        for plan, turn in zip(plans, turns(plans, since), strict=True)
    ]
    connection.executemany(sql("insert_shard"), rows)
