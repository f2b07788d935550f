"""A storm of SIGKILLs: nothing accepted is lost, done twice or wrong, and nothing is left over.

`make chaos` runs it in full; the suite runs it short. `DOCFLEET_STORM_SEED` repeats a storm.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.storm import Storm, files_in, readings, rows

FULL = os.environ.get("DOCFLEET_STORM") == "full"
KILLS, JOBS = (100, 60) if FULL else (12, 12)


@pytest.mark.timeout(1500 if FULL else 500)
def test_nothing_accepted_is_lost_repeated_or_wrong_in_a_storm_of_sigkills(tmp_path: Path) -> None:
    seed = int(os.environ.get("DOCFLEET_STORM_SEED") or (random.randrange(10**6) if FULL else 1))
    data = tmp_path / "data"
    storm = Storm(data, seed, KILLS, JOBS)
    print(f"DOCFLEET_STORM_SEED={seed}")
    try:
        storm.run()
    finally:
        print(storm.report())
    assert storm.problems == []
    assert sum(storm.hits.values()) >= KILLS
    assert len(storm.orders) >= JOBS

    found = rows(data)
    # One row for each document, whatever was asked again.
    assert Counter(name for _, _, name, _ in found) == Counter(order.name for order in storm.orders)
    assert {order.job_id for order in storm.orders} == {job for job, _, _, _ in found}
    assert {state for _, state, _, _ in found} == {"completed"}
    # What was recorded as read is never read again.
    assert [reading for reading in readings(tmp_path) if reading[3]] == []
    # One result for each job, and nothing else.
    expected = {f"jobs/{job}/source.pdf" for job, _, _, _ in found}
    expected |= {f"{output}/document.md" for _, _, _, output in found}
    assert {name for name in files_in(data) if name.startswith("jobs/")} == expected
    others = {name for name in files_in(data) if not name.startswith("jobs/")}
    scratch = {f"scratch/{number}" for number in range(storm.workers)}
    # Of the spare, if it had come so far.
    more = {"docfleet.db-wal", "docfleet.db-shm", f"scratch/{storm.workers}"}
    assert others - more == {
        "docfleet.db", "docfleet.db.lock", "server.lock", "incoming", "pages", "pages.log", "read.log", *scratch,
    }  # fmt: skip
