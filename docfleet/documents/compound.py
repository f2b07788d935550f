"""Tell the older Office types from one another: doc, xls and ppt are streams in one compound file (OLE)."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import olefile

from docfleet.errors import BrokenDocument, EncryptedDocument

SIGNATURE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"

#: Word: the flag in the header of the main stream ([MS-DOC] 2.5.1, FibBase.fEncrypted).
_DOC_FLAGS_AT = 10
_DOC_ENCRYPTED = 0x0100
#: Excel: the record that says how the rest is encrypted, and the end of the part that may hold it ([MS-XLS] 2.4.117).
_XLS_FILEPASS = 0x002F
_XLS_END = 0x000A
#: PowerPoint: the token of the current-user stream ([MS-PPT] 2.3.2).
_PPT_TOKEN_AT = 12
_PPT_ENCRYPTED = 0xF3D1C4DF
#: Bytes of a stream that are read for this.
_HEAD = 64 * 1024


def compound_suffix(path: Path) -> str | None:
    """Return doc, xls or ppt by the streams in the file, or None for another program's file.

    Raises:
        EncryptedDocument: it asks for a password. (The newer Office types are wrapped in a compound file then.)
        BrokenDocument: it is damaged.
    """
    try:
        with olefile.OleFileIO(str(path)) as compound:
            return _suffix(compound)
    except (EncryptedDocument, MemoryError):
        raise
    except Exception as exc:
        # olefile answers damage with errors of many types.
        raise BrokenDocument(
            f"The Office file is damaged or was cut off on its way ({type(exc).__name__}). Send it again."
        ) from exc


def _suffix(compound: Any) -> str | None:
    if compound.exists("EncryptedPackage"):
        raise _asks_for_password()
    if compound.exists("WordDocument"):
        head = _head(compound, "WordDocument")
        if _number("<H", head, _DOC_FLAGS_AT) & _DOC_ENCRYPTED:
            raise _asks_for_password()
        return "doc"
    for name in ("Workbook", "Book"):
        if compound.exists(name):
            if _has_filepass(_head(compound, name)):
                raise _asks_for_password()
            return "xls"
    if compound.exists("PowerPoint Document"):
        if compound.exists("Current User") and (
            _number("<I", _head(compound, "Current User"), _PPT_TOKEN_AT) == _PPT_ENCRYPTED
        ):
            raise _asks_for_password()
        return "ppt"
    return None


def _head(compound: Any, name: str) -> bytes:
    with compound.openstream(name) as stream:
        head: bytes = stream.read(_HEAD)
        return head


def _number(form: str, head: bytes, place: int) -> int:
    return int(struct.unpack_from(form, head, place)[0])


def _has_filepass(head: bytes) -> bool:
    place = 0
    while place + 4 <= len(head):
        kind, length = struct.unpack_from("<HH", head, place)
        if kind == _XLS_FILEPASS:
            return True
        if kind == _XLS_END:
            return False
        place += 4 + length
    return False


def _asks_for_password() -> EncryptedDocument:
    return EncryptedDocument("The Office file asks for a password. Remove it, and send the file again.")
