"""Locks that the system lets go when the process that holds them ends, however it ends."""

from __future__ import annotations

import fcntl
import time

_LOOK = 0.05


def lock_within(descriptor: int, seconds: float) -> bool:
    """Lock an open file for this process and its forked children. Return whether it was free within so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOOK)
        else:
            return True
