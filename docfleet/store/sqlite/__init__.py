"""The store on SQLite, for one machine: `open_store()`. The only package that imports sqlite3."""

from __future__ import annotations

from docfleet.store.sqlite.store import SqliteStore, open_store

__all__ = ["SqliteStore", "open_store"]
