"""Enter the shards of a document, each with its turn. Runs inside the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from docfleet.records import ShardPlan, Stage
from docfleet.sharding.cutting import turns
from docfleet.store.sqlite.connection import first
from docfleet.store.sqlite.statements import sql


def enter_shards(
    connection: sqlite3.Connection, job: int, plans: Sequence[ShardPlan], since: int | None = None
) -> None:
    """Insert the shards; their turns count from `since`, or from the queue's clock as it stands."""
    if since is None:
        clock = first(connection, "turn")
        assert clock is not None, "the migration put it there"
        since = int(clock["value"])
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
