"""What a caller's Idempotency-Key stands for. Every function runs inside the caller's transaction."""

from __future__ import annotations

import sqlite3

from docfleet.errors import KeyReused
from docfleet.records import Job
from docfleet.store.admission import Terms
from docfleet.store.sqlite.connection import first
from docfleet.store.sqlite.rows import job_from
from docfleet.store.sqlite.statements import sql


def job_of_key(connection: sqlite3.Connection, terms: Terms, now: float) -> Job | None:
    """Return the job that the terms' key stands for; None where there is none, or no key.

    Raises:
        KeyReused: the key was sent before with something else.
    """
    if terms.key is None:
        return None
    connection.execute(sql("forget_keys"), {"now": now})
    row = first(connection, "job_of_key", key=terms.key)
    if row is None:
        return None
    if row["fingerprint"] != terms.fingerprint:
        raise KeyReused(
            "This Idempotency-Key was sent before with another document or other options. Send a new key with a new "
            "document."
        )
    # Two requests know of it now: whoever leaves first must not stop it for the other, who may not wait for it yet.
    connection.execute(sql("keep_job"), {"id": row["id"]})
    return job_from(row)


def keep_key(connection: sqlite3.Connection, job: int, terms: Terms, now: float) -> None:
    """Let the terms' key, if they have one, stand for the job."""
    if terms.key is not None:
        values = {"key": terms.key, "job": job, "fingerprint": terms.fingerprint}
        connection.execute(sql("insert_key"), {**values, "expires_at": now + terms.key_seconds})
