"""Tell a process from another that was given the same number later."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from docfleet.records import ProcessIdentity

_STAT = "/proc/{pid}/stat"


def _from_proc(pid: int) -> tuple[int, str] | None:
    """Return (start time in ticks since boot, state letter) from /proc (proc(5), fields 22 and 3)."""
    try:
        text = Path(_STAT.format(pid=pid)).read_text()
    except OSError:
        return None
    # The command name is in parentheses and may itself hold spaces and parentheses: fields start after the last one.
    fields = text.rpartition(")")[2].split()
    return int(fields[19]), fields[0]


def _from_psutil(pid: int) -> tuple[int, str] | None:
    try:
        process = psutil.Process(pid)
        return int(process.create_time() * 100), "Z" if process.status() == psutil.STATUS_ZOMBIE else "R"
    except psutil.Error:
        return None


_look = _from_proc if Path(_STAT.format(pid=os.getpid())).exists() else _from_psutil


def identify(pid: int | None = None) -> ProcessIdentity:
    """Return the identity of a living process, of the calling one by default.

    Raises:
        ProcessLookupError: there is no such process.
    """
    pid = os.getpid() if pid is None else pid
    seen = _look(pid)
    if seen is None:
        raise ProcessLookupError(pid)
    return ProcessIdentity(pid=pid, started=seen[0])


def is_alive(identity: ProcessIdentity) -> bool:
    """Return whether that very process still runs. A zombie does not."""
    seen = _look(identity.pid)
    return seen is not None and seen[0] == identity.started and seen[1] not in "ZX"
