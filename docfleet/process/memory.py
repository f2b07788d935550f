"""When this process looks for garbage, and when it gives memory back."""

from __future__ import annotations

import ctypes
import gc
from functools import cache
from typing import Any

#: Thresholds of the interpreter's collector in a process that answers: a look through everything stops all threads for
#: a tenth of a second when it comes in the middle of a crowd, so it waits for a quiet moment (`give_back`), or for
#: millions of new objects.
_ANSWERING = (2_000, 20, 100)


def settle(*, answering: bool = False) -> None:
    """Call once all is loaded: what is there lives as long as the process, and is not looked through again.

    It makes each later collection cheap.

    Args:
        answering: whether callers wait for this process; it then collects everything in quiet moments, by `give_back`.
    """
    gc.collect()
    gc.freeze()
    if answering:
        gc.set_threshold(*_ANSWERING)


def give_back() -> None:
    """Collect what the last work left in cycles and return free pages of the heap to the system."""
    gc.collect()
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Any:
    """Return glibc's `malloc_trim`, or None with another C library: those return pages themselves, or never."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    trim.argtypes, trim.restype = (ctypes.c_size_t,), ctypes.c_int
    return trim
