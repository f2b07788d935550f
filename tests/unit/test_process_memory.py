"""When a process that answers looks through all it has: in quiet moments, not in the middle of a crowd."""

from __future__ import annotations

import json
import subprocess
import sys

CROWD = """
import gc, json, weakref
from docfleet.process.memory import give_back, settle

class Node:
    pass

def cycle():
    one, other = Node(), Node()
    one.other, other.one = other, one
    return one

ballast = [[number] for number in range(100_000)]
if {settles}:
    settle(answering=True)
full = 0
def count(phase, info):
    global full
    full += phase == "start" and info["generation"] == 2
gc.callbacks.append(count)
crowd = [cycle() for _ in range(60_000)]
in_the_crowd = full
last = weakref.ref(crowd[-1])
del crowd
give_back()
print(json.dumps([in_the_crowd, last() is None]))
"""


def crowd(*, settles: bool) -> list[object]:
    done = subprocess.run(
        [sys.executable, "-c", CROWD.format(settles=settles)], capture_output=True, text=True, check=True, timeout=60
    )
    return list(json.loads(done.stdout))


def test_a_process_that_answers_looks_for_garbage_after_the_crowd_and_not_in_it() -> None:
    assert crowd(settles=True) == [0, True]


def test_any_other_process_does_it_in_the_crowd() -> None:
    full, gone = crowd(settles=False)
    assert isinstance(full, int)
    assert full > 0
    assert gone is True
