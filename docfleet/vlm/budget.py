"""Bytes that requests may take up together; who comes when they are gone waits, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Budget:
    """For one event loop."""

    def __init__(self, size: int) -> None:
        """Make a budget of `size` bytes."""
        self._size = size
        self._left = size
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether nobody holds or awaits any."""
        return self._left == self._size and not self._waiting

    @asynccontextmanager
    async def hold(self, wanted: int) -> AsyncIterator[None]:
        """Hold so many bytes; more than there are in all count as all of them."""
        wanted = min(max(0, wanted), self._size)
        await self._take(wanted)
        try:
            yield
        finally:
            self._left += wanted
            self._hand_out()

    async def _take(self, wanted: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, wanted))
        self._hand_out()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                # It was its turn at the same moment.
                self._left += wanted
            self._hand_out()
            raise

    def _hand_out(self) -> None:
        while self._waiting:
            turn, wanted = self._waiting[0]
            if not turn.cancelled():
                if wanted > self._left:
                    return
                self._left -= wanted
                turn.set_result(None)
            self._waiting.popleft()
