"""How much memory a worker's engines may take: less after they ran out of it, and step by step more again.

A shard that runs out is read again at once by the same worker, with half the share, down to an eighth: it keeps its
lease, and no attempt is counted. Only if an eighth is too much, too, it becomes the document's failure (unless the
whole device is short of memory, see `Care`). After so many shards without trouble the share is doubled again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from loguru import logger

from docfleet.engine.memory import is_out_of_memory
from docfleet.errors import OutOfDeviceMemory

SMALLEST = 1 / 8
#: Shards in a row without trouble after which the share is doubled.
GOOD_SHARDS = 8

T = TypeVar("T")


class Frugality:
    """Of one worker."""

    def __init__(self, tell: Callable[[float], None] = lambda share: None) -> None:
        """Make it; `tell` is called with each new share."""
        self._share = 1.0
        self._good = 0
        self._tell = tell

    @property
    def share(self) -> float:
        """What the next shard may take, of what the plan gave to this worker: 1, 1/2, 1/4 or 1/8."""
        return self._share

    def perform(self, attempt: Callable[[float], T], again: Callable[[], None]) -> T:
        """Call `attempt` with the share, and again with less each time that memory runs out.

        Args:
            attempt: reads the shard from its beginning.
            again: called before each further try.

        Raises:
            OutOfDeviceMemory: even the smallest share is too much.
        """
        while True:
            try:
                done = attempt(self._share)
            except Exception as exc:
                if not (isinstance(exc, OutOfDeviceMemory) or is_out_of_memory(exc)):
                    raise
                if self._share <= SMALLEST:
                    raise _named(exc) from exc
                self._change(self._share / 2)
                logger.warning("memory ran out; the shard is read again with {:g} of this worker's share", self._share)
            else:
                self._went_well()
                return done
            # Outside the handler: the error's traceback holds what the engine had in its hands.
            again()

    def _went_well(self) -> None:
        if self._share == 1.0:
            return
        self._good += 1
        if self._good >= GOOD_SHARDS:
            self._change(min(1.0, self._share * 2))
            logger.info("this worker may take {:g} of its share of memory again", self._share)

    def _change(self, share: float) -> None:
        self._share, self._good = share, 0
        self._tell(share)


def _named(exc: Exception) -> OutOfDeviceMemory:
    if isinstance(exc, OutOfDeviceMemory):
        return exc
    return OutOfDeviceMemory(
        "The pages need more memory than this worker can have, even one window at a time; send fewer pages at once, or "
        "give the server a device with more."
    )
