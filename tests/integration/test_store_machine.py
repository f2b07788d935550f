"""Jobs and shards under any order of events, compared step by step with a model of a few lines."""

from __future__ import annotations

import itertools
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from docfleet.records import Claim, JobState, Lane, ProcessIdentity, ShardPlan, ShardState, Stage
from docfleet.store.admission import Terms
from docfleet.store.sqlite import open_store
from docfleet.store.sqlite.claims import BATCH_AFTER
from tests.integration.store_house import LOST, accept, accept_cut, report

MAX_ATTEMPTS = 3
CALLERS = st.sampled_from(["", "one", "other"])
WORKERS = tuple(ProcessIdentity(pid=pid, started=1) for pid in (1, 2, 3))


@dataclass
class ModelShard:
    stage: Stage
    first: int
    pages: int
    turn: int
    state: ShardState = ShardState.QUEUED
    attempt: int = 0
    owner: ProcessIdentity | None = None
    pages_done: int = 0
    output: str | None = None
    halved: bool = False
    #: Attempts before its pages were probed.
    uncounted: int = 0

    @property
    def part(self) -> bool:
        return self.stage in (Stage.PAGES, Stage.PROBE)

    @property
    def ended(self) -> bool:
        return self.state in (ShardState.DONE, ShardState.FAILED)


@dataclass
class ModelJob:
    shards: list[ModelShard]
    lane: Lane = Lane.INTERACTIVE
    caller: str = ""
    state: JobState = JobState.QUEUED
    pages_done: int = 0
    output: str | None = None

    def claimable(self) -> list[ModelShard]:
        parts_ended = all(shard.ended for shard in self.shards if shard.part)
        return [shard for shard in self.shards if shard.state is ShardState.QUEUED and (shard.part or parts_ended)]

    def given_up(self) -> list[int]:
        return sorted({shard.first for shard in self.shards if shard.part and shard.state is ShardState.FAILED})

    def advance(self) -> None:
        done = sum(shard.pages_done for shard in self.shards if shard.stage in (Stage.PAGES, Stage.WHOLE))
        self.pages_done = max(self.pages_done, done)

    def fail(self, state: JobState = JobState.FAILED) -> None:
        self.state = state
        for shard in self.shards:
            if shard.state in (ShardState.QUEUED, ShardState.RUNNING):
                shard.state = ShardState.FAILED


@dataclass
class Counts:
    completed: int = 0
    partial: int = 0
    failed: int = 0
    cancelled: int = 0
    pages: int = 0
    retries: int = 0


@dataclass
class ModelCaller:
    turn: int
    clock: int = 0


