"""A crowd comes in a few at a time, so that whoever only asks whether the server lives is not kept behind it.

Five hundred requests that arrive at once would all be begun in one round of the event loop: about a tenth of a second
in which nothing else is heard. Here a few are begun in each round; the others wait for theirs, in the order in which
they came. Nobody waits for another's body: only the beginnings are spread.
"""

from __future__ import annotations

import asyncio
from collections import deque

from starlette.types import ASGIApp, Receive, Scope, Send

#: Requests begun in one round of the loop; each costs some 0.3 ms.
_A_ROUND = 8
#: Requests that only look are begun at once.
_AT_ONCE = frozenset({"GET", "HEAD", "OPTIONS"})


class Pacing:
    """ASGI middleware; put outermost, before any work is done for a request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._begun = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app, in its turn."""
        if scope["type"] == "http" and scope["method"] not in _AT_ONCE:
            await self._turn()
        await self._app(scope, receive, send)

    async def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._begun:
            loop.call_soon(self._next_round)
        self._begun += 1
        if self._begun > _A_ROUND:
            turn: asyncio.Future[None] = loop.create_future()
            self._waiting.append(turn)
            await turn

    def _next_round(self) -> None:
        self._begun = min(_A_ROUND, len(self._waiting))
        for _ in range(self._begun):
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
        if self._begun:
            asyncio.get_running_loop().call_soon(self._next_round)
