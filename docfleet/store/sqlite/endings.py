"""How shards and jobs end. Every function runs inside the caller's transaction."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from docfleet.errors import code_of
from docfleet.records import Claim, JobState, Stage
from docfleet.store.sqlite.connection import first
from docfleet.store.sqlite.poison import acquit
from docfleet.store.sqlite.rows import lease_values, to_json
from docfleet.store.sqlite.statements import sql
from docfleet.store.sqlite.tallies import Done, count_event, tally_shard
from docfleet.store.tallies import Event


def deliver(connection: sqlite3.Connection, claim: Claim, *, output: str, report: dict[str, Any], now: float) -> bool:
    """End a shard with its result; with the document stage ends the job. False: the lease is lost."""
    told = to_json(report)
    lease = lease_values(claim.shard_id, claim.attempt, claim.owner)
    shard = first(connection, "finish_shard", **lease, output=output, report=told, now=now)
    if shard is None:
        return is_delivered(connection, claim, claim.last_page, output)
    job, stage, pages = shard["job"], Stage(shard["stage"]), shard["pages"]
    failed = len(report.get("failed_pages") or ())
    done = Done(
        slot=shard["worker_index"],
        stage=stage.value,
        claimed_at=shard["claimed_at"],
        pages=pages,
        pages_failed=failed,
        tier=str(report.get("tier", "")),
    )
    tally_shard(connection, done, now)
    if stage.is_part:
        connection.execute(sql("advance_job"), {"job": job})
        settle(connection, job, now)
        return True
    state = JobState.PARTIAL if failed else JobState.COMPLETED
    values = {"state": state.value, "pages": pages, "output": output, "report": told, "now": now, "job": job}
    connection.execute(sql("finish_job"), values)
    if state is JobState.COMPLETED:
        acquit(connection, job)
    count(connection, state.value)
    count(connection, "pages", max(0, pages - failed))
    return True


def is_delivered(connection: sqlite3.Connection, claim: Claim, last_page: int, output: str) -> bool:
    """Return whether the holder of the lease has delivered its shard up to `last_page` with this very output."""
    lease = lease_values(claim.shard_id, claim.attempt, claim.owner)
    return first(connection, "delivered", **lease, last_page=last_page, output=output) is not None


def settle(connection: sqlite3.Connection, job: int, now: float) -> bool:
    """Let the job's last stage begin if all its parts have ended; fail the job if not one could be read.

    Where probes found no page to leave out, the whole is tried once more, too: whatever killed it may be gone.

    Returns:
        Whether the job failed.
    """
    parts = first(connection, "parts_so_far", job=job)
    assert parts is not None, "it counts"
    if parts["open"]:
        return False
    if parts["done"]:
        connection.execute(sql("ready_last_stage"), {"job": job})
        return False
    last = first(connection, "last_error", job=job)
    assert last is not None, "a part that failed has an error"
    fail_job(connection, job, last["error"], now)
    return True


def fail_job(connection: sqlite3.Connection, job: int, error: str, now: float) -> None:
    """End a job without a result; its other shards end with it, and whoever holds one loses the lease."""
    values = {"job": job, "error": error, "now": now}
    connection.execute(sql("fail_siblings"), values)
    connection.execute(sql("fail_job"), values)
    count(connection, JobState.FAILED.value)
    count_event(connection, Event.JOB_FAILED, code_of(json.loads(error)))


def count(connection: sqlite3.Connection, name: str, increase: int = 1) -> None:
    """Raise one of the counters that outlive the jobs."""
    connection.execute(sql("count"), {"name": name, "increase": increase})
