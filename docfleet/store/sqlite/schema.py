"""The schema as numbered steps, `migrations/NNNN_name.sql`; the database's `user_version` says how far it has come.

A released step is never edited: a change is a new step. A change of `ParseOptions` that would refuse options stored
by an earlier version needs a step too, which rewrites them.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from loguru import logger

from docfleet.errors import ConfigurationError

_FILE = re.compile(r"(\d{4})_(\w+)\.sql")


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One step of the schema."""

    number: int
    name: str
    script: str


@cache
def migrations() -> tuple[Migration, ...]:
    """Return all steps in order, numbered from 1 without a gap.

    Raises:
        ValueError: a number is missing or given twice.
    """
    found = []
    for entry in files(__package__).joinpath("migrations").iterdir():
        if match := _FILE.fullmatch(entry.name):
            found.append(Migration(number=int(match[1]), name=match[2], script=entry.read_text("utf-8")))
    found.sort(key=lambda step: step.number)
    if [step.number for step in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"migrations must be numbered 1, 2, 3, ...: {[step.number for step in found]}")
    return tuple(found)


def version_of(connection: sqlite3.Connection) -> int:
    """Return the number of the last step taken; 0 for a fresh database."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def upgrade(connection: sqlite3.Connection, path: Path, steps: Sequence[Migration] | None = None) -> None:
    """Bring the database to the newest step; each step is one transaction, taken once however many try.

    Args:
        connection: in autocommit mode.
        path: for messages.
        steps: all steps this code knows; the package's own unless a test gives others.

    Raises:
        ConfigurationError: the database is newer than the code.
    """
    steps = migrations() if steps is None else steps
    known, found = len(steps), version_of(connection)
    if found > known:
        raise ConfigurationError(
            f"{path} was written by a newer version (schema {found}; this one knows {known}). "
            "Install that version again, or start with another --data-dir."
        )
    for step in steps[found:]:
        _take(connection, step)
    if 0 < found < known:
        logger.info("{} upgraded from schema {} to {}", path.name, found, known)


def _take(connection: sqlite3.Connection, step: Migration) -> None:
    connection.execute("BEGIN EXCLUSIVE")
    try:
        # Another process may have been first while this one waited for the lock.
        if version_of(connection) < step.number:
            for statement in _split(step.script):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {step.number}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.rollback()


def _split(script: str) -> Iterator[str]:
    # `executescript` would commit the transaction that keeps a step whole.
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
