"""A child leaves when its parent is gone, whatever killed the parent.

PR_SET_PDEATHSIG would not do: it fires when the *thread* that started the child ends, and children here are started
from threads. So a thread looks at the parent's number, which changes the moment the parent is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time

#: Seconds between two looks.
INTERVAL = 0.5


def tie_to_parent() -> None:
    """Watch the parent from now on; when it is gone, end this process and, if it leads a group, the group."""
    parent = multiprocessing.parent_process()
    expected = parent.pid if parent is not None and parent.pid is not None else os.getppid()
    threading.Thread(target=_watch, args=(expected,), name="lifeline", daemon=True).start()


def _watch(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(INTERVAL)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
