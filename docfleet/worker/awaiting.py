"""Before the first document: VLM servers that run on this machine load for minutes, as models in the worker would."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from docfleet.vlm.local import awaited, read_servers

_LOOK = 0.25
#: Seconds for a launcher to say anything at all; one that cannot is no reason to read nothing.
_SILENCE = 60.0


def await_servers(state_file: Path, tell: Callable[[str], None]) -> None:
    """Return when the first of them answers, or all have failed to.

    Args:
        state_file: where the launcher tells of them.
        tell: called with what is waited for, whenever that is something else.
    """
    began, told = time.monotonic(), ""
    while True:
        servers = read_servers(state_file)
        reason = awaited(servers)
        if not reason or (not servers and time.monotonic() - began > _SILENCE):
            return
        if reason != told:
            tell(reason)
            told = reason
        time.sleep(_LOOK)
