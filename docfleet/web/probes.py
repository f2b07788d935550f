"""Probes for whatever watches the server: does it run, and can it work now."""

from __future__ import annotations

from anyio.to_thread import run_sync
from starlette.responses import Response

from docfleet.web.answers import json_of
from docfleet.web.doors import Doors
from docfleet.web.readiness import standings
from docfleet.web.schemas import Liveness, Readiness

#: Seconds after which asking an unready server again is worth it.
_ASK_AGAIN = 5


class Probes:
    """`/livez` and `/readyz`."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors

    async def livez(self) -> Response:
        """Say that the process answers. Touches nothing: a full disk or a locked store must not get it killed."""
        return json_of(Liveness())

    async def readyz(self) -> Response:
        """Say whether at least one worker has loaded its engine; 503 with each worker's reason until then."""
        workers = standings(self._doors, await run_sync(self._doors.store.workers))
        ready = any(worker.ready for worker in workers)
        view = Readiness(ready=ready, workers={str(worker.slot.index): worker.explanation for worker in workers})
        if ready:
            return json_of(view)
        return json_of(view, 503, {"Retry-After": str(_ASK_AGAIN)})
