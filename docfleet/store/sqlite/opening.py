"""Making the database fit for use: sound, in WAL mode, at the newest schema. By one process at a time."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from loguru import logger

from docfleet.errors import ConfigurationError
from docfleet.files import sync_folder
from docfleet.store.sqlite.faults import is_damage, translated
from docfleet.store.sqlite.schema import upgrade

#: Seconds that a statement waits for other connections, where nothing better is known.
PATIENCE = 30.0
#: STRICT tables came with 3.37, UPDATE ... RETURNING and UPDATE ... FROM before.
_OLDEST_SQLITE = (3, 37, 0)
#: Bytes to which the write-ahead log is cut after a burst.
_LOG_LIMIT = 64 * 1024 * 1024


def connect(path: Path) -> sqlite3.Connection:
    """Open a connection in autocommit mode, usable from any thread (one at a time)."""
    connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        # Commits need not reach the disk one by one: `Database` forces those that must.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_LIMIT}")
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(path: Path) -> int:
    """Check, create or upgrade the database, and enter this process among those that have it open.

    Only a process that is alone with the database may set it aside: others would go on writing into the file that
    was moved. So everyone holds a shared lock on `<name>.lock`, and whoever gets it exclusively is alone.

    Returns:
        The descriptor of the lock; closing it leaves.

    Raises:
        ConfigurationError: the file cannot be used here, is newer than the code, or SQLite is too old.
        InternalError: the database is damaged while others have it open.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise ConfigurationError(
            f"This Python brings SQLite {sqlite3.sqlite_version}; 3.37 or newer is needed. Use a newer build of Python."
        )
    with translated(path, opening=True):
        presence = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(presence, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # Ends when whoever is checking has checked.
                fcntl.flock(presence, fcntl.LOCK_SH)
            else:
                if damage := find_damage(path):
                    set_aside(path, damage)
            _create_or_upgrade(path)
            fcntl.flock(presence, fcntl.LOCK_SH)
        except BaseException:
            os.close(presence)
            raise
    return presence


def find_damage(path: Path) -> str | None:
    """Return what is wrong with the database, or None. Reads the whole file: about a second per GB."""
    if not path.exists():
        return None
    try:
        with closing(connect(path)) as connection:
            (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as exc:
        if is_damage(exc):
            return str(exc)
        raise
    return None if finding == "ok" else " ".join(str(finding).split())


def set_aside(path: Path, damage: str) -> None:
    """Rename the database, its log and its index to `<name>.corrupt-<time>`; nobody may have it open."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = path.with_name(f"{path.name}.corrupt-{stamp}")
    # The log goes first: left alone, it would be played into the fresh database.
    for ending in ("-wal", "-shm", ""):
        old = path.with_name(path.name + ending)
        if old.exists():
            old.rename(aside.with_name(aside.name + ending))
    sync_folder(path.parent)
    logger.error(
        "{} is damaged ({}). It was set aside as {} and a fresh database begun; jobs accepted before are not in it. "
        "`sqlite3 {} .recover` shows what can be saved of them.",
        path.name, damage, aside.name, aside.name,
    )  # fmt: skip


def _create_or_upgrade(path: Path) -> None:
    with closing(connect(path)) as connection:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise ConfigurationError(
                f"{path.parent} lies on a file system that SQLite cannot share between processes (a network share?). "
                "Put the data folder on a local disk: --data-dir."
            )
        upgrade(connection, path)
