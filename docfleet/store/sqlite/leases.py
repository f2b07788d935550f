"""The supervisor's side of the store, on SQLite."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from docfleet.records import Shard
from docfleet.sharding.verdicts import Fault
from docfleet.store.sqlite.failures import Retries, end_attempt
from docfleet.store.sqlite.jobs import SqliteJobs
from docfleet.store.sqlite.rows import id_list, lease_values, shard_from, to_json
from docfleet.store.sqlite.slots import SqliteSlots
from docfleet.store.sqlite.statements import sql


class SqliteLeases(SqliteJobs, SqliteSlots):
    """Implements `Leases`."""

    def prove_writable(self) -> None:
        """Write the time: SQLite leaves a page alone to which the same is written again."""
        with self._writing(durable=False) as connection:
            connection.execute(sql("prove_writable"), {"moment": time.time_ns()})

    def leases(self) -> list[Shard]:
        """Return every shard that a worker holds."""
        return [shard_from(row) for row in self._rows("leases")]

    def give_back(
        self,
        shard: Shard,
        *,
        cause: dict[str, Any],
        max_attempts: int,
        delay: float = 0.0,
        fault: Fault = Fault.PROCESS,
        remember: float = 0.0,
    ) -> bool:
        """End a lease: queue the shard again with `cause` as its error; after `max_attempts` halve it or fail."""
        if shard.owner is None:
            return False
        lease = lease_values(shard.id, shard.attempt, shard.owner)
        retries = Retries(max_attempts=max_attempts, delay=delay, fault=fault, remember=remember)
        with self._writing(durable=True) as connection:
            return end_attempt(connection, lease, to_json(cause), retries, self._clock()) is not None

    def finished_before(self, moment: float, limit: int) -> list[str]:
        """Return ids of at most `limit` jobs that ended before `moment`, oldest first."""
        return [row["id"] for row in self._rows("finished_before", moment=moment, limit=limit)]

    def known(self, job_ids: Iterable[str]) -> set[str]:
        """Return those of the ids that exist."""
        return {row["id"] for row in self._rows("known", ids=id_list(job_ids))}
