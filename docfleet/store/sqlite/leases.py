"""The supervisor's side of the store, on SQLite."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from docfleet.records import ProcessIdentity, Shard
from docfleet.store.sqlite.connection import first
from docfleet.store.sqlite.endings import count, fail_job
from docfleet.store.sqlite.jobs import SqliteJobs
from docfleet.store.sqlite.rows import id_list, lease_values, shard_from, text, to_json
from docfleet.store.sqlite.statements import sql


class SqliteLeases(SqliteJobs):
    """Implements `Leases`."""

    def leases(self) -> list[Shard]:
        """Return every shard that a worker holds."""
        return [shard_from(row) for row in self._rows("leases")]

    def give_back(self, shard: Shard, *, cause: dict[str, Any], max_attempts: int) -> bool:
        """End a lease: queue the shard again with `cause` as its error, or fail its job after `max_attempts`."""
        if shard.owner is None:
            return False
        lease, told, now = lease_values(shard.id, shard.attempt, shard.owner), to_json(cause), self._clock()
        with self._writing(durable=True) as connection:
            if shard.attempt < max_attempts:
                ended = first(connection, "requeue_shard", **lease, error=told)
                if ended is not None:
                    count(connection, "retries")
            else:
                ended = first(connection, "fail_shard", **lease, error=told, now=now)
                if ended is not None:
                    fail_job(connection, ended["job"], told, now)
        return ended is not None

    def retire(self, slot: int, identity: ProcessIdentity, detail: str) -> None:
        """Mark the slot's worker as gone, unless a newer process has taken the slot."""
        values = {"slot": slot, "pid": identity.pid, "started": identity.started, "detail": text(detail)}
        with self._writing(durable=False) as connection:
            connection.execute(sql("retire"), values)

    def finished_before(self, moment: float, limit: int) -> list[str]:
        """Return ids of at most `limit` jobs that ended before `moment`, oldest first."""
        return [row["id"] for row in self._rows("finished_before", moment=moment, limit=limit)]

    def known(self, job_ids: Iterable[str]) -> set[str]:
        """Return those of the ids that exist."""
        return {row["id"] for row in self._rows("known", ids=id_list(job_ids))}
