"""How a worker process ended is known to its parent alone: it is told to the store, for `/status` and the log."""

from __future__ import annotations

from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path

from loguru import logger

from docfleet.process.identity import is_alive
from docfleet.store.sqlite import open_store


def tell_exit(database: Path, process: BaseProcess) -> None:
    """Record the exit status of a worker process that has ended. Never raises: its successor must be started."""
    if process.pid is None or process.exitcode is None:
        return
    logger.debug("worker process {} ended with {}", process.pid, process.exitcode)
    with logger.catch(message="the end of a worker could not be recorded"), closing(open_store(database)) as store:
        store.record_exit(process.pid, process.exitcode)


def begin_run(database: Path) -> None:
    """Free the slots of the last run's workers: a slot that could not be served then is tried at once now."""
    with closing(open_store(database)) as store:
        for worker in store.workers():
            if not worker.ended and not is_alive(worker.identity):
                store.retire(worker.slot, worker.identity, "the server was started again")
        store.forgive()
