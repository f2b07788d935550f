"""All shelves together: what they weigh, which piece goes first, what a crash left behind.

Any number of processes may do any of this at once, beside those that read and write pieces: files only ever appear
whole and disappear whole, and whoever misses one makes it again.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from docfleet.files import remove_tree
from docfleet.shelf.entries import drop_entry
from docfleet.shelf.folder import DRAFTS

_DOCUMENT = re.compile(r"[0-9a-f]{64}")
#: A draft older than this many seconds belongs to nobody: writing one takes milliseconds.
_STALE_DRAFT = 600.0
#: A folder that changed within this many seconds may change again without its time telling (clocks tick in steps).
_UNSETTLED = 2.0
#: Share of the limit that is left after making room, so that not every look has to.
_LEFT = 0.9


class Weights:
    """Bytes on the shelves; only folders that changed since the last look are looked into."""

    def __init__(self, root: Path) -> None:
        self._root = root
        #: By document: when its folder changed last, and the bytes in it.
        self._known: dict[str, tuple[int, int]] = {}

    def documents(self) -> list[str]:
        """Return the documents that have a shelf."""
        return [folder.name for folder in _entries(self._root) if _DOCUMENT.fullmatch(folder.name)]

    def total(self) -> int:
        """Return the bytes of all pieces."""
        known: dict[str, tuple[int, int]] = {}
        settled = time.time_ns() - int(_UNSETTLED * 1e9)
        bytes_held = 0
        for name in self.documents():
            folder = self._root / name
            try:
                changed = folder.stat().st_mtime_ns
            except FileNotFoundError:
                continue
            held = self._known.get(name)
            if held is None or held[0] != changed:
                held = (changed, sum(size for _, size, _ in _pieces(folder)))
            if changed < settled:
                known[name] = held
            bytes_held += held[1]
        self._known = known
        return bytes_held


def make_room(root: Path, limit: int) -> int:
    """Remove the pieces that were not used for longest until the others fit; return how many went.

    Args:
        root: of all shelves.
        limit: bytes; nothing happens unless there are more.
    """
    folders = [folder for folder in _entries(root) if _DOCUMENT.fullmatch(folder.name)]
    pieces = sorted((piece for folder in folders for piece in _pieces(folder)), key=lambda piece: piece[0])
    held = sum(size for _, size, _ in pieces)
    if held <= limit:
        return 0
    removed = 0
    for _, size, path in pieces:
        if held <= limit * _LEFT:
            break
        drop_entry(path)
        held -= size
        removed += 1
    for folder in folders:
        # Only an empty folder goes; whoever is about to write there makes it again.
        with suppress(OSError):
            folder.rmdir()
    return removed


def drop_documents(root: Path, documents: Iterable[str]) -> None:
    """Remove the shelves of documents."""
    for name in documents:
        if _DOCUMENT.fullmatch(name):
            remove_tree(root / name)


def clear_drafts(root: Path, older_than: float = _STALE_DRAFT) -> None:
    """Remove what killed processes left half written, if it is older than so many seconds."""
    for draft in _entries(root / DRAFTS):
        with suppress(OSError):
            if time.time() - draft.stat().st_mtime >= older_than:
                drop_entry(draft)


def _pieces(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield (last use, bytes, path)."""
    try:
        with os.scandir(folder) as found:
            for entry in found:
                with suppress(OSError):
                    stat = entry.stat(follow_symlinks=False)
                    yield stat.st_mtime, stat.st_size, Path(entry.path)
    except OSError:
        return


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
