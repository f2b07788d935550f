"""A document's shelf: pieces of its page stage by what they are and what made them.

What one piece is called, and what it depends on beside the document, its engine and the tier, its engine says.
Nothing here fails work: a piece that cannot be kept or found is made again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from loguru import logger

from docfleet.files import DataFolder
from docfleet.records import Document
from docfleet.shelf.entries import drop_entry, read_entry, write_entry

#: Within a root of shelves: files in the making. No document's folder is called so.
DRAFTS = "drafts"


@dataclass
class FolderShelf:
    """Implements `docfleet.engine.interface.PageShelf` for one attempt at one document."""

    #: Shelves of several documents, with one folder for drafts.
    root: Path
    #: SHA-256 of the document, hexadecimal.
    document: str
    #: What else all pieces depend on, JSON.
    made_by: str
    #: Pieces found and used.
    taken: int = 0
    _touched: set[Path] = field(default_factory=set)

    def get(self, piece: Mapping[str, Any]) -> bytes | None:
        """Return a piece that was kept, whole and unchanged, or None."""
        path = self._path(piece)
        content = read_entry(path)
        if content is not None:
            self.taken += 1
            self._touched.add(path)
        return content

    def put(self, piece: Mapping[str, Any], content: bytes) -> None:
        """Keep a piece, if there is room."""
        path = self._path(piece)
        try:
            write_entry(path, content, self.root / DRAFTS)
        except OSError as exc:
            logger.warning("a finished page could not be kept for later: {}", exc.strerror or exc)
        else:
            self._touched.add(path)

    def holds(self, piece: Mapping[str, Any]) -> bool:
        """Return whether a piece lies here; it is not looked into."""
        return self._path(piece).is_file()

    def forget(self) -> None:
        """Remove all that this attempt took or kept: what was made of it turned out to be unusable."""
        for path in self._touched:
            drop_entry(path)
        self._touched.clear()

    def _path(self, piece: Mapping[str, Any]) -> Path:
        key = json.dumps(piece, sort_keys=True, separators=(",", ":"))
        name = sha256(f"{self.made_by}\n{key}".encode()).hexdigest()
        return self.root / self.document / name


@dataclass(frozen=True)
class Shelves:
    """Finds the shelf of a document for the engines of one worker."""

    folder: DataFolder
    #: Fingerprint of the worker's engines: pieces that others made are not found.
    engines: str
    #: Whether documents' pages may serve other jobs at all.
    shared: bool = True

    def of(self, document: Document, job_id: str, *, engine: str, tier: str, shared: bool) -> FolderShelf:
        """Return the shelf for one attempt.

        Args:
            document: which.
            job_id: whose attempt it is.
            engine: name of the engine that reads it.
            tier: at which it reads.
            shared: whether pieces may come from and go to other jobs; else they serve the job's own attempts alone,
                and go with its working files.
        """
        common = shared and self.shared
        return FolderShelf(
            root=self.folder.pages if common else self.folder.work(job_id) / "pages",
            document=document.sha256,
            made_by=json.dumps([self.engines, engine, tier, document.suffix]),
        )
