"""What SQLite and the disk complain of, in the words of the project's errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from docfleet.errors import Busy, ConfigurationError, DocfleetError, InternalError, StorageFull, StorageUnavailable
from docfleet.files import is_full

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_HELD = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_BROKEN = frozenset({sqlite3.SQLITE_IOERR})
_CLOSED_OFF = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH})


def result_code(error: sqlite3.Error) -> int | None:
    """Return SQLite's primary result code, or None where Python's own layer complained."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether the file is no sound database."""
    return result_code(error) in _DAMAGED


def is_held(error: sqlite3.Error) -> bool:
    """Return whether another connection was in the way."""
    return result_code(error) in _HELD


def explain(error: sqlite3.Error | OSError, path: Path, *, opening: bool = False) -> DocfleetError:
    """Return the project's error for one of SQLite's or the system's, with the remedy.

    What keeps a server from starting with a data folder is a fault of its settings; once it runs, of its disk.
    """
    if isinstance(error, OSError):
        full, closed_off = is_full(error), True
    else:
        code = result_code(error)
        full, closed_off = code == sqlite3.SQLITE_FULL, code in _CLOSED_OFF | _BROKEN
        if code in _HELD:
            return Busy("The store is held by another process; try again in a few seconds.", retry_after=5.0)
        if code in _DAMAGED:
            return InternalError(
                f"{path.name} is damaged ({error}). Restart the server: it sets the file aside and begins a new one."
            )
    if full:
        return StorageFull("There is no room left on the disk of the data folder; free some and try again.")
    if closed_off and not opening:
        return StorageUnavailable(
            f"The data folder cannot be used now ({error}): its disk is read-only, gone or broken. Try again when "
            "whoever runs the server has seen to it.",
            retry_after=30,
        )
    if closed_off:
        return ConfigurationError(
            f"{path} cannot be used ({error}). The data folder must exist and be writable by the user that runs the "
            "server; --data-dir names another."
        )
    return InternalError(f"The store failed ({error}); the server's log has the cause.")


@contextmanager
def translated(path: Path, *, opening: bool = False) -> Iterator[None]:
    """Turn what SQLite and the disk raise into the project's errors.

    Raises:
        Busy: others held the database for too long.
        StorageFull: the disk is full.
        StorageUnavailable: the file cannot be read or written now.
        ConfigurationError: the same, when it is opened.
        InternalError: anything else.
    """
    try:
        yield
    except (sqlite3.Error, OSError) as exc:
        raise explain(exc, path, opening=opening) from exc
