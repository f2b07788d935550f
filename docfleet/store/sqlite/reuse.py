"""Results that serve other jobs, and the turn to be replaced, on SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import replace

from docfleet.options import ParseOptions
from docfleet.records import Document, Job, ProcessIdentity
from docfleet.store.admission import Terms
from docfleet.store.reuse import Follower
from docfleet.store.sqlite.connection import Database, first
from docfleet.store.sqlite.endings import count
from docfleet.store.sqlite.keys import job_of_key, keep_key
from docfleet.store.sqlite.rows import document_from, id_list, job_from, text
from docfleet.store.sqlite.statements import sql
from docfleet.store.sqlite.tallies import count_event
from docfleet.store.tallies import Event

#: Seconds after which a worker that left counts as replaced, whatever became of it.
RECYCLING_PATIENCE = 600.0


class SqliteReuse(Database):
    """Implements `Reusing`, `Shelved`, `Recycling` and `Sizes`."""

    def known_documents(self, sha256: str, engines: Collection[str]) -> list[Document]:
        """Return what is known of documents of these bytes."""
        rows = self._rows("known_documents", sha256=sha256, engines=id_list(engines))
        return [document_from(row) for row in rows]

    def reusable(self, key: str, engines: Collection[str]) -> Job | None:
        """Return the newest job with that key whose result any of the engines made."""
        rows = self._rows("reusable", key=key, engines=id_list(engines))
        return job_from(rows[0]) if rows else None

    def serve(
        self,
        job_id: str,
        filename: str,
        options: ParseOptions,
        source: Job,
        output: str,
        terms: Terms = Terms(),  # noqa: B008 (frozen)
    ) -> Job | None:
        """Enter a job that is completed at once with the result of another; or return the key's job."""
        now, named = self._clock(), text(filename)
        values = {"id": job_id, "filename": named, "options": options.model_dump_json(), "now": now}
        values |= {"lane": terms.lane.value, "source": source.id, "output": output}
        with self._writing(durable=terms.remembered) as connection:
            if earlier := job_of_key(connection, terms, now):
                return earlier
            entered = connection.execute(sql("insert_served"), values)
            if entered.rowcount != 1 or entered.lastrowid is None:
                return None
            keep_key(connection, entered.lastrowid, terms, now)
            count(connection, "completed")
            count(connection, "cached")
        document = replace(source.document, filename=named)
        return replace(
            source,
            id=job_id,
            document=document,
            options=options,
            output=output,
            cached=True,
            lane=terms.lane,
            created_at=now,
            started_at=now,
            finished_at=now,
        )

    def followers_due(self, limit: int) -> list[Follower]:
        """Return followers whose leader has delivered, in the order of arrival."""
        return [
            Follower(
                id=row["follower"],
                leader=row["leader"],
                output=row["output"],
                files=tuple((json.loads(row["report"] or "{}")).get("files", ())),
            )
            for row in self._rows("followers_due", limit=limit)
        ]

    def finish_followers(self, outputs: Iterable[tuple[Follower, str]]) -> set[str]:
        """End followers with their leader's report, durably. Return the ids of those that ended so."""
        ended, now = set(), self._clock()
        with self._writing(durable=True) as connection:
            for one, output in outputs:
                values = {"follower": one.id, "leader": one.leader, "output": output, "now": now}
                job = first(connection, "finish_follower", **values)
                if job is not None:
                    connection.execute(sql("drop_shards"), {"job": job["number"]})
                    count(connection, job["state"])
                    count(connection, "cached")
                    ended.add(one.id)
        return ended

    def forget_result(self, job_id: str) -> None:
        """Serve nobody with an ended job's result any more; the schema's triggers promote a follower."""
        with self._writing(durable=True) as connection:
            connection.execute(sql("forget_result"), {"id": job_id})

    def shared_documents(self, digests: Collection[str]) -> set[str]:
        """Return those digests of which there is a job that shares what is made of it."""
        return {row["sha256"] for row in self._rows("shared_documents", digests=id_list(digests))}

    def unmeasured(self, limit: int) -> list[str]:
        """Return ids of ended jobs whose size is not known."""
        return [row["id"] for row in self._rows("unmeasured", limit=limit)]

    def record_sizes(self, sizes: Iterable[tuple[str, int]]) -> None:
        """Record measured sizes in bytes; lost in a power cut, they are measured again."""
        with self._writing(durable=False) as connection:
            connection.executemany(sql("record_size"), [{"id": job, "bytes": size} for job, size in sizes])

    def stored_bytes(self) -> int:
        """Return what all measured jobs weigh together."""
        return int(self._rows("stored_bytes")[0]["bytes"])

    def oldest_ended(self, limit: int) -> list[tuple[str, int]]:
        """Return ids and bytes of ended jobs that hold files, those that ended first first."""
        return [(row["id"], row["bytes"]) for row in self._rows("oldest_ended", limit=limit)]

    def may_recycle(self, owner: ProcessIdentity, slot: int, reason: str = "other") -> bool:
        """Take the turn to be replaced, unless another has it. Counts it."""
        now = self._clock()
        values = {"slot": slot, "pid": owner.pid, "started": owner.started, "now": now}
        with self._writing(durable=False) as connection:
            granted = first(connection, "recycle", **values, expired=now - RECYCLING_PATIENCE) is not None
            if granted:
                count(connection, "recycled")
                count_event(connection, Event.WORKER_RECYCLED, reason)
        return granted


def follow(connection: sqlite3.Connection, job: int, key: str, engines: Collection[str]) -> None:
    """Let a job that was just entered wait for another's result, if there is one or one in the making.

    Nobody waits longer for that: whose turn comes before the other's is parsed for both.
    """
    row = first(connection, "follow", job=job, key=key, engines=id_list(engines))
    if row is None or row["follows"] is None:
        return
    leader = int(row["follows"])
    if _overtakes(connection, job, leader):
        connection.execute(sql("take_lead"), {"job": job, "leader": leader})
        job = leader
    connection.execute(sql("hold_back"), {"job": job})


def _overtakes(connection: sqlite3.Connection, job: int, leader: int) -> bool:
    """Return whether a newcomer's turn comes before anything of its leader is begun."""
    if first(connection, "untouched", job=leader) is None:
        return False
    sooner = first(connection, "first_of_two", job=job, leader=leader)
    return sooner is not None and sooner["job"] == job
