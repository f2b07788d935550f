"""The supervisor's thread: short looks at fixed intervals. A look that fails is logged and taken again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from loguru import logger


@dataclass
class Chore:
    """Something to look at every so often."""

    name: str
    look: Callable[[], object]
    #: Seconds between two looks.
    interval: float
    due: float = 0.0


class Watch:
    """Runs chores in one thread of its own, so that none delays the doors."""

    def __init__(self, chores: list[Chore]) -> None:
        self._chores = chores
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the look at hand."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stop.is_set():
            for chore in self._chores:
                if time.monotonic() >= chore.due:
                    self._do(chore)
            pause = min(chore.due for chore in self._chores) - time.monotonic()
            self._stop.wait(max(pause, 0.01))

    def _do(self, chore: Chore) -> None:
        try:
            chore.look()
        except Exception:
            logger.exception("supervisor: {} failed and is tried again", chore.name)
        chore.due = time.monotonic() + chore.interval
