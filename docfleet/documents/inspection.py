"""Look at a document before anything else does: its type, its pages, and whether it is safe to read.

Runs in a process of its own (`docfleet.intake.inspector`): decoders crash and hang on files made for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from docfleet.documents.archive import check_archive
from docfleet.documents.entities import PROLOG_LIMIT, check_prolog
from docfleet.documents.frames import frame_count
from docfleet.documents.kinds import IMAGES, PACKAGES, kind_of
from docfleet.documents.pdf import page_count
from docfleet.errors import EmptyDocument


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a look at the file tells."""

    #: Type by content, lower-case, without dot.
    suffix: str
    #: Pages of a PDF, frames of an image, 1 for what has no pages before it is laid out.
    pages: int


def inspect(path: Path, filename: str) -> Inspection:
    """Tell type and pages, and refuse what cannot or should not be read.

    Args:
        path: the file; its name means nothing.
        filename: the caller's name; chooses between kinds of text only.

    Raises:
        EmptyDocument: no bytes, or no pages.
        UnsupportedType: no type that is read.
        EncryptedDocument: it asks for a password.
        BrokenDocument: it is damaged or was cut off.
        HostileDocument: it is built to exhaust the reader.
    """
    if path.stat().st_size == 0:
        raise EmptyDocument("The file has no bytes. Send the document again.")
    suffix = kind_of(path, filename)
    pages = 1
    if suffix == "pdf":
        pages = page_count(path)
    elif suffix in IMAGES:
        pages = frame_count(path, suffix)
    elif suffix in PACKAGES:
        check_archive(path)
    elif suffix == "html":
        with path.open("rb") as file:
            check_prolog(file.read(PROLOG_LIMIT), filename)
    return Inspection(suffix=suffix, pages=pages)
