"""Enter the shards of a document, each with its turn. Runs inside the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from docfleet.records import Lane, ShardPlan, Stage
from docfleet.sharding.cutting import turns
from docfleet.store.sqlite.connection import first
from docfleet.store.sqlite.statements import sql


def clock_of(connection: sqlite3.Connection, lane: Lane) -> int:
    """Return where the lane's clock stands: at the turn of the shard that was claimed from it last."""
    row = first(connection, "clock_of_lane", lane=lane.value)
    assert row is not None, "the migration put it there"
    return int(row["clock"])


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
        }
        for plan, turn in zip(plans, turns(plans, since), strict=True)
    ]
    connection.executemany(sql("insert_shard"), rows)
