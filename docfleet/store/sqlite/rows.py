"""Records to columns and back. JSON columns are ASCII, so that no text of the outside can be refused."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from docfleet.options import ParseOptions
from docfleet.records import (
    Claim,
    Document,
    FailedPage,
    Job,
    JobState,
    Lane,
    ProcessIdentity,
    Shard,
    ShardState,
    Stage,
    WorkerReport,
    WorkerState,
)


def text(value: str) -> str:
    """Return the text without halves of surrogate pairs, which UTF-8 and so the database cannot hold."""
    return value.encode("utf-8", "replace").decode("utf-8")


def to_json(value: dict[str, Any] | list[str]) -> str:
    """Return a JSON column."""
    return json.dumps(value, separators=(",", ":"))


def id_list(ids: Iterable[str]) -> str:
    """Return ids as the one JSON array that the queries unpack."""
    return to_json(list(ids))


def job_from(row: sqlite3.Row) -> Job:
    """Read a row of `jobs`."""
    return Job(
        id=row["id"],
        state=JobState(row["state"]),
        document=document_from(row),
        options=ParseOptions.model_validate_json(row["options"]),
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        pages_done=row["pages_done"],
        output=row["output"],
        report=_from_json(row["report"]),
        error=_from_json(row["error"]),
        cached=bool(row["cached"]),
        lane=Lane(row["lane"]),
    )


def shard_from(row: sqlite3.Row) -> Shard:
    """Read a row of `shards`, with `job_id` and `sha256` beside it."""
    owner = row["owner_pid"]
    return Shard(
        id=row["id"],
        job_id=row["job_id"],
        sha256=row["sha256"],
        stage=Stage(row["stage"]),
        first_page=row["first_page"],
        last_page=row["last_page"],
        state=ShardState(row["state"]),
        attempt=row["attempt"],
        pages_done=row["pages_done"],
        owner=None if owner is None else ProcessIdentity(pid=owner, started=row["owner_started"]),
        worker_index=row["worker_index"],
        claimed_at=row["claimed_at"],
        heartbeat_at=row["heartbeat_at"],
        finished_at=row["finished_at"],
        deadline_at=row["deadline_at"],
        output=row["output"],
        error=_from_json(row["error"]),
    )


def claim_from(
    shard: sqlite3.Row,
    job: sqlite3.Row,
    parts: Iterable[sqlite3.Row],
    given_up: Iterable[sqlite3.Row],
    owner: ProcessIdentity,
) -> Claim:
    """Put a claim together from the rows of its shard, its job, its finished parts and its pages given up."""
    return Claim(
        shard_id=shard["id"],
        attempt=shard["attempt"],
        owner=owner,
        stage=Stage(shard["stage"]),
        first_page=shard["first_page"],
        last_page=shard["last_page"],
        job_id=job["job_id"],
        document=document_from(job),
        options=ParseOptions.model_validate_json(job["options"]),
        parts=tuple(part["output"] for part in parts),
        failed_pages=tuple(FailedPage(page=row["first_page"], cause=_cause(row["error"])) for row in given_up),
        decisions=_from_json(job["decisions"]) or {},
        reader=job["reader"],
    )


def worker_from(row: sqlite3.Row) -> WorkerReport:
    """Read a row of `workers`."""
    return WorkerReport(
        slot=row["slot"],
        identity=ProcessIdentity(pid=row["pid"], started=row["started"]),
        device=row["device"],
        state=WorkerState(row["state"]),
        detail=row["detail"],
        heartbeat_at=row["heartbeat_at"],
        started_at=row["started_at"],
        shard_id=row["shard_id"],
        documents_done=row["documents_done"],
        pages_done=row["pages_done"],
        rss=row["rss"],
        engines=row["engines"],
        ended=bool(row["ended"]),
        crashes=row["crashes"],
        retry_at=row["retry_at"],
        exit_status=row["exit_status"],
    )


def worker_values(report: WorkerReport, now: float) -> dict[str, object]:
    """Return the columns of `workers`."""
    return {
        "slot": report.slot,
        "pid": report.identity.pid,
        "started": report.identity.started,
        "device": text(report.device),
        "state": report.state.value,
        "detail": text(report.detail),
        "heartbeat_at": report.heartbeat_at or now,
        "started_at": report.started_at,
        "shard_id": report.shard_id,
        "documents_done": report.documents_done,
        "pages_done": report.pages_done,
        "rss": report.rss,
        "engines": report.engines,
        "retry_at": report.retry_at,
    }


def lease_values(shard_id: int, attempt: int, owner: ProcessIdentity) -> dict[str, object]:
    """Return what the queries compare to tell whether a lease still holds."""
    return {"shard": shard_id, "attempt": attempt, "pid": owner.pid, "started": owner.started}


def document_from(row: sqlite3.Row) -> Document:
    """Read what a row of `jobs` says of the document."""
    return Document(
        filename=row["filename"], suffix=row["suffix"], size=row["size"], sha256=row["sha256"], pages=row["pages"]
    )


def _cause(error: str | None) -> str:
    return str((_from_json(error) or {}).get("message", ""))


def _from_json(column: str | None) -> dict[str, Any] | None:
    if column is None:
        return None
    value: dict[str, Any] = json.loads(column)
    return value
