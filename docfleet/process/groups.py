"""A worker and the children it starts form one process group, so that they can be ended together."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import NoReturn

import psutil

from docfleet.process.identity import identify
from docfleet.records import ProcessIdentity


def lead_group() -> None:
    """Make the calling process the leader of a group of its own; its later children are born into it."""
    # Refused where the process leads a session already, which makes it a group leader too.
    with contextlib.suppress(PermissionError):
        os.setpgid(0, 0)


def kill_group(leader_pid: int) -> None:
    """Kill every process of the group, also where its leader is gone already.

    Never the group of the calling process: a number that the system has given out again must not hit ourselves.
    """
    if leader_pid <= 1 or leader_pid == os.getpgrp():
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader_pid, signal.SIGKILL)


def kill_group_of(leader: ProcessIdentity) -> None:
    """Kill every process of the group that this very process leads or led.

    A number is given out again only when no group has it: a process that has it now and began at another time tells
    that the group is gone, and is somebody else (after a restart of a container the numbers are all the same).
    """
    with contextlib.suppress(ProcessLookupError):
        if identify(leader.pid) != leader:
            return
    kill_group(leader.pid)


def leave_with_children() -> NoReturn:
    """End this process at once with status 0, and its children first. Nothing is waited for: pools may never end."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
    os._exit(0)


def reap_strays(known: set[int]) -> None:
    """Collect ended children that nobody waits for: orphans that the system handed to us (as process 1 of a container).

    Args:
        known: children that somebody else waits for; they are left alone.
    """
    for child in psutil.Process().children():
        if child.pid in known:
            continue
        with contextlib.suppress(psutil.Error, ChildProcessError):
            if child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)