@dataclass
class Model:
    #: In the order of arrival.
    jobs: dict[str, ModelJob] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    clocks: dict[Lane, int] = field(default_factory=lambda: dict.fromkeys(Lane, 0))
    #: In the order in which they came, too.
    callers: dict[tuple[Lane, str], ModelCaller] = field(default_factory=dict)
    #: Claims from the interactive lane since the last from the other.
    streak: int = 0

    def busy(self, lane: Lane | None = None, caller: str | None = None) -> bool:
        open_jobs = (job for job in self.jobs.values() if not job.state.final)
        return any(lane in (None, job.lane) and caller in (None, job.caller) for job in open_jobs)

    def forget(self) -> None:
        """When nobody has work under way, everybody is forgotten."""
        if not self.busy():
            self.callers.clear()

    def arrive(self, lane: Lane, name: str, pages: int) -> int:
        """Return the clock of the caller, from which the turns of its shards count."""
        caller = self.callers.setdefault((lane, name), ModelCaller(0))
        begins = self.clocks[lane] + (0 if self.busy(lane, name) else pages)
        caller.turn = max(caller.turn, begins)
        return caller.clock

    def next(self) -> tuple[str, ModelShard] | None:
        """The shard whose turn it is, by the rules that the interface tells."""
        ranks = {key: place for place, key in enumerate(self.callers)}
        waiting = [
            ((job.lane, job.caller), shard.turn, place, job_id, shard)
            for place, (job_id, job) in enumerate(self.jobs.items())
            for shard in job.claimable()
        ]
        first = Lane.BATCH if self.streak >= BATCH_AFTER else Lane.INTERACTIVE
        waiting.sort(
            key=lambda entry: (entry[0][0] is not first, self.callers[entry[0]].turn, ranks[entry[0]], *entry[1:3])
        )
        for key, turn, _, job_id, shard in waiting:
            lane, caller = key[0], self.callers[key]
            self.clocks[lane] = max(self.clocks[lane], caller.turn)
            caller.turn = self.clocks[lane] + (0 if shard.stage is Stage.DOCUMENT else shard.pages)
            caller.clock = max(caller.clock, turn)
            self.streak = self.streak + 1 if lane is Lane.INTERACTIVE else 0
            for other in [other for other in self.callers if other[0] is lane and not self.busy(*other)]:
                if self.callers[other].turn <= self.clocks[lane]:
                    del self.callers[other]
            return job_id, shard
        return None

    def held(self, claim: Claim, shard_ids: dict[int, ModelShard]) -> ModelShard | None:
        shard = shard_ids.get(claim.shard_id)
        if claim.job_id not in self.jobs or shard is None or shard.state is not ShardState.RUNNING:
            return None
        return shard if (shard.attempt, shard.owner) == (claim.attempt, claim.owner) else None

    def delivered(self, claim: Claim, pages: int, output: str, shard_ids: dict[int, ModelShard]) -> bool:
        """Whether the holder has delivered this before, and may say it again."""
        shard = shard_ids.get(claim.shard_id)
        if claim.job_id not in self.jobs or shard is None or shard.state is not ShardState.DONE:
            return False
        told = (claim.attempt, claim.owner, pages, output)
        return (shard.attempt, shard.owner, shard.pages, shard.output) == told


def cut_shards(sizes: list[int], turn: int) -> list[ModelShard]:
    ends = list(itertools.accumulate(sizes))
    parts = [ModelShard(Stage.PAGES, end - size, size, turn + end) for size, end in zip(sizes, ends, strict=True)]
    return [*parts, ModelShard(Stage.DOCUMENT, 0, ends[-1], turn)]


