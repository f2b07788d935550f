"""Documents that killed workers, on SQLite. The functions run inside the caller's transaction."""

from __future__ import annotations

import json
import sqlite3

from docfleet.options import ParseOptions
from docfleet.records import FailedPage
from docfleet.store.poison import MOST, SUSPICIOUS, Remembered, cause_of_leaving_out, way_of
from docfleet.store.sqlite.connection import Database, first
from docfleet.store.sqlite.rows import to_json
from docfleet.store.sqlite.statements import sql


class SqlitePoison(Database):
    """Implements `docfleet.store.poison.Poison`."""

    def remembered(self) -> list[Remembered]:
        """Return what is remembered, what was added last first."""
        rows = self._rows("poison", now=self._clock(), limit=MOST)
        return [
            Remembered(
                sha256=row["sha256"],
                filename=row["filename"],
                options=json.loads(row["way"]),
                deaths=row["deaths"],
                cause=_message(row["error"]),
                pages=tuple(
                    FailedPage(page=page["page"], cause=_message(page["error"]))
                    for page in self._rows("poisoned_pages", sha256=row["sha256"], way=row["way"])
                ),
                since=row["since"],
                until=row["until"],
            )
            for row in rows
        ]

    def forget(self, sha256: str | None) -> int:
        """Forget a document, or all of them, durably."""
        with self._writing(durable=True) as connection:
            return connection.execute(sql("forget_poison"), {"sha256": sha256}).rowcount

    def forget_expired(self) -> None:
        """Remove what is over its time."""
        with self._writing(durable=False) as connection:
            connection.execute(sql("forget_expired_poison"), {"now": self._clock()})


def remember_death(
    connection: sqlite3.Connection, job: int, error: str, now: float, *, seconds: float, page: int | None
) -> None:
    """Remember that an attempt at the job ended with its worker.

    Args:
        connection: in a transaction.
        job: its number.
        error: `DocfleetError.record()` of the death, JSON.
        now: seconds since the epoch.
        seconds: for how long.
        page: the page that was given up for it; None if it is not known yet.
    """
    row = first(connection, "read_as", job=job)
    assert row is not None, "shards are removed with their job"
    connection.execute(sql("forget_expired_poison"), {"now": now})
    key = {"sha256": row["sha256"], "way": way_of(ParseOptions.model_validate_json(row["options"]))}
    values = {**key, "filename": row["filename"], "error": error, "now": now, "until": now + seconds}
    death = first(connection, "remember_death", **values)
    assert death is not None, "an upsert returns its row"
    if death["deaths"] >= SUSPICIOUS:
        if page is not None:
            connection.execute(sql("remember_page"), {**key, "page": page, "error": error})
        _put_last(connection, row["sha256"])


def enter_last(connection: sqlite3.Connection, job: int, now: float) -> None:
    """Put a job that was just entered behind all that wait, if its document has killed workers."""
    row = _suspicion(connection, job, now)
    if row is not None:
        _put_last(connection, row["sha256"])


def take_care(connection: sqlite3.Connection, job: int, now: float) -> None:
    """Decide how a job is treated that begins now, for all its life: its parts must agree on the pages left out."""
    row = _suspicion(connection, job, now)
    if row is None:
        return
    connection.execute(sql("be_careful"), {"job": job})
    pages = connection.execute(sql("poisoned_pages"), {"sha256": row["sha256"], "way": row["way"]}).fetchall()
    for page in pages:
        error = to_json(cause_of_leaving_out(json.loads(page["error"]), row["sha256"], row["until"]))
        connection.execute(sql("leave_out"), {"job": job, "page": page["page"], "error": error, "now": now})


def acquit(connection: sqlite3.Connection, job: int) -> None:
    """Forget the document of a job that was completed, if that was all of it."""
    for row in connection.execute(sql("acquitted"), {"job": job}).fetchall():
        if row["way"] == way_of(ParseOptions.model_validate_json(row["options"])):
            connection.execute(sql("acquit"), {"sha256": row["sha256"], "way": row["way"]})


def _put_last(connection: sqlite3.Connection, sha256: str) -> None:
    """Let whatever waits in the lane go before the document, whoever sent it.

    It becomes a caller of its own for that, with all that it was cut into and all that is identical: its turn is among
    those of all callers, and what else its sender has sent keeps the sender's.
    """
    rows = connection.execute(sql("same_document"), {"sha256": sha256}).fetchall()
    numbers = json.dumps([row["number"] for row in rows])
    for lane in sorted({row["lane"] for row in rows}):
        values = {"lane": lane, "caller": f"document {sha256}", "jobs": numbers}
        caller = first(connection, "enter_last_caller", **values)
        assert caller is not None, "an upsert returns its row"
        for row in rows:
            if row["lane"] != lane or row["caller"] == caller["id"]:
                continue
            move = {"job": row["number"], "caller": caller["id"]}
            connection.execute(sql("leave_caller"), {"job": row["number"]})
            connection.execute(sql("come_to_caller"), {"caller": caller["id"]})
            connection.execute(sql("move_job"), move)
            connection.execute(sql("move_shards"), move)


def _suspicion(connection: sqlite3.Connection, job: int, now: float) -> sqlite3.Row | None:
    for row in connection.execute(sql("poison_of_job"), {"job": job, "now": now}).fetchall():
        if row["deaths"] >= SUSPICIOUS and row["way"] == way_of(ParseOptions.model_validate_json(row["options"])):
            found: sqlite3.Row = row
            return found
    return None


def _message(error: str) -> str:
    return str(json.loads(error).get("message", ""))
