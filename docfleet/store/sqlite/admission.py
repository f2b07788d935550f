"""Taking jobs in, on SQLite: the bound, the key and the job itself in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import replace

from docfleet.errors import InternalError
from docfleet.options import ParseOptions
from docfleet.records import Document, Job, JobState, ShardPlan, Stage
from docfleet.store.admission import Backlog, Terms, refusal
from docfleet.store.sqlite.connection import Database, first
from docfleet.store.sqlite.endings import count
from docfleet.store.sqlite.keys import job_of_key, keep_key
from docfleet.store.sqlite.plans import enter_caller, enter_shards
from docfleet.store.sqlite.poison import enter_last
from docfleet.store.sqlite.reuse import follow
from docfleet.store.sqlite.rows import text
from docfleet.store.sqlite.speed import recent_speeds
from docfleet.store.sqlite.statements import sql


class SqliteAdmission(Database):
    """The part of `Jobs` that takes jobs in."""

    def accept(
        self,
        job_id: str,
        document: Document,
        options: ParseOptions,
        shards: Sequence[ShardPlan],
        terms: Terms = Terms(),  # noqa: B008 (frozen)
        *,
        reuse_key: str | None = None,
        engines: Collection[str] = (),
    ) -> Job:
        """Enter a job and its shards, durably; or return the job that the key in `terms` stands for.

        Args:
            job_id: fresh.
            document: as it lies on disk.
            options: kept whole, so that later defaults do not change an accepted job.
            shards: one `whole` shard, or `pages` shards and one `document` shard over all of them.
            terms: lane, bounds, key.
            reuse_key: jobs of one key want the same result; None: this one is on its own.
            engines: fingerprints of the workers whose stored results will do.

        Raises:
            InternalError: the shards are none of both, or the id is taken.
            KeyReused: the key was sent before with something else.
            Busy: over the bounds; nothing was entered.
        """
        _check_plan(shards)
        document = replace(document, filename=text(document.filename))
        wanted = sum(plan.pages for plan in shards if plan.stage is not Stage.DOCUMENT)
        now = self._clock()
        columns: dict[str, object] = {"filename": document.filename, "suffix": document.suffix, "size": document.size}
        columns |= {"sha256": document.sha256, "pages": document.pages, "options": options.model_dump_json()}
        columns |= {"lane": terms.lane.value, "wanted": wanted, "kept": int(terms.kept)}
        with self._writing(durable=True) as connection:
            if earlier := job_of_key(connection, terms, now):
                return earlier
            if terms.limits is not None and (busy := refusal(_backlog(connection, now), terms.limits, wanted)):
                raise busy
            caller = enter_caller(connection, terms.lane, terms.caller, shards[0].pages)
            columns |= {"id": job_id, "now": now, "caller": caller.id}
            number = connection.execute(sql("insert_job"), columns).lastrowid
            assert number is not None, "an insert gives the row a number"
            enter_shards(connection, number, shards, caller.clock)
            if reuse_key is not None:
                follow(connection, number, reuse_key, engines)
            enter_last(connection, number, now)
            keep_key(connection, number, terms, now)
        return Job(
            id=job_id, state=JobState.QUEUED, document=document, options=options, created_at=now, lane=terms.lane
        )

    def backlog(self) -> Backlog:
        """Return the work at hand. One row is read, however much there is."""
        with self._reading() as connection:
            return _backlog(connection, self._clock())

    def knows_key(self, key: str) -> bool:
        """Return whether the key stands for a job."""
        return bool(self._rows("keyed", key=key, now=self._clock()))

    def keep(self, job_id: str) -> None:
        """Let the job go on even if the caller who sent it leaves: others know its address."""
        with self._writing(durable=False) as connection:
            connection.execute(sql("keep_job"), {"id": job_id})

    def count_refused(self, number: int) -> None:
        """Count documents that were not taken because there was too much to do."""
        with self._writing(durable=False) as connection:
            count(connection, "refused", number)


def _backlog(connection: sqlite3.Connection, now: float) -> Backlog:
    row = first(connection, "backlog")
    assert row is not None, "the schema puts it there"
    speeds = recent_speeds(connection, int(now))
    return Backlog(jobs=row["jobs"], pages=row["pages"], pages_per_second=sum(speeds.values()))


def _check_plan(shards: Sequence[ShardPlan]) -> None:
    stages = [plan.stage for plan in shards]
    cut = stages.count(Stage.DOCUMENT) == 1 and stages.count(Stage.PAGES) == len(stages) - 1 >= 1
    if stages != [Stage.WHOLE] and not cut:
        raise InternalError(
            f"A job needs one whole shard, or page shards and one document shard; not {[str(s) for s in stages]}."
        )
