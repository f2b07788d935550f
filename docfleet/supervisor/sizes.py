"""What results weigh, and retention by size: the oldest ended jobs go first, never one that is under way."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from loguru import logger

from docfleet.files import DataFolder, remove_tree
from docfleet.store.interface import Leases
from docfleet.store.reuse import Sizes

#: Jobs measured or removed in one look, so that it stays short.
_BATCH = 100


class SizeStore(Leases, Sizes, Protocol):
    """What is asked of a store."""


def keep_within(folder: DataFolder, store: SizeStore, limit: int) -> int:
    """Measure what ended since the last look, and remove the oldest until all fit. Return how many were removed.

    Args:
        folder: the data folder.
        store: knows what each job weighs.
        limit: bytes that ended jobs may hold together; 0 is no limit.
    """
    while unmeasured := store.unmeasured(_BATCH):
        store.record_sizes([(job_id, size_of(folder, job_id)) for job_id in unmeasured])
    if limit <= 0:
        return 0
    removed = 0
    for job_id in store.oldest_ended(_BATCH):
        if store.stored_bytes() <= limit:
            break
        # Files first: a crash between the two leaves a row without files, which is the oldest again at the next look.
        remove_tree(folder.job(job_id))
        store.remove(job_id)
        removed += 1
    if removed:
        logger.info("removed the {} oldest results: there were more than {:.3g} GB", removed, limit / 1e9)
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
