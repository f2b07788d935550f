"""How fast pages are read, over the last minute. The functions run inside the caller's transaction.

Pages of a piece that is delivered count in the seconds in which they were read, and those of pieces that are held count
already: a shard that takes a minute is no minute of silence, nor twenty pages in the second of its end.
"""

from __future__ import annotations

import sqlite3
from collections import Counter

from docfleet.store.sqlite.statements import sql

#: Seconds over which speed is measured.
SPEED_WINDOW = 60


def record_speed(
    connection: sqlite3.Connection, pages: int, claimed_at: float | None, now: float, slot: int | None
) -> None:
    """Count pages that were just delivered, evenly over the seconds since `claimed_at`; forget what is too old."""
    last = int(now)
    first = last if claimed_at is None else min(last, int(claimed_at))
    span = last - first + 1
    rows = []
    for second in range(max(first, last - SPEED_WINDOW + 1), last + 1):
        before = second - first
        if share := (before + 1) * pages // span - before * pages // span:
            rows.append({"second": second, "pages": share, "slot": slot})
    connection.executemany(sql("record_speed"), rows)
    connection.execute(sql("forget_speed"), {"before": last - 2 * SPEED_WINDOW})


def recent_pages(connection: sqlite3.Connection, now: int) -> tuple[dict[str, float], int]:
    """Return the pages that each device read in the last minute, and for how many seconds of it there was work."""
    pages: Counter[str] = Counter()
    window = now - SPEED_WINDOW + 1
    since = now
    for row in connection.execute(sql("device_speeds"), {"since": window, "now": now}):
        pages[row["device"]] += row["pages"]
        since = min(since, row["recent_since"])
    for row in connection.execute(sql("pages_under_way")):
        claimed_at = min(now, int(row["claimed_at"]))
        begun = max(window, claimed_at)
        pages[row["device"]] += row["pages"] * (now - begun + 1) / (now - claimed_at + 1)
        since = min(since, begun)
    return dict(pages), now - since + 1


def recent_speeds(connection: sqlite3.Connection, now: int) -> dict[str, float]:
    """Return each device's pages a second over the last minute, or the part of it in which there was work.

    A server that has just begun is not as slow as the minute's mean.
    """
    pages, seconds = recent_pages(connection, now)
    return {device: read / seconds for device, read in pages.items()}
