"""What the server's own processes hold. Workers tell it themselves, children included."""

from __future__ import annotations

import contextlib
import os

import psutil


def resident_bytes() -> dict[str, int]:
    """Return the resident memory, in bytes, of the main process, this one (api), and all that this one started.

    Call in the API process; one that is gone meanwhile counts as nothing.
    """
    own = psutil.Process()
    return {
        "main": _held(os.getppid()),
        "api": own.memory_info().rss,
        "helpers": sum(_held(child.pid) for child in own.children(recursive=True)),
    }


def _held(pid: int) -> int:
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0
