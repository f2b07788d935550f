"""Who is served next: lanes, in them callers, of each caller its documents. Plain numbers; the store keeps the clocks.

Callers take turns by start-time fair queueing (Goyal, Vin, Cheng, "Start-Time Fair Queueing", SIGCOMM 1996), which
stays fair whatever the number and speed of the workers is, and so may be put above another order: a caller's own
documents take turns by `docfleet.sharding.cutting.turns`. Each caller has a turn on the clock of its lane. The piece of
the caller with the earliest turn is claimed; the clock moves to that turn, and the caller's own turn moves on by the
pages of the piece. So of two callers who both always have work, none is ahead of the other by more than one piece of
each (the paper's theorem 1), however many documents each has sent.

Two things differ from the paper. A caller who arrives gets the clock's time plus the pages of its first piece, as in
self-clocked fair queueing (Golestani, INFOCOM 1994): so short work goes first, and since each arrival moves the clock
on, an endless row of new callers starves nobody. And what a caller could not use (its only piece was held back) is not
kept for later.
"""

from __future__ import annotations

from docfleet.records import Stage

#: A document that nobody has looked into yet may be cut when it is: its length counts only so far.
WHOLE_TURN = 16
#: Expected seconds from which on a piece that cannot be cut counts as long: of such pieces one fewer runs at a time
#: than there are workers, so that one is left for short work. (With one worker nothing can be left.)
LONG_SECONDS = 5.0


def arrival_pages(pages: int) -> int:
    """Return how far from the lane's clock a caller begins whose first document has so many pages."""
    return min(pages, WHOLE_TURN)


def charge(stage: Stage, pages: int) -> int:
    """Return the pages by which a caller's turn moves on when a piece is claimed.

    The document stage is free: it goes over pages that were paid for.
    """
    return 0 if stage is Stage.DOCUMENT else pages
