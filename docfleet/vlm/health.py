"""Health checks: each server is asked what it offers, more often while it is down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from loguru import logger

from docfleet.vlm.breaker import Circuit
from docfleet.vlm.endpoint import Endpoint
from docfleet.vlm.records import PoolSettings
from docfleet.vlm.upstream import Trouble, Upstream

#: A server that is well is asked so many times less often.
_WELL = 3.0
_WORDS = {Circuit.NEW: "new", Circuit.CLOSED: "up", Circuit.OPEN: "down", Circuit.HALF_OPEN: "on trial"}


class Health:
    """Asks after every server, each in a task of its own, so that one that hangs delays no other."""

    def __init__(
        self,
        settings: PoolSettings,
        upstream: Upstream,
        *,
        clock: Callable[[], float],
        changed: Callable[[Endpoint, bool], None],
    ) -> None:
        self._settings = settings
        self._upstream = upstream
        self._clock = clock
        self._changed = changed
        self._due: dict[Endpoint, float] = {}
        self._asking: dict[Endpoint, asyncio.Task[None]] = {}

    def look(self, endpoints: Iterable[Endpoint]) -> None:
        """Ask those that are due."""
        now = self._clock()
        for endpoint in endpoints:
            if endpoint not in self._asking and now >= self._due.get(endpoint, 0.0):
                self._asking[endpoint] = asyncio.create_task(self._ask(endpoint))

    def forget(self, endpoint: Endpoint) -> None:
        """Ask no more after a server."""
        self._due.pop(endpoint, None)
        asking = self._asking.pop(endpoint, None)
        if asking is not None:
            asking.cancel()

    async def close(self) -> None:
        """Stop asking."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, endpoint: Endpoint) -> None:
        was = endpoint.breaker.circuit
        interval, well = self._settings.check_interval, False
        try:
            endpoint.model = await self._upstream.offered_model(endpoint)
        except Trouble as trouble:
            endpoint.breaker.unhealthy(self._clock(), trouble.reason)
        else:
            well = True
            endpoint.breaker.healthy(self._clock())
            interval *= 1.0 if endpoint.lost else _WELL
        if endpoint.breaker.circuit is not was:
            told = f": {endpoint.breaker.reason}" if endpoint.breaker.reason else ""
            logger.info("VLM server {} is {}{}", endpoint.url, _WORDS[endpoint.breaker.circuit], told)
        self._due[endpoint] = self._clock() + interval
        self._asking.pop(endpoint, None)
        self._changed(endpoint, well)
