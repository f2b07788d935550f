"""The supervisor's threads: short looks at fixed intervals. A look that fails is logged and taken again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from loguru import logger

from docfleet.errors import DocfleetError

#: Seconds for which a chore that goes on failing alike is not told of again: the log may lie on the disk that is full.
_QUIET = 60.0
#: Seconds that the looks at hand may take when all is to end.
_PATIENCE = 5.0


@dataclass
class Chore:
    """Something to look at every so often."""

    name: str
    look: Callable[[], object]
    #: Seconds between two looks.
    interval: float
    due: float = 0.0
    #: What was logged of it last, and until when that is not said again; empty while all is well.
    trouble: str = ""
    quiet_until: float = 0.0


class Watch:
    """Runs chores in one thread of its own, so that none delays the doors, or the chores of another watch."""

    def __init__(self, chores: list[Chore], name: str = "supervisor") -> None:
        self._chores = chores
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the look at hand."""
        stop_all([self])

    def _run(self) -> None:
        while not self._stop.is_set():
            for chore in self._chores:
                if time.monotonic() >= chore.due and not self._stop.is_set():
                    self._do(chore)
            pause = min(chore.due for chore in self._chores) - time.monotonic()
            self._stop.wait(max(pause, 0.01))

    def _do(self, chore: Chore) -> None:
        try:
            chore.look()
        except Exception as exc:
            _tell(chore, exc)
        else:
            if chore.trouble:
                logger.info("supervisor: {} works again", chore.name)
            chore.trouble = ""
        chore.due = time.monotonic() + chore.interval


def stop_all(watches: list[Watch]) -> None:
    """End all of them side by side, each after the look at hand."""
    for watch in watches:
        watch._stop.set()
    deadline = time.monotonic() + _PATIENCE
    for watch in watches:
        watch._thread.join(timeout=max(0.0, deadline - time.monotonic()))


def _tell(chore: Chore, exc: Exception) -> None:
    trouble, now = f"{type(exc).__name__}: {exc}", time.monotonic()
    if trouble == chore.trouble and now < chore.quiet_until:
        return
    chore.trouble, chore.quiet_until = trouble, now + _QUIET
    if isinstance(exc, DocfleetError):
        logger.warning("supervisor: {} failed and is tried again: {}", chore.name, exc.message)
    else:
        logger.opt(exception=exc).error("supervisor: {} failed and is tried again", chore.name)
