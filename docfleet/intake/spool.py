"""Files of uploads under way: written once, hashed on the way, and gone if anything goes wrong.

Runs in threads, one step at a time for each request; nothing here touches the event loop.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from docfleet.errors import DocumentTooLarge, InvalidRequest, StorageFull, StorageUnavailable
from docfleet.files import DataFolder, is_full, remove_tree

T = TypeVar("T")

#: Documents in one request.
MAX_FILES = 100
_BUFFER = 256 * 1024
#: Bytes of the disk that uploads leave to the rest of the server.
RESERVE = 32 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A document that lies on disk and is not a job yet. Whoever holds it removes `path` in the end."""

    path: Path
    #: Clean: for people, never used as a path.
    filename: str
    #: Bytes.
    size: int
    #: Hexadecimal digest of the bytes.
    sha256: str
    #: As they came; not validated yet.
    options: dict[str, Any]


class SpoolFile:
    """One upload's file. Made by `Spool.new_file`."""

    def __init__(self, path: Path, count: Callable[[int], None]) -> None:
        self.path = path
        self.size = 0
        self._count = count
        self._digest = hashlib.sha256()
        # Upload names are made by us and never used twice: one that exists is no upload of ours.
        self._file = path.open("xb", buffering=_BUFFER)

    def write(self, data: bytes | memoryview) -> None:
        """Append.

        Raises:
            DocumentTooLarge: the request's documents together are over the limit.
            OSError: the disk refuses.
        """
        self._count(len(data))
        self._digest.update(data)
        self._file.write(data)
        self.size += len(data)

    def close(self) -> None:
        """Write out what is buffered."""
        self._file.close()

    def abandon(self) -> None:
        """Close without caring for the content, and remove the file."""
        with suppress(OSError):
            self._file.close()
        remove_tree(self.path)

    def upload(self, filename: str, options: dict[str, Any]) -> Upload:
        """Return what is known of the closed file."""
        return Upload(
            path=self.path, filename=filename, size=self.size, sha256=self._digest.hexdigest(), options=options
        )


class Spool:
    """The files of one request."""

    def __init__(self, folder: DataFolder, limit: int, reserve: int = RESERVE) -> None:
        """Make a spool; nothing is created yet.

        Args:
            folder: where uploads lie.
            limit: bytes of all documents of the request together, decoded.
            reserve: bytes of the disk to leave free.
        """
        self._reserve = reserve
        self._folder = folder
        self._limit = limit
        self._size = 0
        self._files: list[SpoolFile] = []
        # Held for each step: a cancelled request's thread may still run, and must not make files after the others
        # are removed.
        self._lock = threading.Lock()
        self._discarded = False

    def check_room(self, size: int) -> None:
        """Refuse early what would fill the disk: a full one takes the store and the workers down with it.

        Raises:
            StorageFull: after `size` more bytes too little would be left.
        """
        if shutil.disk_usage(self._folder.incoming).free < size + self._reserve:
            raise _no_room()

    def new_file(self) -> SpoolFile:
        """Return a new file, empty and open.

        Raises:
            InvalidRequest: the request holds too many.
        """
        if len(self._files) >= MAX_FILES:
            raise InvalidRequest(f"The request holds more than {MAX_FILES} documents; send them in several requests.")
        file = SpoolFile(self._folder.new_upload(), self._count)
        self._files.append(file)
        return file

    def step(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run a piece of the request's work, unless everything was discarded meanwhile.

        Raises:
            StorageFull: the disk is full.
        """
        with self._lock:
            if self._discarded:
                raise InvalidRequest("The request was given up.")
            with full_disk_told():
                return work(*arguments)

    def discard(self) -> None:
        """Remove everything, after the step under way; nothing is made after that."""
        with self._lock:
            self._discarded = True
            for file in self._files:
                file.abandon()

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > self._limit:
            raise too_large(self._limit)


@contextmanager
def full_disk_told() -> Iterator[None]:
    """Turn the system's word for a full disk into ours.

    Raises:
        StorageFull: the disk is full.
        StorageUnavailable: the disk has become read-only.
    """
    try:
        yield
    except OSError as exc:
        if is_full(exc):
            raise _no_room() from exc
        if exc.errno == errno.EROFS:
            raise StorageUnavailable(
                "The server's disk is read-only now. Try again when whoever runs the server has seen to it.",
                retry_after=30,
            ) from exc
        raise


def _no_room() -> StorageFull:
    return StorageFull("There is no room left on the disk for this document; try again later.", retry_after=60)


def too_large(limit: int) -> DocumentTooLarge:
    """Return the error of a request over the limit (bytes)."""
    shown = f"{limit / 1024**2:.0f} MB" if limit >= 1024**2 else f"{limit} bytes"
    return DocumentTooLarge(
        f"The documents of one request may have {shown} together. Send fewer or smaller ones, or have the server's "
        "limit (max_body_mb) raised."
    )
