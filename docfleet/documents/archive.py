"""Guard against archives that unpack to far more than they weigh. Nothing is unpacked to disk under a name of theirs.

Office files are zip archives, and readers unpack their parts into memory. What an archive says of itself is checked
first, because it is cheap; then every part is unpacked in pieces and counted, because it may lie.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from docfleet.documents.entities import PROLOG_LIMIT, check_prolog
from docfleet.errors import BrokenDocument, DocfleetError, EncryptedDocument, HostileDocument

SIGNATURE = b"PK\x03\x04"

_PIECE = 256 * 1024
#: A local header without its name.
_LOCAL_HEADER = 30
_ENCRYPTED_FLAG = 0x1 | 0x40
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})


@dataclass(frozen=True, kw_only=True)
class ArchiveLimits:
    """What an archive may hold, archives within it included."""

    #: Parts.
    entries: int = 20_000
    #: Bytes unpacked.
    unpacked: int = 1024 * 1024 * 1024
    #: Bytes unpacked for each byte packed, once `ratio_from` bytes are unpacked: small files may well be all blanks.
    ratio: int = 150
    ratio_from: int = 64 * 1024 * 1024
    #: Archives within archives (an Excel sheet in a Word file is one).
    depth: int = 2


DEFAULT_LIMITS = ArchiveLimits()


@contextmanager
def open_archive(file: IO[bytes] | Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive, turning whatever its damage makes the reader raise into an error of ours.

    Raises:
        BrokenDocument: it is damaged or was cut off.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except (DocfleetError, MemoryError):
        raise
    except Exception as exc:
        # zipfile and zlib raise a dozen types for damage: BadZipFile, zlib.error, EOFError, struct.error, ...
        raise BrokenDocument(
            f"The file is damaged or was cut off on its way ({type(exc).__name__}). Send it again."
        ) from exc


def check_archive(path: Path, limits: ArchiveLimits = DEFAULT_LIMITS) -> None:
    """Unpack everything once, counting and keeping nothing.

    Raises:
        HostileDocument: it holds more than `limits`, its parts overlap, or its XML is built to explode.
        EncryptedDocument: a part is encrypted.
        BrokenDocument: it is damaged.
    """
    with path.open("rb") as file:
        _Guard(path, limits).check(file, depth=0)


class _Guard:
    def __init__(self, path: Path, limits: ArchiveLimits) -> None:
        self._folder = path.parent
        self._packed = path.stat().st_size
        self._limits = limits
        self._entries = 0
        self._unpacked = 0

    def check(self, file: IO[bytes], depth: int) -> None:
        if depth > self._limits.depth:
            raise HostileDocument("The file holds archives within archives within archives. Send what is in them.")
        with open_archive(file) as archive:
            parts = archive.infolist()
            self._check_directory(parts)
            for part in parts:
                if not part.is_dir():
                    self._check_part(archive, part, depth)

    def _check_directory(self, parts: list[zipfile.ZipInfo]) -> None:
        self._entries += len(parts)
        if self._entries > self._limits.entries:
            raise HostileDocument(f"The file holds more than {self._limits.entries} parts.")
        for part in parts:
            if part.flag_bits & _ENCRYPTED_FLAG:
                raise EncryptedDocument("The file asks for a password. Remove it, and send the file again.")
            if part.compress_type not in _METHODS:
                raise BrokenDocument(f"Part {part.filename!r} is packed in a way that office programs do not know.")
        self._refuse_if_over(self._unpacked + sum(part.file_size for part in parts))
        _check_overlap(parts)

    def _check_part(self, archive: zipfile.ZipFile, part: zipfile.ZipInfo, depth: int) -> None:
        with archive.open(part) as stream:
            head = stream.read(PROLOG_LIMIT)
            self._count(len(head))
            check_prolog(head, part.filename)
            if not head.startswith(SIGNATURE):
                while piece := stream.read(_PIECE):
                    self._count(len(piece))
                return
            # Has no name, so nothing stays if the process is killed.
            with tempfile.TemporaryFile(dir=self._folder) as copy:
                copy.write(head)
                while piece := stream.read(_PIECE):
                    self._count(len(piece))
                    copy.write(piece)
                self._check_inner(copy, depth + 1)

    def _check_inner(self, copy: IO[bytes], depth: int) -> None:
        try:
            self.check(copy, depth)
        except (BrokenDocument, EncryptedDocument):
            # An attachment that cannot be read does not make the document unreadable.
            return

    def _count(self, size: int) -> None:
        self._unpacked += size
        self._refuse_if_over(self._unpacked)

    def _refuse_if_over(self, unpacked: int) -> None:
        limits = self._limits
        if unpacked > limits.unpacked:
            raise HostileDocument(f"The file unpacks to more than {limits.unpacked // 1024**2} MB.")
        if unpacked > limits.ratio_from and unpacked > limits.ratio * self._packed:
            raise HostileDocument(f"The file unpacks to more than {limits.ratio} times its size, as archive bombs do.")


def _check_overlap(parts: list[zipfile.ZipInfo]) -> None:
    """Refuse parts that share bytes: so a small file can hold the same megabytes a thousand times."""
    end = 0
    for part in sorted(parts, key=lambda part: part.header_offset):
        if part.header_offset < end:
            raise HostileDocument("Parts of the file overlap, as in archive bombs.")
        end = part.header_offset + _LOCAL_HEADER + part.compress_size
