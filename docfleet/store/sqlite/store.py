"""All three roles in one object, and the way to get it."""

from __future__ import annotations

import time
from pathlib import Path

from docfleet.store.sqlite.claims import SqliteClaims
from docfleet.store.sqlite.connection import Clock
from docfleet.store.sqlite.leases import SqliteLeases
from docfleet.store.sqlite.poison import SqlitePoison
from docfleet.store.sqlite.pressure import SqlitePressure
from docfleet.store.sqlite.reuse import SqliteReuse
from docfleet.store.sqlite.tallies import SqliteTallies


class SqliteStore(SqliteClaims, SqliteLeases, SqliteReuse, SqlitePoison, SqlitePressure, SqliteTallies):
    """`Claims`, `Jobs`, `Leases` and the roles of `docfleet.store` beside them on one SQLite file, for one machine."""


def open_store(path: Path, *, clock: Clock = time.time) -> SqliteStore:
    """Open the store, creating or upgrading it first; any number of processes may do so at once.

    A damaged database is set aside as `<name>.corrupt-<time>`, with an error in the log, and a fresh one begun.

    Args:
        path: the database's file, on a local disk, in a folder that exists.
        clock: seconds since the epoch.

    Raises:
        ConfigurationError: the file cannot be used, was written by a newer version, or SQLite is too old.
    """
    return SqliteStore(path, clock=clock)
