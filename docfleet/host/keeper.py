"""The main thread's place while the server runs: it sees to the API process and to LitServe's manager.

LitServe's main thread waits for an event in its manager process. If that process is killed the wait ends with an
exception, and the shutdown that follows waits for it in vain; if the API process is killed nobody notices. `Keeper`
takes the event's place: it waits for the ends of both.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from loguru import logger

from docfleet.host.shutdown import Ending
from docfleet.launch.companion import Companion
from docfleet.process.groups import reap_strays

#: Seconds between two looks for strays, as process 1.
_LOOK = 0.5
#: API processes that may be killed within so many seconds; one more ends the server.
_MOST, _WITHIN = 5, 60.0


class Keeper:
    """Stands in for `LitServer._shutdown_event`, in the main process alone."""

    def __init__(self, ending: Ending, manager: BaseProcess, companion: Companion | None = None) -> None:
        self._ending = ending
        self._companion = companion
        self._manager = manager
        self._set = False
        self._api: BaseProcess | None = None
        self._start: Callable[[], BaseProcess] | None = None
        self._killed: deque[float] = deque(maxlen=_MOST)

    def keep(self, api: BaseProcess, start: Callable[[], BaseProcess]) -> None:
        """Say which process answers requests, and how another is started in its place."""
        self._api, self._start = api, start

    def is_set(self) -> bool:
        """Return whether the server is to end; LitServe's monitor asks."""
        return self._set

    def set(self) -> None:
        """Let the server end."""
        self._set = True

    def wait(self) -> None:
        """Return when the server is to end.

        Raises:
            KeyboardInterrupt: it cannot go on; LitServe shuts down on that without asking its manager.
        """
        while not self._set:
            assert self._api is not None
            ended = wait([self._api.sentinel, self._manager.sentinel], timeout=_LOOK)
            if self._manager.sentinel in ended:
                logger.error("LitServe's manager process ended ({}): the server ends too", self._manager.exitcode)
                self._give_up()
            if self._api.sentinel in ended:
                self._replace(self._api)
            if self._companion is not None:
                self._companion.look()
            if os.getpid() == 1:
                reap_strays({child.pid for child in multiprocessing.active_children() if child.pid})

    def _replace(self, api: BaseProcess) -> None:
        """Start another API process in the place of one that was killed.

        The listening socket is this process's: callers who connect meanwhile wait for the new one. A process that
        ended by itself has said why in the log, and would meet the same again.
        """
        api.join()
        now = time.monotonic()
        killed = api.exitcode is not None and api.exitcode < 0
        if not killed or (len(self._killed) == _MOST and now - self._killed[0] < _WITHIN):
            logger.error("the API process ended ({}): the server ends too", api.exitcode)
            self._give_up()
        self._killed.append(now)
        logger.warning("the API process was killed (signal {}): another is started", -(api.exitcode or 0))
        assert self._start is not None
        self._api = self._start()

    def _give_up(self) -> None:
        self._set = True
        self._ending.fail()
        raise KeyboardInterrupt
