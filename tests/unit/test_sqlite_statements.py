"""The SQL that lies in files: every statement is used, every name exists, and SQLite stays behind its door."""

from __future__ import annotations

import ast
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from docfleet.store.sqlite.schema import migrations
from docfleet.store.sqlite.statements import statements

PACKAGE = Path(__file__).resolve().parents[2] / "docfleet"
STORE = PACKAGE / "store" / "sqlite"
#: How the modules name a statement: `sql("job")`, `self._rows("job")`, `first(connection, "job")`.
USE = re.compile(r"""(?:\bsql\(|\._rows\(|\bfirst\(connection, )"(\w+)\"""")


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_the_statements_in_the_files_are_those_that_the_modules_use() -> None:
    used = {name for path in STORE.glob("*.py") for name in USE.findall(path.read_text("utf-8"))}
    assert used == set(statements())


def test_every_statement_is_one_statement_of_sql_that_fits_the_schema() -> None:
    connection = sqlite3.connect(":memory:")
    for step in migrations():
        connection.executescript(step.script)
    for name, text in statements().items():
        parameters = dict.fromkeys(re.findall(r":(\w+)", text))
        # Compiles the statement against the real tables, and refuses a second one behind it.
        assert connection.execute(f"EXPLAIN {text}", parameters).fetchall(), name


def test_migrations_are_numbered_from_one_without_a_gap() -> None:
    names = sorted(path.name for path in (STORE / "migrations").iterdir())
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    assert [f"{step.number:04d}_{step.name}.sql" for step in migrations()] == names


def test_only_the_store_on_sqlite_imports_sqlite3() -> None:
    importers = {path for path in PACKAGE.rglob("*.py") if "sqlite3" in imported(path)}
    assert importers
    assert {path.parent for path in importers} == {STORE}
