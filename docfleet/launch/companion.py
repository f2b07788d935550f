"""The launcher process as the main process has it: started, started again where it was killed, stopped.

Not the API process's child, as the router is: that may be replaced, and models take minutes to load.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

from loguru import logger

import docfleet
from docfleet.launch.orders import LaunchOrders

_MODULE = "docfleet.launch.launcher"
_PROJECT = str(Path(docfleet.__file__).resolve().parent.parent)
#: Seconds until it is started again, doubled each time while it lives shorter than the last number.
_PAUSE, _LONGEST_PAUSE, _SHORT_LIFE = 0.2, 30.0, 30.0
#: Seconds beyond those of its servers that it gets to end.
_LEAVE_SECONDS = 1.0


class Companion:
    """A child process that shall run as long as this one does."""

    def __init__(self, orders: LaunchOrders) -> None:
        self._orders = orders
        self._process: subprocess.Popen[str] | None = None
        self._pause = _PAUSE
        self._began = self._due = 0.0

    def look(self) -> None:
        """Start it if it does not run and is due. Short; call it again and again."""
        now = time.monotonic()
        if self._process is not None and self._process.poll() is not None:
            status, self._process = self._process.returncode, None
            self._pause = _PAUSE if now - self._began > _SHORT_LIFE else min(self._pause * 2, _LONGEST_PAUSE)
            self._due = now + self._pause
            logger.warning("the launcher of VLM servers ended ({}); the next in {:.1f} s", status, self._pause)
        if self._process is None and now >= self._due:
            self._start(now)

    def stop(self) -> None:
        """End it with its servers."""
        process, self._process = self._process, None
        self._due = float("inf")
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            process.wait(timeout=self._orders.leave_seconds + _LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            # Its servers' guards see it, and kill them.
            process.kill()
            process.wait()

    def _start(self, now: float) -> None:
        self._began = now
        try:
            process = subprocess.Popen([sys.executable, "-m", _MODULE], stdin=subprocess.PIPE, text=True, cwd=_PROJECT)  # noqa: S603
        except OSError as exc:
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
            self._due = now + self._pause
            logger.warning("the launcher of VLM servers cannot be started: {}", exc.strerror)
            return
        self._process = process
        assert process.stdin is not None
        # It may be gone already; the next look tells.
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(self._orders.to_json() + "\n")
