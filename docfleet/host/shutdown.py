"""The end of the server: signals reach the main process, which ends the others in order and leaves nobody behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from docfleet.process.groups import kill_group
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
        self._ordered: Callable[[], object] | None = None
        #: Exit status of the main process.
        self.status = 0

    def install(self) -> None:
        """Take over the signals of the main process. Forked children inherit the handler and leave at once."""
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, self._handle)
        os.register_at_fork(after_in_child=self._tie)
        offer_lifeline()

    def when_ordered(self, call: Callable[[], object]) -> None:
        """Have `call` made as soon as a signal begins the end: whoever sent it may not wait for what follows."""
        self._ordered = call

    def has_begun(self) -> bool:
        """Return whether the server is on its way out."""
        return self._begun

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
            if self._ordered is not None:
                self._ordered()
            raise KeyboardInterrupt

    def fail(self) -> None:
        """Take the end for begun, with status 1 unless a signal began it."""
        if not self._begun:
            self._begun, self.status = True, 1


def end_children(workers: list[int]) -> None:
    """Kill every worker with its children, and whatever else is left: the interpreter would wait for it for ever.

    What the workers held goes back to the queue when the server starts again.
    """
    for pid in workers:
        kill_group(pid)
    end_stragglers()


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
