"""File names from outside: made fit for people to read. They never become paths."""

from __future__ import annotations

import unicodedata

#: Bytes of UTF-8, as file systems have it.
MAX_BYTES = 255
#: A longer end is not a type, and is not kept when a name is shortened.
_MAX_EXTENSION = 16
#: Called so where the caller gives no name.
DEFAULT = "document"

#: Control characters, halves of characters, and line and paragraph separators.
_UNFIT = frozenset({"Cc", "Cs", "Zl", "Zp"})
#: They change the order in which the rest is shown ("fdp.exe" as "exe.pdf"), or are invisible at the start of a text.
_DISGUISES = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


def clean_filename(name: str | None, default: str = DEFAULT) -> str:
    """Return the last part of `name` without what does not belong into a name; Unicode is kept, in form NFC.

    Never empty, never "." or "..", at most `MAX_BYTES` bytes in UTF-8. Cleaning twice changes nothing.

    Args:
        name: as the caller wrote it, with a path of any system perhaps.
        default: returned where nothing is left; itself a clean name.
    """
    last = (name or "").replace("\\", "/").rpartition("/")[2]
    fit = "".join(c for c in last if unicodedata.category(c) not in _UNFIT and c not in _DISGUISES)
    text = _shortened(unicodedata.normalize("NFC", fit).strip())
    return text if text.strip(".") else default


def _shortened(text: str) -> str:
    if len(text.encode()) <= MAX_BYTES:
        return text
    stem, dot, extension = text.rpartition(".")
    end = (dot + extension) if stem and len(extension.encode()) <= _MAX_EXTENSION else ""
    kept = text.removesuffix(end).encode()[: MAX_BYTES - len(end.encode())].decode("utf-8", "ignore")
    return kept.rstrip() + end
