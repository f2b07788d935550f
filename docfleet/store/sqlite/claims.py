"""The worker's side of the store, on SQLite."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from typing import Any

from docfleet.errors import InternalError
from docfleet.records import Claim, ProcessIdentity, ShardPlan, Stage
from docfleet.sharding.fairness import LONG_SECONDS
from docfleet.sharding.verdicts import Fault, Verdict
from docfleet.store.sqlite.connection import first
from docfleet.store.sqlite.endings import deliver, fail_job, is_delivered
from docfleet.store.sqlite.failures import Retries, end_attempt, pass_shard_on
from docfleet.store.sqlite.plans import enter_shards, take_turn
from docfleet.store.sqlite.poison import take_care
from docfleet.store.sqlite.rows import claim_from, lease_values, to_json
from docfleet.store.sqlite.slots import SqliteSlots
from docfleet.store.sqlite.statements import sql
from docfleet.store.sqlite.tallies import Done, tally_attempt, tally_shard

#: Seconds that a failed shard waits for another worker before the one that failed may have it again.
_PATIENCE = 2.0
#: Seconds after its last beat for which a process that is gone may be followed by one that reads the same.
_RESPITE = 30.0
#: Claims from the interactive lane after which the batch lane has one.
BATCH_AFTER = 4
_ANY_LENGTH = math.inf


class SqliteClaims(SqliteSlots):
    """Implements `Claims`.

    Claims and heartbeats may be lost in a power cut, where every lease ends anyway. The attempt is then numbered again
    as before it: what the lost attempt left in its folder must not surprise the next holder.
    """

    def claim(self, owner: ProcessIdentity, slot: int, *, short_first: bool = False) -> Claim | None:
        """Take the next shard of the lane whose turn it is; a document stage once its page stage is done."""
        now = self._clock()
        if not self._rows("anything_claimable", now=now) or self._rows("at_most_held"):
            return None
        with self._writing(durable=False) as connection:
            shard = self._take(connection, owner, slot, now, short_first=short_first)
            if shard is None:
                return None
            begun = connection.execute(sql("start_job"), {"job": shard["job"], "now": now}).rowcount
            job = first(connection, "claimed_job", job=shard["job"], now=now)
            assert job is not None, "shards are removed with their job"
            if begun and job["killed_workers"]:
                take_care(connection, shard["job"], now)
            stage, parts, given_up = Stage(shard["stage"]), [], []
            if stage is Stage.DOCUMENT:
                parts = connection.execute(sql("finished_parts"), {"job": shard["job"]}).fetchall()
            if stage is not Stage.PAGES:
                pages = {"job": shard["job"], "first": shard["first_page"], "last": shard["last_page"]}
                given_up = connection.execute(sql("pages_given_up"), pages).fetchall()
        return claim_from(shard, job, parts, given_up, owner)

    def serving(self) -> int:
        """Return the number of workers that are ready or busy."""
        return int(self._rows("serving")[0]["workers"])

    def limit(self, claim: Claim, seconds: float) -> bool:
        """Set the lease's deadline, `seconds` from now."""
        with self._writing(durable=False) as connection:
            return first(connection, "limit", **_lease(claim), deadline=self._clock() + seconds) is not None

    def split(
        self, claim: Claim, shards: Sequence[ShardPlan], decisions: dict[str, Any], *, reader: str | None = None
    ) -> bool:
        """Replace a held whole shard by page shards and a document shard, all or nothing."""
        with self._writing(durable=False) as connection:
            lease = _lease(claim)
            taken = first(connection, "take_apart", **lease)
            if taken is None:
                return False
            if not any(plan.stage is Stage.PAGES for plan in shards):
                raise InternalError("A shard is cut into page shards and one document shard.")
            values = {**lease, "job": taken["job"], "decisions": to_json(decisions), "reader": reader}
            connection.execute(sql("keep_decisions"), values)
            # What the look at the document was charged is given back: its shards are charged one by one.
            connection.execute(sql("refund_caller"), {"caller": taken["caller"], "pages": taken["pages"]})
            enter_shards(connection, taken["job"], shards, taken["turn"])
        return True

    def keep_whole(self, claim: Claim, seconds: float) -> bool:
        """Record what a whole shard will take; give it back if as many long ones as may are being read."""
        lease = _lease(claim)
        with self._writing(durable=False) as connection:
            held = first(connection, "expect_seconds", **lease, seconds=seconds)
            if held is None:
                return False
            if seconds < LONG_SECONDS or not _is_reserved(connection, but=claim.shard_id):
                return True
            connection.execute(sql("put_back"), {"shard": claim.shard_id})
            connection.execute(sql("refund_caller"), {"caller": held["caller"], "pages": held["pages"]})
            connection.execute(sql("unstart_job"), {"job": held["job"]})
        return False

    def pass_on(self, claim: Claim, error: dict[str, Any]) -> bool:
        """Queue a held shard again for workers with other engines. False: there are none."""
        now = self._clock()
        with self._writing(durable=False) as connection:
            if first(connection, "another_may_read", shard=claim.shard_id, now=now, respite=_RESPITE) is None:
                return False
            return pass_shard_on(connection, _lease(claim), to_json(error), now)

    def stumble(
        self, claim: Claim, error: dict[str, Any], *, max_attempts: int, delay: float = 0.0, fault: Fault = Fault.ENGINE
    ) -> Verdict | None:
        """End an attempt without a result, durably; what comes next depends on shard and attempt."""
        retries = Retries(max_attempts=max_attempts, delay=delay, fault=fault)
        with self._writing(durable=True) as connection:
            return end_attempt(connection, _lease(claim), to_json(error), retries, self._clock())

    def _take(
        self, connection: sqlite3.Connection, owner: ProcessIdentity, slot: int, now: float, *, short_first: bool
    ) -> sqlite3.Row | None:
        if first(connection, "at_most_held") is not None:
            return None
        values = {"pid": owner.pid, "started": owner.started, "slot": slot, "now": now}
        values |= {"patience": _PATIENCE, "respite": _RESPITE, "batch_after": BATCH_AFTER}
        values["longest"] = LONG_SECONDS if _is_reserved(connection) else _ANY_LENGTH
        shard = first(connection, "claim_next", **values, shortness=1) if short_first else None
        if shard is None:
            shard = first(connection, "claim_next", **values, shortness=0)
        # Whoever takes something up has let go of what was taken from it.
        connection.execute(sql("let_go"), {"pid": owner.pid, "started": owner.started})
        if shard is not None:
            take_turn(connection, shard)
        return shard

    def let_go(self, claim: Claim) -> None:
        """Say that the holder of a lost lease has stopped working on it."""
        with self._writing(durable=False) as connection:
            connection.execute(sql("let_go"), {"pid": claim.owner.pid, "started": claim.owner.started})

    def beat(self, claim: Claim, pages_done: int) -> bool:
        """Extend the lease and record progress, which never goes back within an attempt."""
        lease = _lease(claim)
        with self._writing(durable=False) as connection:
            held = first(connection, "beat", **lease, pages_done=pages_done, now=self._clock())
            if held is None:
                return False
            connection.execute(sql("advance_job"), {"job": held["job"]})
        return True

    def complete(self, claim: Claim, *, output: str, report: dict[str, Any]) -> bool:
        """Deliver a shard, durably; the whole or document stage's output and report become the job's."""
        with self._writing(durable=True) as connection:
            return deliver(connection, claim, output=output, report=report, now=self._clock())

    def short_waits(self, claim: Claim, pages_done: int) -> bool:
        """Return whether the holder of page shard `claim` should make room for a short document. Takes no lock."""
        left = claim.last_page - claim.first_page + 1 - pages_done
        values = {"shard": claim.shard_id, "now": self._clock(), "most": min(pages_done, left)}
        return bool(self._rows("short_waits", **values))

    def give_way(self, claim: Claim, pages: int, *, output: str, tier: str = "") -> bool:
        """Deliver the first pages of a page shard, durably, and queue the rest in its old turn."""
        now, rest = self._clock(), claim.last_page - claim.first_page + 1 - pages
        with self._writing(durable=True) as connection:
            values = {**_lease(claim), "pages": pages, "output": output, "now": now}
            shard = first(connection, "deliver_so_far", **values)
            if shard is None:
                return is_delivered(connection, claim, claim.first_page + pages - 1, output)
            connection.execute(sql("queue_rest"), {"shard": claim.shard_id, "last_page": claim.last_page})
            connection.execute(sql("refund_caller"), {"caller": shard["caller"], "pages": rest})
            done = Done(
                slot=shard["worker_index"],
                stage=Stage.PAGES.value,
                claimed_at=shard["claimed_at"],
                pages=pages,
                tier=tier,
            )
            tally_shard(connection, done, now)
            connection.execute(sql("advance_job"), {"job": shard["job"]})
        return True

    def fail(self, claim: Claim, error: dict[str, Any]) -> bool:
        """End a shard and its job with an error, durably; the job's other shards end too."""
        told, now = to_json(error), self._clock()
        with self._writing(durable=True) as connection:
            shard = first(connection, "fail_shard", **_lease(claim), error=told, now=now)
            if shard is None:
                return False
            given_up = shard["pages"] if shard["stage"] in (Stage.PAGES, Stage.WHOLE) else 0
            tally_attempt(connection, shard["worker_index"], told, given_up)
            fail_job(connection, shard["job"], told, now)
        return True


def _is_reserved(connection: sqlite3.Connection, but: int = 0) -> bool:
    """Return whether the last worker is left to short work, shard `but` aside. One that is alone has no choice."""
    long = first(connection, "long_ones", long=LONG_SECONDS, but=but)
    assert long is not None, "an aggregate has a row"
    return bool(long["workers"] > 1 and long["held"] >= long["workers"] - 1)


def _lease(claim: Claim) -> dict[str, object]:
    return lease_values(claim.shard_id, claim.attempt, claim.owner)
