"""Errors on their way out: whatever goes wrong, the caller gets one JSON shape and the right status.

{"error": {"code": "invalid_option", "message": "what to do about it", "retryable": false}}
"""

from __future__ import annotations

import asyncio
import json
import math
import uuid
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from loguru import logger
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from docfleet.errors import DocfleetError, InternalError, InvalidRequest, NotReady

#: Status of a response that nobody reads any more; shows in the access log only.
CLIENT_CLOSED_REQUEST = 499

#: Where a request's scope holds the code of the error that was its answer, for the counts.
ERROR_CODE = "docfleet.error_code"

#: Codes of errors that the web framework and the host raise by status alone.
_CODES = {
    400: "invalid_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "document_too_large",
    415: "unsupported_type",
    422: "invalid_request",
    429: "busy",
    503: "not_ready",
    504: "deadline_exceeded",
}
_RETRYABLE = frozenset({429, 503, 504})

_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")

#: Seconds that a restart takes, more or less.
_RESTART_SECONDS = 10


class JsonBytes(Response):
    """JSON of plain values. Text that UTF-8 cannot hold (lone surrogates out of JSON) becomes "?", not an error."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return to_json(content)


def to_json(content: Any) -> bytes:
    """Return compact JSON of plain values."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def install_error_handlers(app: FastAPI) -> None:
    """Make every error of the app, expected or not, come out in the one shape. Call before the app starts."""
    app.add_exception_handler(DocfleetError, _expected)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _by_status)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_middleware(LastResort)


def problem(error: DocfleetError) -> Response:
    """Return the response that an error stands for."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    return JsonBytes({"error": error.record()}, error.status, headers)


def incident(error: BaseException, doing: str) -> InternalError:
    """Log a fault of our own with its traceback, and return what the caller may know of it."""
    number = uuid.uuid4().hex[:12]
    logger.opt(exception=error).error("incident {} while {}", number, doing)
    return InternalError(
        f"The server met a fault of its own (incident {number}). Its log has the cause; tell whoever runs it."
    )


class LastResort:
    """Outermost: turns what nobody caught into a 500 that tells nothing of the inside.

    The framework's own handler of this kind raises the error again after answering, which logs it a second time.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app, and answer for it if it cannot."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except asyncio.CancelledError:
            # Only the end of the server cancels requests. Otherwise its host would answer a bare 500.
            if started:
                raise
            scope[ERROR_CODE] = NotReady.code
            await problem(_ending())(scope, receive, send)
        except Exception as exc:
            if ClientDisconnect in (type(exc), type(exc.__cause__)):
                logger.debug("the caller of {} {!r} left", scope["method"], scope["path"])
                return
            error = incident(exc, f"answering {scope['method']} {scope['path']!r}")
            scope[ERROR_CODE] = error.code
            # A response under way cannot be taken back: the host closes the connection, so the caller sees it is cut.
            if not started:
                await problem(error)(scope, receive, send)


def _ending() -> NotReady:
    return NotReady(
        "The server is shutting down. Documents that it has accepted are done after its restart; send others again.",
        retry_after=_RESTART_SECONDS,
    )


async def _expected(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, DocfleetError)
    if exc.status == InternalError.status:
        logger.error("{} {!r} answered with {}: {}", request.method, request.url.path, exc.code, exc.message)
    request.scope[ERROR_CODE] = exc.code
    return problem(exc)


async def _invalid(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    parts = [f"{'.'.join(str(step) for step in item['loc'])}: {item['msg']}" for item in exc.errors()]
    request.scope[ERROR_CODE] = InvalidRequest.code
    return problem(InvalidRequest("; ".join(parts) + "."))


async def _by_status(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    status = exc.status_code
    code = _CODES.get(status, "invalid_request" if status < 500 else InternalError.code)
    request.scope[ERROR_CODE] = code
    record = {"code": code, "message": _explain(request, exc), "retryable": status in _RETRYABLE}
    headers: Mapping[str, str] | None = exc.headers
    if status == 405 and (methods := _methods_at(request)):
        headers = {**(headers or {}), "Allow": methods}
    return JsonBytes({"error": record}, status, headers)


def _methods_at(request: Request) -> str:
    # The framework names those of the first route of this path only; RFC 9110, 10.2.1, asks for all. Routers inside
    # routers do not tell theirs, so each method is tried.
    def takes(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return ", ".join(filter(takes, _METHODS))


def _explain(request: Request, exc: HTTPException) -> str:
    path = request.url.path
    if exc.status_code == 404 and exc.detail == "Not Found":
        return f"There is nothing at {path}. The addresses of this server are listed at /docs."
    if exc.status_code == 405:
        allowed = _methods_at(request)
        return f"{request.method} does not work at {path}" + (f"; use {allowed}." if allowed else ".")
    return exc.detail if isinstance(exc.detail, str) else json.dumps(exc.detail)


async def _gone(request: Request, exc: Exception) -> Response:
    logger.debug("the caller of {} {!r} left", request.method, request.url.path)
    return Response(status_code=CLIENT_CLOSED_REQUEST)
