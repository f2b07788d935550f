"""Finished pages that are kept for others: as long as a job of the document is, within a size, never the last disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from loguru import logger

from docfleet.shelf.keeping import Weights, clear_drafts, drop_documents, make_room
from docfleet.store.reuse import Shelved


class PageKeeper:
    """Looks after all shelves."""

    def __init__(self, root: Path, store: Shelved, *, limit: int, reserve: int) -> None:
        """Make the keeper.

        Args:
            root: of all shelves.
            store: knows the jobs.
            limit: bytes that the shelves may hold together.
            reserve: bytes of the disk that are to stay free: below, pages make room for documents.
        """
        self._root = root
        self._store = store
        self._limit = limit
        self._reserve = reserve
        self._weights = Weights(root)

    def look(self) -> int:
        """Remove what has no job any more, and what there is no room for; return how many pieces went for that."""
        clear_drafts(self._root)
        documents = self._weights.documents()
        if not documents:
            return 0
        # Listed before asked: whoever is accepted in between finds the shelf empty at worst.
        drop_documents(self._root, set(documents) - self._store.shared_documents(documents))
        held = self._weights.total()
        room = min(self._limit, held + shutil.disk_usage(self._root).free - self._reserve)
        if held <= room:
            return 0
        removed = make_room(self._root, max(room, 0))
        logger.info("removed {} finished pages that were not used for longest: {} bytes are the limit", removed, room)
        return removed
