"""Many ask at once, one works: what was made a moment ago is good enough for all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Makes a value at most once at a time, and again only when the last one is old. For one event loop."""

    def __init__(
        self, make: Callable[[], Awaitable[T]], seconds: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Share what `make` returns for `seconds` from the moment it is there."""
        self._make = make
        self._seconds = seconds
        self._clock = clock
        self._made: tuple[T, float] | None = None
        self._task: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """Return the value. Whoever is cancelled while waiting takes it from nobody else.

        Raises:
            Exception: what `make` raised; the next caller tries anew.
        """
        if self._made is not None and self._clock() - self._made[1] < self._seconds:
            return self._made[0]
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._renew(), name="shared")
            self._task.add_done_callback(_look)
        return await asyncio.shield(self._task)

    async def _renew(self) -> T:
        made = await self._make()
        self._made = (made, self._clock())
        return made


def _look(task: asyncio.Task[T]) -> None:
    # Where all who waited have left, nobody asks for the exception.
    if not task.cancelled():
        task.exception()
