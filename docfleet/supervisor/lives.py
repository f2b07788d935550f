"""Documents that take the whole server down each time: found by the lives of the server that ended with them.

Where one limit of memory holds for all processes, a page that eats memory kills all of them, and with every start the
next server. But servers are killed for other reasons, too, and then all that they read is lost with them. So a piece
is blamed only if five lives in a row were ended by a kill while it was read, and if in the last nothing else was. Those
that were there as often wait longer, each for itself: the innocent get through, and what kills is alone in the end.
A server that always has something else to read does not come to that; it is killed once in some minutes then.

How often it was is kept with the cause of the last attempt. An ordered stop begins the count anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from docfleet.records import Shard
from docfleet.sharding.verdicts import Fault

#: Where the cause of an attempt tells how many lives were lost in a row.
KEY = "lives"
#: Lives in a row from which on a piece is suspected.
SUSPECTED = 5
#: Seconds by which suspected pieces are read apart: longer than workers take to load, and to read most pieces.
APART = 180.0


@dataclass(frozen=True)
class Loss:
    """What the loss of a piece with its server means."""

    fault: Fault
    #: Of the server, in a row, that were ended by a kill while the piece was read.
    lives: int
    #: Seconds that the next attempt waits besides.
    wait: float = 0.0


def losses(lost: Sequence[Shard], *, killed: bool) -> dict[int, Loss]:
    """Return what each loss means, by the number of the piece.

    Args:
        lost: all that was lost with the last server.
        killed: whether that was killed; False: it was stopped in order.
    """
    if not killed:
        return {shard.id: Loss(Fault.NOBODY, 0) for shard in lost}
    lives = {shard.id: _lives_before(shard) + 1 for shard in lost}
    suspected = sorted(number for number, count in lives.items() if count >= SUSPECTED)
    if len(lost) == len(suspected) == 1:
        return {number: Loss(Fault.PROCESS, count) for number, count in lives.items()}
    # Another one goes first each time: one that takes long would be met by the one that kills, again and again.
    first = max(lives.values(), default=0) % max(1, len(suspected))
    waits = {number: APART * place for place, number in enumerate(suspected[first:] + suspected[:first], start=1)}
    return {number: Loss(Fault.NOBODY, count, waits.get(number, 0.0)) for number, count in lives.items()}


def _lives_before(shard: Shard) -> int:
    return int((shard.error or {}).get(KEY, 0))
