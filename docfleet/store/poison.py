"""Documents that killed workers: what is remembered of them, and what follows from it.

One death may be bad luck: a worker can be killed for another's memory. So nothing follows from the first, and a
document that is read to its end is forgotten here. From the second on, until it expires, one with the same options

- is read without the pages that were given up for killing workers: they are reported with the same cause,
- gets one attempt for each piece; where a piece kills its worker, its halves are tried next, to find the page,
- waits, after each death, until all that waits in its lane at that moment has had its turn, whoever sent it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from docfleet.options import ParseOptions
from docfleet.records import FailedPage

#: Deaths from which on a document is treated with care.
SUSPICIOUS = 2
#: Documents told of, at most.
MOST = 1000
#: Options that do not decide how a page is read, or stand there in another form.
_NOT_A_WAY = frozenset({"backend", "tier", "lang", "start_page_id", "end_page_id", "formats", "cache"})


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """A document that killed workers."""

    sha256: str
    #: As it was called last.
    filename: str
    #: Options that decide how it is read; with others it is another case.
    options: dict[str, Any] = field(default_factory=dict)
    deaths: int
    #: Message of the last death.
    cause: str
    #: Pages that are left out.
    pages: tuple[FailedPage, ...] = ()
    since: float
    until: float


class Poison(Protocol):
    """What is asked of a store. Deaths are recorded by `Leases.give_back`."""

    def remembered(self) -> list[Remembered]:
        """Return what is remembered, what was added last first; at most `MOST`."""
        ...

    def forget(self, sha256: str | None) -> int:
        """Forget a document, with whatever options, or all of them (None). Return how many entries there were."""
        ...

    def forget_expired(self) -> None:
        """Remove what is over its time."""
        ...


def way_of(options: ParseOptions) -> str:
    """Return the options that decide how a document is read, as canonical JSON."""
    effective = options.model_dump(mode="json", exclude=set(_NOT_A_WAY)) | {"tier": options.wanted_tier.value}
    return json.dumps(effective, sort_keys=True)


def cause_of_leaving_out(error: dict[str, Any], sha256: str, until: float) -> dict[str, Any]:
    """Return the record of an error that is remembered, with the remedy."""
    moment = datetime.fromtimestamp(until, UTC).strftime("%Y-%m-%d %H:%M UTC")
    told = f"{error.get('message', '')} This is remembered, and not tried again before {moment}"
    return {**error, "message": f"{told}; DELETE /poison/{sha256} forgets it."}
