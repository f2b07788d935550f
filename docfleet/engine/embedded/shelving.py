"""A recognised page as one piece for the shelf: its record, then the pictures that were cut out of it.

What is read off a page depends on the page and on nothing that a caller may choose: whether it is to be read at all
is decided before the shelf is asked.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from docfleet.engine.embedded.parts import PageRecord, PageState, PartWriter, record_from
from docfleet.engine.interface import PageShelf


def piece_of(page: int) -> dict[str, Any]:
    """Return the name of a recognised page on its document's shelf."""
    return {"recognised page": page}


def keep(shelf: PageShelf, record: PageRecord, writer: PartWriter) -> None:
    """Put a recognised page, and its pictures from the part, on the shelf."""
    pictures = [writer.read(picture.file) for picture in record.pictures]
    head = {"record": asdict(record), "pictures": [len(jpeg) for jpeg in pictures]}
    told = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()
    shelf.put(piece_of(record.page), told + b"\n" + b"".join(pictures))


def take(shelf: PageShelf, page: int, writer: PartWriter) -> PageRecord | None:
    """Return the page from the shelf, its pictures written into the part; None if it is not there."""
    content = shelf.get(piece_of(page))
    if content is None:
        return None
    try:
        told, _, rest = content.partition(b"\n")
        head = json.loads(told)
        record = record_from(head["record"])
        lengths = [int(length) for length in head["pictures"]]
    except (ValueError, KeyError, TypeError):
        return None
    sound = record.page == page and record.state is PageState.RECOGNISED
    if not sound or len(lengths) != len(record.pictures) or sum(lengths) != len(rest):
        return None
    for number, length in enumerate(lengths):
        writer.picture(page, number, rest[:length])
        rest = rest[length:]
    return record
