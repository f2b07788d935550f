"""The doors' side of the store, on SQLite."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from docfleet.errors import InternalError
from docfleet.options import ParseOptions
from docfleet.records import Document, Job, JobState, Shard, ShardPlan, Stage, WorkerReport
from docfleet.store.interface import Totals
from docfleet.store.sqlite.connection import Database
from docfleet.store.sqlite.endings import SPEED_WINDOW
from docfleet.store.sqlite.plans import enter_shards
from docfleet.store.sqlite.reuse import follow
from docfleet.store.sqlite.rows import id_list, job_from, shard_from, text, worker_from
from docfleet.store.sqlite.statements import sql


class SqliteJobs(Database):
    """Implements `Jobs`."""

    def accept(
        self,
        job_id: str,
        document: Document,
        options: ParseOptions,
        shards: Sequence[ShardPlan],
        *,
        reuse_key: str | None = None,
        engines: Collection[str] = (),
    ) -> Job:
        """Enter a job and its shards, durably.

        Args:
            job_id: fresh.
            document: as it lies on disk.
            options: kept whole, so that later defaults do not change an accepted job.
            shards: one `whole` shard, or `pages` shards and one `document` shard over all of them.
            reuse_key: jobs of one key want the same result; None: this one is on its own.
            engines: fingerprints of the workers whose stored results will do.

        Raises:
            InternalError: the shards are none of both, or the id is taken.
        """
        _check_plan(shards)
        document = replace(document, filename=text(document.filename))
        now = self._clock()
        columns = {"filename": document.filename, "suffix": document.suffix, "size": document.size}
        columns |= {"sha256": document.sha256, "pages": document.pages, "options": options.model_dump_json()}
        with self._writing(durable=True) as connection:
            number = connection.execute(sql("insert_job"), {"id": job_id, "now": now, **columns}).lastrowid
            assert number is not None, "an insert gives the row a number"
            enter_shards(connection, number, shards)
            if reuse_key is not None:
                follow(connection, number, reuse_key, engines)
        return Job(id=job_id, state=JobState.QUEUED, document=document, options=options, created_at=now)

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
        (row,) = self._rows("totals", since=now - SPEED_WINDOW, now=now)
        values = dict(row)
        return Totals(pages_per_second=values.pop("recent_pages") / SPEED_WINDOW, **values)

    def workers(self) -> list[WorkerReport]:
        """Return the newest report of every slot, in order."""
        return [worker_from(row) for row in self._rows("workers")]

    def remove(self, job_id: str) -> None:
        """Forget a job and its shards, durably: its files may go when this returns. Leases on it are lost."""
        with self._writing(durable=True) as connection:
            connection.execute(sql("remove"), {"id": job_id})


def _check_plan(shards: Sequence[ShardPlan]) -> None:
    stages = [plan.stage for plan in shards]
    cut = stages.count(Stage.DOCUMENT) == 1 and stages.count(Stage.PAGES) == len(stages) - 1 >= 1
    if stages != [Stage.WHOLE] and not cut:
        raise InternalError(
            f"A job needs one whole shard, or page shards and one document shard; not {[str(s) for s in stages]}."
        )
