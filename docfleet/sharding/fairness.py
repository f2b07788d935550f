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

*Short beside long.* Pages of a long document may be read for a minute at a time, on all workers at once. When a short
document arrives and nobody is free, whoever has read as many pages as it has delivers those, puts the rest back in its
old place (its caller is given back what it paid for that) and takes the short one first. So a short document waits for
the page under way, and a long one gets at least as many pages as each short one that overtakes it. What cannot be cut
cannot make room: of long pieces of that kind one worker is kept free.
"""

from __future__ import annotations

from docfleet.records import Stage

#: A document that nobody has looked into yet may be cut when it is: its length counts only so far.
WHOLE_TURN = 16
#: Expected seconds from which on a piece that cannot be cut counts as long: of such pieces one fewer runs at a time
#: than there are workers, so that one is left for short work. (With one worker nothing can be left.)
LONG_SECONDS = 5.0
#: Pages up to which a document is short: who reads pages of a longer one makes room for it, between two pages.
SHORT_PAGES = 8


def arrival_pages(pages: int) -> int:
    """Return how far from the lane's clock a caller begins whose first document has so many pages."""
    return min(pages, WHOLE_TURN)


def charge(stage: Stage, pages: int) -> int:
    """Return the pages by which a caller's turn moves on when a piece is claimed.

    The document stage is free: it goes over pages that were paid for.
    """
    return 0 if stage is Stage.DOCUMENT else pages
