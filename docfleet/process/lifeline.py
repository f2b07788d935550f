"""A child leaves when its parent is gone, whatever killed the parent.

PR_SET_PDEATHSIG would not do: it fires when the *thread* that started the child ends, and children here are started
from threads. So a thread looks at the parent's number, which changes the moment the parent is gone. A parent that was
gone before the first look is told from the identity that it left in the environment.
"""

from __future__ import annotations

import os
import signal
import threading
import time

from docfleet.process.identity import identify, is_alive
from docfleet.records import ProcessIdentity

#: Seconds between two looks.
INTERVAL = 0.5
#: Names to later children the process whose end is theirs too, as `pid:start`.
_VARIABLE = "DOCFLEET_LIFELINE"


def offer_lifeline() -> None:
    """Name the calling process in its environment: children that tie themselves leave when it is gone."""
    own = identify()
    os.environ[_VARIABLE] = f"{own.pid}:{own.started}"


def tie_to_parent() -> None:
    """Watch the parent from now on; when it is gone, end this process and, if it leads a group, the group."""
    parent = os.getppid()
    ancestor = _named()
    offer_lifeline()
    threading.Thread(target=_watch, args=(parent, ancestor), name="lifeline", daemon=True).start()


def _named() -> ProcessIdentity | None:
    pid, _, started = os.environ.get(_VARIABLE, "").partition(":")
    return ProcessIdentity(pid=int(pid), started=int(started)) if started else None


def _watch(parent_pid: int, ancestor: ProcessIdentity | None) -> None:
    while os.getppid() == parent_pid and (ancestor is None or is_alive(ancestor)):
        time.sleep(INTERVAL)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
