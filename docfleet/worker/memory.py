"""Giving memory back between documents, whatever engine made the mess."""

from __future__ import annotations

import ctypes
import gc
from functools import cache
from typing import Any


def settle() -> None:
    """Call once the engines are loaded: what they made lives as long as the process, and is not looked through again.

    It makes the collection after each document cheap.
    """
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Collect what the last document left in cycles and return free pages of the heap to the system."""
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