class StoreMachine(RuleBasedStateMachine):
    """Every rule does one thing to the store and to the model; every invariant compares them."""

    jobs = Bundle("jobs")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = path = Path(self.folder.name) / "docfleet.db"
        # The doors and the workers of the server are different processes: two handles.
        self.doors, self.worker = open_store(path), open_store(path)
        self.model = Model()
        self.by_id: dict[int, ModelShard] = {}

    def teardown(self) -> None:
        self.doors.close()
        self.worker.close()
        self.folder.cleanup()

    def _enter(self, job_id: str, shards: list[ModelShard], lane: Lane, caller: str) -> str:
        self.model.jobs[job_id] = ModelJob(shards, lane, caller)
        self.by_id |= dict(zip((shard.id for shard in self.doors.shards(job_id)), shards, strict=True))
        return job_id

    @rule(target=jobs, pages=st.integers(1, 4), lane=st.sampled_from(Lane), caller=CALLERS)
    def accept_whole(self, pages: int, lane: Lane, caller: str) -> str:
        shard = ModelShard(Stage.WHOLE, 0, pages, self.model.arrive(lane, caller, pages) + pages)
        terms = Terms(lane=lane, caller=caller)
        return self._enter(accept(self.doors, pages=pages, terms=terms).id, [shard], lane, caller)

    @rule(target=jobs, sizes=st.lists(st.integers(1, 3), min_size=1, max_size=3), caller=CALLERS)
    def accept_cut(self, sizes: list[int], caller: str) -> str:
        starts = [sum(sizes[:index]) for index in range(len(sizes))]
        ranges = ((start, start + size - 1) for start, size in zip(starts, sizes, strict=True))
        lane, terms = Lane.INTERACTIVE, Terms(caller=caller)
        clock = self.model.arrive(lane, caller, sizes[0])
        return self._enter(accept_cut(self.doors, *ranges, terms=terms).id, cut_shards(sizes, clock), lane, caller)

    @rule(target=claims, owner=st.sampled_from(WORKERS))
    def claim(self, owner: ProcessIdentity):
        claim = self.worker.claim(owner, owner.pid)
        expected = self.model.next()
        if expected is None:
            assert claim is None
            return multiple()
        job_id, shard = expected
        assert claim is not None
        assert claim.job_id == job_id
        assert self.by_id[claim.shard_id] is shard
        job = self.model.jobs[job_id]
        if job.state is JobState.QUEUED:
            job.state = JobState.RUNNING
        shard.state, shard.owner, shard.pages_done = ShardState.RUNNING, owner, 0
        shard.attempt += 1
        assert claim.attempt == shard.attempt
        assert [page.page for page in claim.failed_pages] == ([] if shard.part else job.given_up())
        parts = [part.output for part in job.shards if part.stage is Stage.PAGES and part.state is ShardState.DONE]
        assert claim.parts == (tuple(parts) if shard.stage is Stage.DOCUMENT else ())
        return claim

    @rule(claim=claims, pages=st.integers(0, 10))
    def beat(self, claim: Claim, pages: int) -> None:
        shard = self.model.held(claim, self.by_id)
        assert self.worker.beat(claim, pages) is (shard is not None)
        if shard is not None:
            shard.pages_done = max(shard.pages_done, min(pages, shard.pages))
            self.model.jobs[claim.job_id].advance()

    @rule(claim=claims, pages=st.integers(0, 3))
    def make_room(self, claim: Claim, pages: int) -> None:
        shard = self.model.held(claim, self.by_id)
        cut = shard is not None and shard.stage is Stage.PAGES and 0 < pages < shard.pages
        output = f"{claim.shard_id}-{claim.attempt}"
        again = self.model.delivered(claim, pages, output, self.by_id)
        assert self.worker.give_way(claim, pages, output=output) is (cut or again)
        if shard is None or not cut:
            return
        job, rest = self.model.jobs[claim.job_id], shard.pages - pages
        job.shards.append(ModelShard(Stage.PAGES, shard.first + pages, rest, shard.turn, halved=shard.halved))
        shard.state, shard.output, shard.pages, shard.pages_done = ShardState.DONE, output, pages, pages
        self.model.callers[job.lane, job.caller].turn -= rest
        job.advance()
        self._learn(claim.job_id)

    @rule(claim=claims, failed=st.integers(0, 1))
    def complete(self, claim: Claim, failed: int) -> None:
        shard = self.model.held(claim, self.by_id)
        output = f"{claim.shard_id}-{claim.attempt}"
        told = report(1, *range(failed))
        again = self.model.delivered(claim, claim.last_page - claim.first_page + 1, output, self.by_id)
        assert self.worker.complete(claim, output=output, report=told) is (shard is not None or again)
        if shard is None:
            return
        job, counts = self.model.jobs[claim.job_id], self.model.counts
        shard.state, shard.output, shard.pages_done = ShardState.DONE, output, shard.pages
        job.advance()
        if not shard.part:
            job.output = output
            job.state = JobState.PARTIAL if failed else JobState.COMPLETED
            counts.partial += failed
            counts.completed += 1 - failed
            counts.pages += shard.pages - failed

    @rule(claim=claims)
    def fail(self, claim: Claim) -> None:
        shard = self.model.held(claim, self.by_id)
        assert self.worker.fail(claim, LOST) is (shard is not None)
        if shard is not None:
            self.model.jobs[claim.job_id].fail()
            self.model.counts.failed += 1

    @rule(claim=claims, sizes=st.lists(st.integers(1, 2), min_size=2, max_size=2))
    def cut(self, claim: Claim, sizes: list[int]) -> None:
        shard = self.model.held(claim, self.by_id)
        cuttable = shard is not None and shard.stage is Stage.WHOLE and not shard.halved
        plans = [ShardPlan(stage=Stage.PAGES, first_page=0, last_page=sizes[0] - 1)]
        plans += [ShardPlan(stage=Stage.PAGES, first_page=sizes[0], last_page=sum(sizes) - 1)]
        plans += [ShardPlan(stage=Stage.DOCUMENT, first_page=0, last_page=sum(sizes) - 1)]
        if cuttable and shard.pages != sum(sizes):
            return
        assert self.worker.split(claim, plans, {"page": 1}) is cuttable
        if cuttable:
            shard.state = ShardState.DONE
            job = self.model.jobs[claim.job_id]
            self.model.callers[job.lane, job.caller].turn -= shard.pages
            self.model.jobs[claim.job_id].shards = cut_shards(sizes, shard.turn)
            self._learn(claim.job_id)

    @rule(claim=claims, seconds=st.sampled_from([0.0, 100.0]))
    def read_in_one_piece(self, claim: Claim, seconds: float) -> None:
        shard = self.model.held(claim, self.by_id)
        # No worker has announced itself: none is kept for short work.
        assert self.worker.keep_whole(claim, seconds) is (shard is not None and shard.stage is Stage.WHOLE)

    @rule(claim=claims)
    def engine_gives_up(self, claim: Claim) -> None:
        shard = self.model.held(claim, self.by_id)
        verdict = self.worker.stumble(claim, LOST, max_attempts=MAX_ATTEMPTS)
        assert (verdict is None) is (shard is None)
        if shard is not None:
            self._lose(claim.job_id, shard, by_engine=True)

    @rule(pick=st.integers(0, 5))
    def worker_dies(self, pick: int) -> None:
        leases = self.doors.leases()
        if not leases:
            return
        lease = leases[pick % len(leases)]
        assert self.doors.give_back(lease, cause=LOST, max_attempts=MAX_ATTEMPTS)
        assert not self.doors.give_back(lease, cause=LOST, max_attempts=MAX_ATTEMPTS)
        self._lose(lease.job_id, self.by_id[lease.id], by_engine=False)

    def _lose(self, job_id: str, shard: ModelShard, *, by_engine: bool) -> None:
        """The rules in other words than the code's: what is left of the attempts, and of the pages."""
        job = self.model.jobs[job_id]
        last = shard.attempt - shard.uncounted >= MAX_ATTEMPTS
        again = ShardState.QUEUED
        if shard.part and shard.pages > 1 and (last or shard.halved or by_engine):
            job.shards.remove(shard)
            # Whoever still holds the claim holds nothing.
            shard.state = ShardState.FAILED
            self._halve(job_id, shard, shard.stage)
        elif shard.part and last:
            shard.state = ShardState.FAILED
            parts = [part for part in job.shards if part.part]
            if all(part.state is ShardState.FAILED for part in parts):
                job.fail()
                self.model.counts.failed += 1
            return
        elif not shard.part and shard.pages > 1 and not shard.halved and (last or by_engine):
            shard.state, shard.owner, shard.pages_done, shard.halved = again, None, 0, True
            shard.uncounted = shard.attempt
            self._halve(job_id, shard, Stage.PROBE)
        elif not shard.part and (last or by_engine):
            job.fail()
            self.model.counts.failed += 1
            return
        else:
            shard.state, shard.owner, shard.pages_done = again, None, 0
        self.model.counts.retries += 1

    def _halve(self, job_id: str, shard: ModelShard, stage: Stage) -> None:
        front = (shard.pages + 1) // 2
        middle = shard.first + front
        halves = [ModelShard(stage, shard.first, front, shard.turn, halved=True)]
        halves.append(ModelShard(stage, middle, shard.pages - front, shard.turn, halved=True))
        self.model.jobs[job_id].shards += halves
        self._learn(job_id)

    def _learn(self, job_id: str) -> None:
        """Match the store's new shards with the model's, by stage and pages."""
        shards = self.model.jobs[job_id].shards
        shards.sort(key=lambda shard: (shard.stage is Stage.DOCUMENT, shard.first, shard.pages))
        for found in self.doors.shards(job_id):
            wanted = (found.stage, found.first_page, found.last_page - found.first_page + 1)
            (match,) = [shard for shard in shards if (shard.stage, shard.first, shard.pages) == wanted]
            assert self.by_id.setdefault(found.id, match) is match

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        job = self.model.jobs.get(job_id)
        unfinished = job is not None and not job.state.final
        assert self.doors.cancel(job_id, LOST) is unfinished
        if job is not None and unfinished:
            job.fail(JobState.CANCELLED)
            self.model.counts.cancelled += 1

    @rule(job_id=jobs)
    def remove(self, job_id: str) -> None:
        self.doors.remove(job_id)
        self.model.jobs.pop(job_id, None)

    @invariant()
    def the_store_agrees_with_the_model(self) -> None:
        for job_id, expected in self.model.jobs.items():
            job = self.doors.job(job_id)
            assert job is not None
            assert (job.state, job.pages_done, job.output) == (expected.state, expected.pages_done, expected.output)
            assert (job.finished_at is not None) is job.state.final
            found = [(s.stage, s.state, s.attempt, s.output) for s in self.doors.shards(job_id)]
            assert found == [(s.stage, s.state, s.attempt, s.output) for s in expected.shards]

    @invariant()
    def callers_are_known_while_they_have_work_under_way_and_not_for_long_after(self) -> None:
        self.model.forget()
        assert _callers(self.path) == {key: (one.turn, one.clock) for key, one in self.model.callers.items()}

    @invariant()
    def the_totals_agree(self) -> None:
        totals, counts = self.doors.totals(), self.model.counts
        found = Counts(totals.completed, totals.partial, totals.failed, totals.cancelled, totals.pages, totals.retries)
        assert found == counts
        unfinished = [job for job in self.model.jobs.values() if not job.state.final]
        counted = (Stage.PAGES, Stage.WHOLE)
        wanted = [sum(shard.pages for shard in job.shards if shard.stage in counted) for job in unfinished]
        left = [max(0, pages - job.pages_done) for pages, job in zip(wanted, unfinished, strict=True)]
        assert (totals.backlog_jobs, totals.backlog_pages) == (len(unfinished), sum(left))
        states = [job.state for job in self.model.jobs.values()]
        assert totals.queued_jobs == states.count(JobState.QUEUED)
        assert totals.running_jobs == states.count(JobState.RUNNING)
        assert totals.queued_pages == sum(
            shard.pages
            for job in self.model.jobs.values()
            for shard in job.shards
            if shard.state is ShardState.QUEUED
            and (shard.stage is Stage.PAGES or shard in job.claimable())
            and shard.stage in (Stage.PAGES, Stage.WHOLE)
        )

    @invariant()
    def leases_are_of_live_jobs_only(self) -> None:
        running = [
            shard for job in self.model.jobs.values() for shard in job.shards if shard.state is ShardState.RUNNING
        ]
        found = [self.by_id[lease.id] for lease in self.doors.leases()]
        assert len(found) == len(running)
        assert all(any(lease is shard for shard in running) for lease in found)


def _callers(path: Path) -> dict[tuple[Lane, str], tuple[int, int]]:
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT lane, name, turn, clock FROM callers").fetchall()
    return {(Lane(lane), name): (turn, clock) for lane, name, turn, clock in rows}


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
