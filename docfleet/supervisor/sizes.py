"""What results weigh, and retention by size: the oldest ended jobs go first, never one that is under way."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from loguru import logger

from docfleet.files import DataFolder, remove_tree
from docfleet.store.interface import Leases
from docfleet.store.reuse import Sizes
from docfleet.supervisor.tidying import BUDGET, tidy_ended

#: Jobs asked for at a time.
_BATCH = 100


class SizeStore(Leases, Sizes, Protocol):
    """What is asked of a store."""


def keep_within(folder: DataFolder, store: SizeStore, limit: int, *, budget: float = BUDGET) -> int:
    """Measure what ended since the last look, and remove the oldest until all fit. Return how many were removed.

    What a worker that died left in a job that ended is removed before it is measured.

    Args:
        folder: the data folder.
        store: knows what each job weighs.
        limit: bytes that ended jobs may hold together; 0 is no limit.
        budget: seconds for either, after which the rest is left to the next look.
    """
    _measure(folder, store, time.monotonic() + budget)
    if limit <= 0:
        return 0
    removed = _make_room(folder, store, limit, time.monotonic() + budget)
    if removed:
        logger.info("removed the {} oldest results: there were more than {:.3g} GB", removed, limit / 1e9)
    return removed


def _measure(folder: DataFolder, store: SizeStore, deadline: float) -> None:
    while time.monotonic() < deadline and (unmeasured := store.unmeasured(_BATCH)):
        sizes = []
        for job_id in unmeasured:
            tidy_ended(folder, store, job_id)
            sizes.append((job_id, size_of(folder, job_id)))
            if time.monotonic() >= deadline:
                break
        store.record_sizes(sizes)


def _make_room(folder: DataFolder, store: SizeStore, limit: int, deadline: float) -> int:
    removed, over = 0, store.stored_bytes() - limit
    while over > 0 and (oldest := store.oldest_ended(_BATCH)):
        for job_id, size in oldest:
            # Files first: a crash between the two leaves a row without files, the oldest again at the next look.
            remove_tree(folder.job(job_id))
            store.remove(job_id)
            removed += 1
            over -= size
            if time.monotonic() >= deadline:
                return removed
            if over <= 0:
                # To add up all takes a while. Less may have gone: of jobs that share files, only the last frees them.
                over = store.stored_bytes() - limit
                if over <= 0:
                    break
    return removed


def size_of(folder: DataFolder, job_id: str) -> int:
    """Return the bytes of the job's document and result; linked files count as if they were its own."""
    place = folder.job(job_id)
    return sum(_bytes(path) for top in (place.glob("source.*"), place.glob("result-*")) for path in _files(top))


def _files(tops: Iterable[Path]) -> Iterable[Path]:
    for top in tops:
        yield top
        for there, _, names in os.walk(top):
            yield from (Path(there, name) for name in names)


def _bytes(path: Path) -> int:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0
