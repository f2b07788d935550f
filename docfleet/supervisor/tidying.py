"""Remove what nobody needs any more: results past their retention, and what a crash left behind."""

from __future__ import annotations

import time

from loguru import logger

from docfleet.files import DataFolder, is_job_id, remove_tree
from docfleet.shelf.keeping import clear_drafts
from docfleet.store.interface import Leases

#: Jobs removed at a time, so that a look stays short.
_BATCH = 100


def clear_leftovers(folder: DataFolder, store: Leases) -> None:
    """Remove what the last run left behind. Call at start, before any upload and any worker.

    Uploads that never became a job, folders of jobs that the store does not know, attempts that were cut off.
    """
    for upload in folder.incoming.iterdir():
        remove_tree(upload)
    clear_drafts(folder.pages, older_than=0)
    if any(folder.root.glob(f"{folder.database.name}.corrupt-*")):
        # A fresh store knows no job; the results of the damaged one's are all that is left of them.
        logger.warning("a damaged database was set aside: results in {} that no job names are kept", folder.jobs)
        return
    names = [path.name for path in folder.jobs.iterdir() if is_job_id(path.name)]
    known = store.known(names)
    strays = [name for name in names if name not in known]
    for name in strays:
        remove_tree(folder.job(name))
    if strays:
        logger.info("removed the files of {} documents that were never accepted", len(strays))
    for name in known:
        tidy_ended(folder, store, name)


def tidy_ended(folder: DataFolder, store: Leases, job_id: str) -> None:
    """Remove what attempts left in an ended job's folder: all but source and result, and all where there is none."""
    job = store.job(job_id)
    if job is None or not job.state.final:
        return
    if job.output is None:
        remove_tree(folder.job(job_id))
        return
    remove_tree(folder.work(job_id))
    kept = folder.absolute(job.output)
    for result in folder.job(job_id).glob("result-*"):
        if result != kept:
            remove_tree(result)


def retire_results(folder: DataFolder, store: Leases, retention_seconds: float) -> int:
    """Remove jobs that ended longer ago than the retention. Return how many.

    Files first: a crash between the two leaves a row without files, which the next look removes.
    """
    if retention_seconds <= 0:
        return 0
    expired = store.finished_before(time.time() - retention_seconds, _BATCH)
    for job_id in expired:
        remove_tree(folder.job(job_id))
        store.remove(job_id)
    if expired:
        logger.info("removed {} results past their retention", len(expired))
    return len(expired)
