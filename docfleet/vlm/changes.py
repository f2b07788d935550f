"""What was changed of the pool while it worked, kept over a restart of the server.

One small file, readable by the owner alone, for it holds the keys that were given with servers:

    {"version": 1, "servers": {"http://10.0.0.5:8001": {"in_pool": true, "key": "..."}}}

A key of null is the settings' own. A server that stands here is in the pool or out of it as the file says; for all
others the settings hold.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loguru import logger

from docfleet.errors import StorageFull, StorageUnavailable
from docfleet.files import is_full, sync_folder
from docfleet.vlm.records import Member

_VERSION = 1
#: Bytes: a thousand servers with keys.
_LONGEST = 1024 * 1024


@dataclass(frozen=True)
class Change:
    """What was last said of a server."""

    in_pool: bool
    #: None: the one that the settings give it.
    key: str | None = field(default=None, repr=False)


class Changes:
    """The file. Read anew by each process that asks; one process writes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, allowed: Iterable[str]) -> dict[str, Change]:
        """Return what was said of the servers that the settings still allow, oldest first. Never raises."""
        try:
            with self._path.open("rb") as file:
                told = json.loads(file.read(_LONGEST))
            if told["version"] != _VERSION:
                raise ValueError(f"version {told['version']}")
            found = {str(url): _change(entry) for url, entry in told["servers"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as exc:
            # Not what it says: it may hold keys.
            logger.warning(
                "{} cannot be read ({}): VLM servers that were added or drained are as the settings say; add or drain "
                "them again",
                self._path.name,
                type(exc).__name__,
            )
            return {}
        known = set(allowed)
        return {url: change for url, change in found.items() if url in known}

    def write(self, changes: dict[str, Change]) -> None:
        """Put these in the place of what the file says, and force them to the disk.

        Raises:
            StorageFull: there is no room; the file is as it was.
            StorageUnavailable: it cannot be written.
        """
        servers = {url: {"in_pool": change.in_pool, "key": change.key} for url, change in changes.items()}
        # Its name is always the same: what a kill leaves is written over by the next one.
        draft = self._path.with_name(f"{self._path.name}.part")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump({"version": _VERSION, "servers": servers}, file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
            sync_folder(self._path.parent)
        except OSError as exc:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            if is_full(exc):
                raise StorageFull("The disk is full: the change would be lost with a restart. Free some room.") from exc
            raise StorageUnavailable(
                "The change cannot be kept, as the data folder cannot be written. Put its disk right."
            ) from exc


def changed(members: Iterable[Member], changes: dict[str, Change]) -> tuple[Member, ...]:
    """Return the members of the pool: those of the settings with all changes made."""
    found = {member.url: member for member in members}
    for url, change in changes.items():
        own = found.pop(url, Member(url=url))
        if change.in_pool:
            found[url] = own if change.key is None else Member(url=url, key=change.key)
    return tuple(found.values())


def _change(entry: dict[str, Any]) -> Change:
    key = entry["key"]
    return Change(in_pool=bool(entry["in_pool"]), key=None if key is None else str(key))
