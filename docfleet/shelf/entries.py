"""One kept piece of a document as a file: what it says of itself is checked before it is believed.

    docfleet piece 1 <sha256 of name and content> <length of the content>
    <content>

A file that is torn, was cut off, changed or lies under another name is none.
"""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

_MAGIC = b"docfleet piece 1"
#: A header is 16 + 64 + a length of at most 20 digits, two blanks and the line's end.
_LONGEST_HEADER = 128


def write_entry(path: Path, content: bytes, drafts: Path) -> None:
    """Write a piece, all of it or nothing, over whatever lies there. Many processes may write the same at once.

    It is not forced to the disk: after a power cut it is whole, or fails the check.

    Args:
        path: where; its name is part of what is checked.
        content: the piece.
        drafts: folder for files in the making, on the same file system. A kill leaves one there.

    Raises:
        OSError: there is no room, or the folder is gone.
    """
    drafts.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = drafts / uuid.uuid4().hex
    try:
        draft.write_bytes(_header(path.name, content) + content)
        draft.replace(path)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def read_entry(path: Path) -> bytes | None:
    """Return the piece and mark it as used now; None where there is none, and one that fails the check is removed."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    end = data.find(b"\n", 0, _LONGEST_HEADER) + 1
    content = data[end:]
    if not end or data[:end] != _header(path.name, content):
        drop_entry(path)
        return None
    with suppress(OSError):
        os.utime(path)
    return content


def drop_entry(path: Path) -> None:
    """Remove a piece; fine if it is gone already."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _header(name: str, content: bytes) -> bytes:
    digest = sha256(name.encode() + b"\n" + content).hexdigest()
    return b"%s %s %d\n" % (_MAGIC, digest.encode(), len(content))
