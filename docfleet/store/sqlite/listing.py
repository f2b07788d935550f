"""Looking at jobs, on SQLite: lists, progress, places in the queue."""

from __future__ import annotations

from collections.abc import Iterable

from docfleet.records import Job, JobState
from docfleet.store.admission import JobFilter, JobProgress, QueuePlace
from docfleet.store.sqlite.connection import Database, first
from docfleet.store.sqlite.rows import id_list, job_from, text, to_json
from docfleet.store.sqlite.statements import sql


class SqliteListing(Database):
    """The part of `Jobs` that people look through."""

    def listed(self, wanted: JobFilter, *, limit: int, before: int | None = None) -> tuple[list[Job], int | None]:
        """Return the newest jobs that fit, without reports, and where to go on; None at the end."""
        states = to_json([state.value for state in wanted.states]) if wanted.states else None
        values: dict[str, object] = {"before": before, "states": states, "limit": limit + 1}
        values["filename"] = None if wanted.filename is None else text(wanted.filename)
        values |= {"created_after": wanted.created_after, "created_before": wanted.created_before}
        rows = self._rows("list_jobs", **values)
        shown = rows[:limit]
        return [job_from(row) for row in shown], shown[-1]["number"] if len(rows) > limit else None

    def progress(self, job_ids: Iterable[str]) -> dict[str, JobProgress]:
        """Return how far each job is that exists."""
        return {
            row["id"]: JobProgress(state=JobState(row["state"]), pages_done=row["pages_done"], pages=row["wanted"])
            for row in self._rows("progress", ids=id_list(job_ids))
        }

    def place(self, job_id: str) -> QueuePlace:
        """Return where an unfinished job stands."""
        with self._reading() as connection:
            # One moment for all three: the queue moves.
            connection.execute("BEGIN")
            try:
                in_hand = connection.execute(sql("ahead_in_hand"), {"id": job_id}).fetchone()
                ahead = first(connection, "ahead_in_queue", id=job_id)
            finally:
                connection.execute("COMMIT")
        if ahead is None or not ahead["waits"]:
            return QueuePlace(position=None, pages_ahead=0)
        return QueuePlace(position=ahead["jobs"], pages_ahead=ahead["pages"] + in_hand["pages"])
