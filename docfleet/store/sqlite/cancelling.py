"""Stopping work, on SQLite."""

from __future__ import annotations

from typing import Any

from docfleet.records import JobState, ProcessIdentity, Revocation
from docfleet.store.sqlite.connection import Database, first
from docfleet.store.sqlite.endings import count
from docfleet.store.sqlite.rows import to_json
from docfleet.store.sqlite.statements import sql


class SqliteCancelling(Database):
    """The parts of `Jobs` and `Leases` that stop work."""

    def cancel(self, job_id: str, error: dict[str, Any], *, even_kept: bool = True) -> bool:
        """End an unfinished job, durably; leases on it are lost and remembered until their holders have let go."""
        told, now = to_json(error), self._clock()
        with self._writing(durable=True) as connection:
            ended = first(connection, "cancel_job", id=job_id, error=told, now=now, even_kept=even_kept)
            if ended is None:
                if not even_kept:
                    connection.execute(sql("caller_left"), {"id": job_id})
                return False
            connection.execute(sql("revoke"), {"id": job_id, "now": now})
            connection.execute(sql("fail_siblings"), {"job": ended["number"], "error": told, "now": now})
            connection.execute(sql("forget_keys_of_job"), {"job": ended["number"]})
            count(connection, JobState.CANCELLED.value)
        return True

    def unwanted(self) -> list[str]:
        """Return unfinished jobs whose callers left and whose result nobody waits for any more."""
        return [row["id"] for row in self._rows("unwanted")]

    def remove(self, job_id: str) -> None:
        """Forget a job and its shards, durably: its files may go when this returns. Leases on it are lost."""
        with self._writing(durable=True) as connection:
            connection.execute(sql("revoke"), {"id": job_id, "now": self._clock()})
            connection.execute(sql("remove"), {"id": job_id})

    def revoked(self) -> list[Revocation]:
        """Return the leases whose holders may still be at work, oldest first."""
        return [
            Revocation(
                shard_id=row["shard"],
                job_id=row["job_id"],
                owner=ProcessIdentity(pid=row["owner_pid"], started=row["owner_started"]),
                slot=row["slot"],
                since=row["since"],
                let_go=bool(row["let_go"]),
            )
            for row in self._rows("revoked")
        ]

    def forget_revoked(self, shard_id: int) -> None:
        """Forget a lease that nobody works on any more."""
        with self._writing(durable=False) as connection:
            connection.execute(sql("forget_revoked"), {"shard": shard_id})
