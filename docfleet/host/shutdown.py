"""The end of the server: signals reach the main process, which ends the others in order and leaves nobody behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType

from loguru import logger

from docfleet.process.groups import kill_group, reap_strays
from docfleet.process.lifeline import offer_lifeline, tie_to_parent

#: The last look at children: how long at most, how often, and how many times in a row there must be none: for longer
#: than the monitor sleeps.
_STRAGGLER_SECONDS = 3.0
_LOOK_SECONDS = 0.05
_QUIET_LOOKS = 6


class Ending:
    """Turns the first SIGTERM or SIGINT into the KeyboardInterrupt that LitServe shuts down on; ignores the rest."""

    def __init__(self) -> None:
        self._main = os.getpid()
        self._begun = False
        self._tying = False
        #: Exit status of the main process.
        self.status = 0

    def install(self) -> None:
        """Take over the signals of the main process. Forked children inherit the handler and leave at once."""
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, self._handle)
        os.register_at_fork(after_in_child=self._tie)
        offer_lifeline()

    @contextmanager
    def tying(self) -> Iterator[None]:
        """Tie the processes forked inside this context to the life of this one.

        Not all forks: uvloop runs the hook in children that are about to become other programs.
        """
        self._tying = True
        try:
            yield
        finally:
            self._tying = False

    def _tie(self) -> None:
        if self._tying:
            self._tying = False
            tie_to_parent()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._main:
            os._exit(0)
        if not self._begun:
            self._begun = True
            raise KeyboardInterrupt

    def fail(self) -> None:
        """End the server with status 1, unless it is ending already; callable from any thread."""
        if not self._begun:
            self.status = 1
            os.kill(self._main, signal.SIGTERM)


def watch_children(api: BaseProcess, ending: Ending) -> None:
    """Watch from a thread: the server ends when its API process does, and as process 1 it reaps orphans."""

    def watch() -> None:
        while not wait([api.sentinel], timeout=0.5):
            if os.getpid() == 1:
                reap_strays({child.pid for child in multiprocessing.active_children() if child.pid})
        logger.debug("the API process ended")
        ending.fail()

    threading.Thread(target=watch, name="children", daemon=True).start()


def end_workers(pids: list[int]) -> None:
    """Kill every worker with its children. What they held goes back to the queue when the server starts again."""
    for pid in pids:
        kill_group(pid)


def end_stragglers() -> None:
    """Kill the children that are left at the very end, those too that come while this looks.

    LitServe's monitor starts a worker in the place of one that it finds dead, and may do so while LitServe ends the
    workers; the interpreter would then wait for that one at its exit, for ever.
    """
    quiet = 0
    deadline = time.monotonic() + _STRAGGLER_SECONDS
    while quiet < _QUIET_LOOKS and time.monotonic() < deadline:
        left = multiprocessing.active_children()
        quiet = 0 if left else quiet + 1
        for child in left:
            if child.pid:
                kill_group(child.pid)
            child.kill()
        time.sleep(_LOOK_SECONDS)
