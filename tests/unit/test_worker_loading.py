"""A worker whose engines do not load, and one whose engines loaded in part."""

from __future__ import annotations

import weakref
from typing import Any, cast

import pytest

from docfleet.errors import OutOfDeviceMemory
from docfleet.records import ProcessIdentity, WorkerReport, WorkerState
from docfleet.worker import recycling, rounds
from docfleet.worker.heart import Heart
from docfleet.worker.recycling import Recycler, RecyclingLimits, Shortage
from docfleet.worker.rounds import load_with_patience


class Told:
    """Stands in for a heart."""

    def __init__(self) -> None:
        self.states: list[tuple[WorkerState, str]] = []
        self.report = WorkerReport(
            slot=0, identity=ProcessIdentity(pid=1, started=1), device="cuda:0", state=WorkerState.READY
        )

    def tell(self, state: WorkerState, detail: str = "", *, retry_at: float = 0.0) -> None:
        self.states.append((state, detail))


class Weights:
    """What a load has in its hands when memory runs out."""


def test_engines_that_find_too_little_memory_are_tried_again_and_meanwhile_nothing_of_them_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: list[weakref.ref[Weights]] = []
    pauses: list[float] = []
    alive: list[bool] = []

    def load() -> None:
        weights = Weights()
        held.append(weakref.ref(weights))
        if len(held) < 4:
            raise OutOfDeviceMemory("Too little memory is free for MinerU's models.")

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        alive.append(held[-1]() is not None)

    monkeypatch.setattr(rounds.time, "sleep", sleep)
    heart = Told()
    load_with_patience(load, cast(Heart, heart), WorkerState.READY)
    assert [state for state, _ in heart.states] == [WorkerState.LOADING, WorkerState.FAILED] * 3 + [
        WorkerState.LOADING,
        WorkerState.READY,
    ]
    assert "Too little memory is free" in heart.states[1][1]
    assert alive == [False] * 3, "the error is gone, and what its traceback held"
    assert all(0.7 * 2**turn < pause < 1.3 * 2**turn for turn, pause in enumerate(pauses)), pauses


class Turns:
    """A store that gives everybody the turn."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def may_recycle(self, owner: ProcessIdentity, slot: int, kind: str) -> bool:
        self.kinds.append(kind)
        return True


class NoSpares:
    spares = 0

    def hand_over(self, index: int) -> bool:
        return False


def test_a_worker_that_lacks_a_part_for_want_of_memory_is_replaced_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(recycling.time, "monotonic", lambda: now)
    shortage, turns, heart = Shortage(), Turns(), Told()
    parts: Any = (turns, heart, NoSpares())
    recycler = Recycler(RecyclingLimits(), *parts, owner=heart.report.identity, short=shortage.due)
    assert not recycler.must_leave()
    shortage.note()
    now += recycling.SHORT_SECONDS - 1
    assert not recycler.must_leave()
    now += 2
    assert recycler.must_leave()
    assert turns.kinds == ["memory"]
    assert heart.states[-1][0] is WorkerState.RECYCLING
