"""The doors' side of the store, on SQLite."""

from __future__ import annotations

from collections.abc import Iterable

from docfleet.records import Job, JobState, Shard, Stage, WorkerReport
from docfleet.store.interface import Totals
from docfleet.store.sqlite.admission import SqliteAdmission
from docfleet.store.sqlite.cancelling import SqliteCancelling
from docfleet.store.sqlite.listing import SqliteListing
from docfleet.store.sqlite.rows import id_list, job_from, shard_from, worker_from
from docfleet.store.sqlite.speed import SPEED_WINDOW, recent_pages
from docfleet.store.sqlite.statements import sql


class SqliteJobs(SqliteAdmission, SqliteListing, SqliteCancelling):
    """Implements `Jobs`."""

    def job(self, job_id: str) -> Job | None:
        """Return the job, or None."""
        rows = self._rows("job", id=job_id)
        return job_from(rows[0]) if rows else None

    def states(self, job_ids: Iterable[str]) -> dict[str, JobState]:
        """Return the state of each job that exists."""
        return {row["id"]: JobState(row["state"]) for row in self._rows("states", ids=id_list(job_ids))}

    def shards(self, job_id: str) -> list[Shard]:
        """Return a job's shards, in page order, the document stage last."""
        shards = [shard_from(row) for row in self._rows("shards", id=job_id)]
        return sorted(shards, key=lambda shard: shard.stage is Stage.DOCUMENT)

    def totals(self) -> Totals:
        """Return counts of everything so far and of the work at hand."""
        now = int(self._clock())
        with self._reading() as connection:
            row = connection.execute(sql("totals")).fetchone()
            pages, _ = recent_pages(connection, now)
        return Totals(pages_per_second=sum(pages.values()) / SPEED_WINDOW, **row)

    def workers(self) -> list[WorkerReport]:
        """Return the newest report of every slot, in order."""
        return [worker_from(row) for row in self._rows("workers")]
