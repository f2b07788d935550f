"""The cap on shards held at once, and rests, in the store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from docfleet.records import Claim, ProcessIdentity
from docfleet.store.sqlite import SqliteStore, open_store
from tests.integration.store_house import ME, OTHER, accept, must_claim, report


@dataclass
class Room:
    path: Path
    store: SqliteStore = field(init=False)
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.store = self.another()

    def another(self) -> SqliteStore:
        return open_store(self.path, clock=lambda: self.now)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path / "docfleet.db")
    with room.store:
        yield room


def test_no_more_is_held_than_the_cap_and_lifting_it_gives_the_rest_out(room: Room) -> None:
    store = room.store
    for _ in range(4):
        accept(store)
    assert store.max_concurrent() is None
    store.set_max_concurrent(1)
    held = must_claim(store)
    assert store.claim(OTHER, 1) is None
    store.set_max_concurrent(2)
    assert store.claim(OTHER, 1) is not None
    assert store.claim(ProcessIdentity(pid=3, started=3), 2) is None
    assert store.complete(held, output="x", report=report(3))
    assert store.claim(ME, 0) is not None
    store.set_max_concurrent(0)
    assert store.claim(ProcessIdentity(pid=3, started=3), 2) is None, "nothing new"
    assert len(store.leases()) == 2, "and what is held goes on"
    store.set_max_concurrent(None)
    assert store.claim(ProcessIdentity(pid=3, started=3), 2) is not None


def test_the_cap_outlives_the_process_that_set_it(room: Room) -> None:
    room.store.set_max_concurrent(7)
    with room.another() as other:
        assert other.max_concurrent() == 7
        other.set_max_concurrent(None)
    assert room.store.max_concurrent() is None


def test_workers_that_ask_at_the_same_moment_do_not_get_more_than_the_cap(room: Room) -> None:
    for _ in range(8):
        accept(room.store)
    room.store.set_max_concurrent(3)
    start, claims = threading.Barrier(8, timeout=60), list[Claim]()

    def ask(number: int) -> None:
        with room.another() as store:
            start.wait()
            claim = store.claim(ProcessIdentity(pid=number, started=1), number)
            if claim is not None:
                claims.append(claim)

    threads = [threading.Thread(target=ask, args=(number + 1,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claims) == len(room.store.leases()) == 3


def test_a_rest_holds_for_its_slot_until_it_is_replaced_or_runs_out(room: Room) -> None:
    store = room.store
    store.rest({0: "little memory", 2: "little memory"}, 30)
    assert (store.resting(0), store.resting(1), store.resting(2)) == ("little memory", None, "little memory")
    store.rest({1: "another"}, 30)
    assert (store.resting(0), store.resting(1)) == (None, "another")
    room.now += 31
    assert store.resting(1) is None, "whoever set it is gone"
    store.rest({}, 30)
    assert store.resting(1) is None
