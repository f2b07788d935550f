"""Cut a document's page stage into shards: guided self-scheduling.

Each shard takes a share of the work that is left, so that the first are long and the last short: little is lost to
handing over, and near the end no worker idles while another still has a long piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from docfleet.records import ShardPlan, Stage
from docfleet.sharding.fairness import WHOLE_TURN

#: Seconds of work below which a shard is not worth its hand-over (claim, open the document, deliver: some 50 ms).
SHORTEST = 1.0
#: Seconds of work above which a shard is cut, whatever the number of workers: what a crash can cost, and how long
#: other documents wait for a worker.
LONGEST = 60.0
#: Seconds of work below which a document is not cut.
WORTH_CUTTING = 4.0
#: A shard takes 1/(this x workers) of what is left.
_SHARE = 2


@dataclass(frozen=True, kw_only=True)
class Cuts:
    """What an engine says of a document's page stage: what each page costs and where it may be cut."""

    #: Expected seconds on one worker, one for each page of the wanted range; 0 where there is nothing to do.
    costs: tuple[float, ...]
    #: Pages, counted from 0 in the document, at which a shard may begin. The first of the range need not be named.
    starts: frozenset[int]
    #: Expected seconds of the document stage, which is never cut.
    finish: float = 0.0
    #: What the engine decided once for the whole document; every shard's request carries it. JSON.
    decisions: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Expected seconds of the document in one piece."""
        return sum(self.costs) + self.finish


def cut(cuts: Cuts, first_page: int, workers: int) -> list[ShardPlan]:
    """Return page shards and the document shard, or nothing if the document is better left whole.

    Args:
        cuts: the engine's word on pages `first_page`, `first_page + 1`, ...
        first_page: of the wanted range, counted from 0.
        workers: how many may take shards at once, at least 1.

    Returns:
        Shards over the whole range in page order, the document stage last; empty where it is not worth it.
    """
    left = sum(cuts.costs)
    if left < WORTH_CUTTING:
        return []
    ranges: list[tuple[int, int]] = []
    begun, held, most = first_page, 0.0, _target(left, workers)
    last_page = first_page + len(cuts.costs) - 1
    for page, cost in enumerate(cuts.costs, start=first_page):
        # Half a page over is nearer to the aim than half a page under. The rest must be worth a shard, too.
        full = held > 0 and held + cost / 2 > most and left - held >= SHORTEST / 2
        if page > begun and page in cuts.starts and full:
            ranges.append((begun, page - 1))
            left -= held
            begun, held, most = page, 0.0, _target(left, workers)
        held += cost
    ranges.append((begun, last_page))
    if len(ranges) == 1:
        return []
    shards = [ShardPlan(stage=Stage.PAGES, first_page=first, last_page=last) for first, last in ranges]
    document = ShardPlan(stage=Stage.DOCUMENT, first_page=first_page, last_page=last_page, seconds=cuts.finish)
    return [*shards, document]


def halves(first_page: int, last_page: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the two ranges to look for a bad page in; the range must have two pages or more."""
    middle = (first_page + last_page) // 2
    return (first_page, middle), (middle + 1, last_page)


def turns(plans: Sequence[ShardPlan], now: int) -> list[int]:
    """Return when each shard's turn comes: self-clocked fair queueing, counted in pages.

    A caller's clock stands at the turn of its shard that was claimed last. A piece that arrives gets the clock's time
    plus its own pages, so that short work goes first; and since the clock goes on with every claim, nothing waits
    for ever behind newer short work. Shards of one document follow each other in turn, so that documents interleave.
    The document stage has the turn of its arrival: what is nearly finished is finished.

    Args:
        plans: the shards of one document in page order.
        now: where the caller's clock stands.
    """
    found, pages = [], 0
    for plan in plans:
        if plan.stage is Stage.DOCUMENT:
            found.append(now)
        elif plan.stage is Stage.WHOLE:
            found.append(now + min(plan.pages, WHOLE_TURN))
        else:
            pages += plan.pages
            found.append(now + pages)
    return found


def _target(left: float, workers: int) -> float:
    return min(max(left / (_SHARE * workers), SHORTEST), LONGEST)
