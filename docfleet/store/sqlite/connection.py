"""The connections of one process to the database, and the two ways of using them: reading and writing.

*Durability.* SQLite's `synchronous = FULL` forces every commit to the disk while it holds the write lock, so that all
processes queue behind every disk. Here commits are `NORMAL` (never corrupting, perhaps lost in a power cut), and a
transaction that must survive forces the write-ahead log to the disk itself, after the lock is released: processes
sync side by side and the disk joins their requests. It is the same guarantee: a checkpoint syncs the log before it
moves pages into the database and the database after, so a committed page is always in a synced log or a synced file.
Eight processes that claim and complete, on a disk that takes 5 ms a sync: 677 shards a second so, 147 with `FULL`.

*Fairness.* SQLite's own wait for the write lock grows to 100 ms a step, and who has just written wins again: one of
eight writers was seen to starve for seconds. Here waiters ask again at short, even, random intervals.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import Lock
from typing import Self

from docfleet.errors import InternalError
from docfleet.files import sync_file, sync_folder
from docfleet.store.sqlite.faults import is_held, translated
from docfleet.store.sqlite.opening import PATIENCE, connect, prepare
from docfleet.store.sqlite.statements import sql

#: Bounds in seconds of the pause between two requests for the write lock.
_PAUSE = (0.0002, 0.001)
#: The same, once a wait has lasted longer than `_LONG_WAIT` seconds (a migration, a stopped process).
_LONG_PAUSE = (0.005, 0.015)
_LONG_WAIT = 0.2

Clock = Callable[[], float]


class Database:
    """What every role stands on. Threads may share it; processes may not: each opens its own, after it was forked.

    Three connections: one writes, one reads (so that a read never waits for a write), and one, which never writes,
    watches: SQLite tells a connection of everybody's commits but its own.
    """

    def __init__(self, path: Path, *, clock: Clock = time.time) -> None:
        self._path = path
        self._log = path.with_name(f"{path.name}-wal")
        self._clock = clock
        self._process = os.getpid()
        self._write_lock, self._read_lock, self._watch_lock = Lock(), Lock(), Lock()
        self._seen: int | None = None
        #: Whether the log's entry in its folder is known to be on the disk.
        self._named = False
        with translated(path, opening=True), ExitStack() as opened:
            self._presence: int | None = prepare(path)
            opened.callback(os.close, self._presence)
            self._writer = opened.enter_context(closing(connect(path)))
            # From here on the wait for the write lock is `_begin`'s. Not before: whoever closes the last connection
            # holds the file for a moment, and connecting waits for that.
            self._writer.execute("PRAGMA busy_timeout = 0")
            self._reader = opened.enter_context(closing(connect(path)))
            self._watcher = opened.enter_context(closing(connect(path)))
            self._reader.execute("PRAGMA query_only = ON")
            self._opened = opened.pop_all()

    def changed(self) -> bool:
        """Return whether anyone committed since the last call on this object, this object included. First: True.

        Takes no lock in the database and costs some 10 microseconds. There is one answer a commit: threads that wait
        independently need a store each, or one of them that wakes the others.
        """
        self._must_be_here()
        with translated(self._path), self._watch_lock:
            (version,) = self._watcher.execute("PRAGMA data_version").fetchone()
            seen, self._seen = self._seen, int(version)
        return seen != self._seen

    def close(self) -> None:
        """Leave the database. Safe to call twice; a copy of the object in a forked process is left alone."""
        if self._presence is None or os.getpid() != self._process:
            return
        with translated(self._path), self._watch_lock, self._read_lock, self._write_lock:
            self._presence = None
            self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        self._must_be_here()
        with translated(self._path), self._read_lock:
            yield self._reader

    @contextmanager
    def _writing(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        """Open a transaction that holds the write lock; commit at the end, roll back on an exception.

        Args:
            durable: whether what was written must be on the disk when the block has ended.

        Raises:
            OSError: the log could not be forced to the disk. All was committed by then: a second try finds it written.
        """
        self._must_be_here()
        with translated(self._path):
            with self._write_lock:
                connection = self._writer
                try:
                    _begin(connection)
                    yield connection
                    connection.execute("COMMIT")
                finally:
                    # Also where a signal handler raised between two statements.
                    if connection.in_transaction:
                        connection.rollback()
            # Also where nothing was written: what is then told was written before, and may not be on the disk yet.
            if durable:
                sync_file(self._log)
                self._sync_entry()

    def _sync_entry(self) -> None:
        """Force the log's name to the disk, once: it stays as long as this object has the database open."""
        if not self._named:
            sync_folder(self._log.parent)
            self._named = True

    def _rows(self, name: str, **values: object) -> list[sqlite3.Row]:
        """Return the rows of a named query that reads."""
        with self._reading() as connection:
            return connection.execute(sql(name), values).fetchall()

    def _must_be_here(self) -> None:
        # Asked before any lock: a thread of the parent may have held it at the fork, and never returns it here.
        if os.getpid() != self._process:
            raise InternalError("This store was opened before the process was forked; open one in each process.")
        if self._presence is None:
            raise InternalError("This store is closed.")


def first(connection: sqlite3.Connection, name: str, **values: object) -> sqlite3.Row | None:
    """Run a named statement to its end and return its first row, or None."""
    rows = connection.execute(sql(name), values).fetchall()
    return rows[0] if rows else None


def _begin(connection: sqlite3.Connection) -> None:
    asked = time.monotonic()
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as exc:
            waited = time.monotonic() - asked
            if not is_held(exc) or waited > PATIENCE:
                raise
            time.sleep(random.uniform(*(_PAUSE if waited < _LONG_WAIT else _LONG_PAUSE)))  # noqa: S311
        else:
            return
