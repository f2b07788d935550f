"""How much is done at once: what is asked of a store. The supervisor and the doors set it, workers keep to it.

*Resting* workers take no new work while memory is short. The *cap* is on shards held at once by all workers together;
it holds over the end of the server, because whoever set it had a reason. `Claims.claim` keeps to the cap.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Pressure(Protocol):
    """Each method is one short transaction."""

    def rest(self, reasons: Mapping[int, str], seconds: float) -> None:
        """Let the workers in these slots take no new work for so long, and no others.

        Args:
            reasons: slot to reason, for people.
            seconds: after which it ends by itself; set it again to go on.
        """
        ...

    def resting(self, slot: int) -> str | None:
        """Return why the worker in the slot is to rest now, or None. Takes no lock."""
        ...

    def max_concurrent(self) -> int | None:
        """Return the cap on shards held at once; None: there is none; 0: nothing is taken up."""
        ...

    def set_max_concurrent(self, most: int | None) -> None:
        """Set or lift the cap, durably. What is held already is finished."""
        ...
