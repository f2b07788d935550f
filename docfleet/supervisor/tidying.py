"""Remove what nobody needs any more: results past their retention, and what a crash left behind."""

from __future__ import annotations

import time

from loguru import logger

from docfleet.files import DataFolder, is_job_id, remove_tree, sync_folder
from docfleet.shelf.keeping import clear_drafts
from docfleet.store.interface import Leases
from docfleet.store.reuse import remove_source

#: Jobs asked for at a time.
_BATCH = 100
#: Seconds that a look may take, unless a single job takes longer: others wait for the same thread.
BUDGET = 2.0


def clear_leftovers(folder: DataFolder, store: Leases) -> list[str]:
    """Remove what the last run left behind. Call at start, before any upload and any worker.

    Uploads that never became a job, folders of jobs that the store does not know.

    Returns:
        Jobs that the store knows, for `Leftovers`: to look into all of them takes too long before the doors open.
    """
    for upload in folder.incoming.iterdir():
        remove_tree(upload)
    clear_drafts(folder.pages, older_than=0)
    if any(folder.root.glob(f"{folder.database.name}.corrupt-*")):
        # A fresh store knows no job; the results of the damaged one's are all that is left of them.
        logger.warning("a damaged database was set aside: results in {} that no job names are kept", folder.jobs)
        return []
    names = [path.name for path in folder.jobs.iterdir() if is_job_id(path.name)]
    known = store.known(names)
    strays = [name for name in names if name not in known]
    if strays and _store_was_lost(folder, store, strays):
        return sorted(known)
    for name in strays:
        remove_tree(folder.job(name))
    if strays:
        logger.info("removed the files of {} documents that were never accepted", len(strays))
    return sorted(known)


def _store_was_lost(folder: DataFolder, store: Leases, strays: list[str]) -> bool:
    """Return whether the strays may be all that is left of jobs whose database was emptied or removed; tell so.

    Remembered in a file: the next start finds a store that knows jobs again.
    """
    mark = folder.database.with_name(f"{folder.database.name}.lost")
    if not mark.exists():
        totals = store.totals()
        # Counts outlive the jobs: a store with none has never ended a job that has a result.
        if totals.completed or totals.partial or not any(_has_result(folder, name) for name in strays):
            return False
        mark.touch(mode=0o600)
        sync_folder(mark.parent)
    logger.warning(
        "{} was emptied or removed: results of {} documents in {} that no job names are kept. If there is a backup of "
        "the database, stop the server and put it back; to have the results removed at the next start, remove {}.",
        folder.database, sum(_has_result(folder, name) for name in strays), folder.jobs, mark,
    )  # fmt: skip
    return True


def _has_result(folder: DataFolder, job_id: str) -> bool:
    return any(folder.job(job_id).glob("result-*"))


class Leftovers:
    """A chore: attempts of ended jobs that were cut off with the last run, a few at each look until all were seen."""

    def __init__(self, folder: DataFolder, store: Leases, job_ids: list[str]) -> None:
        self._folder = folder
        self._store = store
        self._left = job_ids

    def look(self) -> int:
        """Return how many jobs are left to be looked into."""
        deadline = time.monotonic() + BUDGET
        while self._left and time.monotonic() < deadline:
            tidy_ended(self._folder, self._store, self._left[-1])
            self._left.pop()
        return len(self._left)


def tidy_ended(folder: DataFolder, store: Leases, job_id: str) -> None:
    """Remove what nobody needs of an ended job: all but source and result, and all where there is no result.

    Nor is the source needed of one that was served with another's result. Anyone may call this at any time: whoever
    delivers has forced its result to the disk before the job ends.
    """
    job = store.job(job_id)
    if job is None or not job.state.final:
        return
    if job.output is None:
        remove_tree(folder.job(job_id))
        return
    remove_tree(folder.work(job_id))
    if job.cached:
        remove_source(folder, job_id)
    kept = folder.absolute(job.output)
    for result in folder.job(job_id).glob("result-*"):
        if result != kept:
            remove_tree(result)


def retire_results(folder: DataFolder, store: Leases, retention_seconds: float, *, budget: float = BUDGET) -> int:
    """Remove jobs that ended longer ago than the retention. Return how many.

    Each is a short transaction of its own: nobody waits long for the write lock. Files first: a crash between the two
    leaves a row without files, which the next look removes.

    Args:
        folder: the data folder.
        store: knows when each job ended.
        retention_seconds: 0 keeps all.
        budget: seconds after which the rest is left to the next look.
    """
    if retention_seconds <= 0:
        return 0
    removed, deadline = 0, time.monotonic() + budget
    while time.monotonic() < deadline:
        expired = store.finished_before(time.time() - retention_seconds, _BATCH)
        for job_id in expired:
            remove_tree(folder.job(job_id))
            store.remove(job_id)
            removed += 1
            if time.monotonic() >= deadline:
                break
        if len(expired) < _BATCH:
            break
    if removed:
        logger.info("removed {} results past their retention", removed)
    return removed
