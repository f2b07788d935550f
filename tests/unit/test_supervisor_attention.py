"""Silence and deadlines are judged by what the supervisor saw, not by clocks that somebody may set."""

from __future__ import annotations

from dataclasses import replace

from docfleet.records import ProcessIdentity, Shard, ShardState, Stage
from docfleet.supervisor.attention import Attention

OWNER = ProcessIdentity(pid=100, started=1)


class Scene:
    """A worker that beats or does not, both clocks, and a supervisor that looks twice a second."""

    def __init__(self) -> None:
        self.now, self.wall = 50.0, 1000.0
        self.attention = Attention(8.0, clock=lambda: self.now, wall=lambda: self.wall)
        self.shard = Shard(
            id=1,
            job_id="x",
            sha256="",
            stage=Stage.WHOLE,
            first_page=0,
            last_page=0,
            state=ShardState.RUNNING,
            attempt=1,
            owner=OWNER,
            claimed_at=1000.0,
            heartbeat_at=1000.0,
            deadline_at=1030.0,
        )
        self.look()

    def look(self) -> None:
        assert self.shard.deadline_at is not None
        self.attention.look([(self.shard, self.shard.deadline_at)])

    def passes(self, seconds: float, *, beats: bool = False, writable: bool = True) -> None:
        for _ in range(round(seconds * 2)):
            self.now, self.wall = self.now + 0.5, self.wall + 0.5
            if beats:
                self.shard = replace(self.shard, heartbeat_at=self.wall)
            if writable:
                self.look()
            else:
                self.attention.blind()

    @property
    def silent(self) -> float:
        return self.attention.silent(self.shard)

    @property
    def late(self) -> bool:
        return self.attention.late(self.shard)


def test_a_worker_that_hangs_is_silent_and_one_that_takes_too_long_is_late() -> None:
    scene = Scene()
    scene.passes(5, beats=True)
    assert (scene.silent, scene.late) == (0, False)
    scene.passes(9)
    assert (scene.silent, scene.late) == (9, False)
    scene.passes(17, beats=True)
    assert (scene.silent, scene.late) == (0, True)


def test_a_deadline_that_is_set_anew_counts_from_then() -> None:
    scene = Scene()
    scene.passes(29, beats=True)
    scene.shard = replace(scene.shard, deadline_at=scene.wall + 10)
    scene.passes(9, beats=True)
    assert not scene.late
    scene.passes(2, beats=True)
    assert scene.late


def test_a_clock_that_is_set_makes_nobody_silent_or_late() -> None:
    for jump in (-7200, 7200):
        scene = Scene()
        scene.wall += jump
        scene.passes(2)
        assert (scene.silent, scene.late) == (2, False)
        scene.passes(1, beats=True)
        assert (scene.silent, scene.late) == (0, False)


def test_what_the_supervisor_slept_through_does_not_count() -> None:
    scene = Scene()
    scene.now, scene.wall = scene.now + 600, scene.wall + 600
    scene.look()
    assert scene.silent < 3
    assert not scene.late


def test_while_nothing_can_be_written_nobody_is_judged_and_then_all_begin_anew() -> None:
    scene = Scene()
    scene.passes(29, beats=True)
    # It would be late by the end of this, but could not have said that it is done.
    scene.passes(120, writable=False)
    scene.look()
    assert scene.silent <= 0.5
    scene.passes(7)
    assert (scene.silent <= 8, scene.late) == (True, False)
    scene.passes(2)
    assert scene.silent > 8
    assert scene.late
