"""How attempts end without a result: again, in halves, without a page, or not at all.

Every function runs inside the caller's transaction.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from docfleet.records import Stage
from docfleet.sharding.cutting import halves
from docfleet.sharding.fairness import SHORT_PAGES, charge
from docfleet.sharding.verdicts import Failure, Fault, Verdict, after
from docfleet.store.sqlite.connection import first
from docfleet.store.sqlite.endings import count, fail_job, settle
from docfleet.store.sqlite.poison import remember_death
from docfleet.store.sqlite.statements import sql
from docfleet.store.sqlite.tallies import tally_attempt


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How patiently a failed shard is treated."""

    max_attempts: int
    #: Seconds that the next attempt waits.
    delay: float
    fault: Fault
    #: Seconds for which a document that killed its worker is remembered; 0 is not at all.
    remember: float = 0.0


def end_attempt(
    connection: sqlite3.Connection, lease: dict[str, object], error: str, retries: Retries, now: float
) -> Verdict | None:
    """End the lease as the verdict says. None: the lease is lost and nothing was done."""
    held = first(connection, "held_shard", **lease)
    if held is None:
        return None
    stage, pages = Stage(held["stage"]), held["last_page"] - held["first_page"] + 1
    excused = held["excused"] + (retries.fault is Fault.NOBODY)
    final = not stage.is_part and bool(held["halved"])
    careful = bool(held["careful"]) and retries.fault is Fault.PROCESS and not final
    verdict = after(
        Failure(
            stage=stage,
            pages=pages,
            attempt=held["attempt"] - excused,
            max_attempts=1 if careful else retries.max_attempts,
            halved=bool(held["halved"]),
            fault=retries.fault,
        )
    )
    if verdict is Verdict.PROBE:
        excused = held["attempt"]
    later = {"not_before": now + retries.delay, "avoid_slot": held["worker_index"]}
    if verdict in (Verdict.RETRY, Verdict.PROBE):
        connection.execute(sql("requeue_shard"), {**lease, **later, "error": error, "excused": excused})
        count(connection, "retries")
    if verdict is Verdict.PROBE:
        connection.execute(sql("wait_for_probes"), {"shard": lease["shard"]})
        _insert_halves(connection, held, Stage.PROBE, later, error)
    elif verdict is Verdict.BISECT:
        connection.execute(sql("drop_shard"), {"shard": lease["shard"]})
        _insert_halves(connection, held, stage, later, error)
        count(connection, "retries")
    elif verdict in (Verdict.QUARANTINE, Verdict.FAIL):
        connection.execute(sql("fail_shard"), {**lease, "error": error, "now": now})
        if verdict is Verdict.FAIL:
            fail_job(connection, held["job"], error, now)
        elif settle(connection, held["job"], now):
            verdict = Verdict.FAIL
    tally_attempt(connection, held["worker_index"], error, _given_up(connection, held, verdict))
    if retries.remember and retries.fault is Fault.PROCESS:
        found = pages == 1 and stage is not Stage.DOCUMENT and verdict in (Verdict.QUARANTINE, Verdict.FAIL)
        page = held["first_page"] if found else None
        remember_death(connection, held["job"], error, now, seconds=retries.remember, page=page)
    return verdict


def pass_shard_on(connection: sqlite3.Connection, lease: dict[str, object], error: str, now: float) -> bool:
    """Queue a shard again, at once, for workers with other engines than the holder's. False: the lease is lost."""
    held = first(connection, "held_shard", **lease)
    if held is None:
        return False
    stage, pages = Stage(held["stage"]), held["last_page"] - held["first_page"] + 1
    refused = first(connection, "refuse", shard=lease["shard"])
    assert refused is not None, "it is held"
    again = {"not_before": now, "avoid_slot": None, "excused": held["excused"] + 1}
    connection.execute(sql("requeue_shard"), {**lease, **again, "error": error})
    # Nothing was done for what the caller was charged, and nothing has begun.
    connection.execute(sql("refund_caller"), {"caller": refused["caller"], "pages": charge(stage, pages)})
    if stage is Stage.WHOLE:
        connection.execute(sql("unstart_job"), {"job": held["job"]})
    return True


def _given_up(connection: sqlite3.Connection, held: sqlite3.Row, verdict: Verdict) -> int:
    """Return how many pages nobody will try again. Those that a probe found count with the rest of their document."""
    if verdict is Verdict.FAIL:
        whole = first(connection, "pages_in_one_piece", job=held["job"])
        if whole is not None:
            return int(whole["pages"])
    if verdict not in (Verdict.FAIL, Verdict.QUARANTINE) or held["stage"] != Stage.PAGES:
        return 0
    return int(held["last_page"] - held["first_page"] + 1)


def _insert_halves(
    connection: sqlite3.Connection, held: sqlite3.Row, stage: Stage, later: dict[str, object], error: str
) -> None:
    common = {
        "job": held["job"],
        "stage": stage.value,
        "turn": held["turn"],
        "error": error,
        "short": SHORT_PAGES,
        **later,
    }
    rows = [
        {**common, "first_page": first_page, "last_page": last_page}
        for first_page, last_page in halves(held["first_page"], held["last_page"])
    ]
    connection.executemany(sql("insert_half"), rows)
