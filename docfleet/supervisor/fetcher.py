"""Have the weights fetched beside the running server: one process for all workers, started anew where it fails.

The server is ready without them. Workers that were loaded before the weights came are replaced once they are there.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable
from typing import Any

from loguru import logger

#: Seconds until a new try, doubled each time up to the second number.
_PAUSE, _LONGEST_PAUSE = 30.0, 600.0


class Fetcher:
    """A chore of the supervisor."""

    def __init__(self, start: Callable[[], subprocess.Popen[str]], tell: Callable[[], Any]) -> None:
        """`start` begins the fetching; `tell` is called at each look until it is done, to show how far it is."""
        self._start = start
        self._tell = tell
        self._process: subprocess.Popen[str] | None = None
        self._pause = _PAUSE
        self._due = 0.0
        self._done = False

    def look(self) -> None:
        """Start what is due, and see what became of it."""
        if self._done:
            return
        if self._process is None:
            if time.monotonic() >= self._due:
                self._process = self._start()
        elif (status := self._process.poll()) is not None:
            self._process, self._done = None, status == 0
            if not self._done:
                logger.warning("weights could not be fetched; next try in {:.0f} s", self._pause)
                self._due = time.monotonic() + self._pause
                self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        self._tell()

    def stop(self) -> None:
        """End the process, if one is under way; what it fetched so far stays for the next time."""
        self._done = True
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=2)
