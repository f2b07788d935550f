"""How many files and connections a process may have open."""

from __future__ import annotations

import resource

#: Asked for where the system sets no bound of its own.
_PLENTY = 65536


def raise_open_files() -> int:
    """Let this process and its children open as many files as the system lets them. Return how many that is.

    Each request under way takes a connection, and while it is uploaded a file for each of its documents: with the usual
    default of 1,024, five hundred callers at once would be too many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _PLENTY if hard == resource.RLIM_INFINITY else hard
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):
        # macOS names a bound that it does not grant.
        return soft
    return wanted
