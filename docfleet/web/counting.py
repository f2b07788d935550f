"""Counts every request for `GET /metrics`, by the template of its route: what callers write into a path is no label."""

from __future__ import annotations

import time

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from docfleet.metrics.traffic import Answered, Traffic
from docfleet.web.problems import ERROR_CODE


class Counting:
    """ASGI middleware; put outermost, so that a request's time in the queue of beginnings counts, too."""

    def __init__(self, app: ASGIApp, traffic: Traffic) -> None:
        self._app = app
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app and count how it answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status: int | None = None

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._traffic.begin()
        begun = time.perf_counter()
        try:
            await self._app(scope, receive, watched)
        finally:
            answered = Answered(
                method=scope["method"],
                route=getattr(scope.get("route"), "path", None),
                status=status,
                seconds=time.perf_counter() - begun,
                code=scope.get(ERROR_CODE),
            )
            self._traffic.end(answered)


def install_counting(app: FastAPI) -> Traffic:
    """Count the app's requests from now on; call after its other middleware is installed. Return the counts."""
    traffic = Traffic()
    app.add_middleware(Counting, traffic=traffic)
    app.state.traffic = traffic
    return traffic


def traffic_of(app: FastAPI) -> Traffic:
    """Return the counts of the app's requests; of an app that does not count them, ones that stay at zero."""
    counted: Traffic | None = getattr(app.state, "traffic", None)
    return Traffic() if counted is None else counted
