"""What a worker's client sees of the router: one VLM server, on loopback, behind a word that only workers know.

    GET  /<token>/<servers>/v1/models
    POST /<token>/<servers>/v1/chat/completions
    GET  /<token>/status

`<servers>` is "pool", or the servers that a caller named (`docfleet.addresses.to_segment`).
"""

from __future__ import annotations

import asyncio
import hmac
import json
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from docfleet.addresses import WHOLE_POOL, from_segment
from docfleet.vlm.pool import NotAllowed, Selection
from docfleet.vlm.router import Refused, Router, Unanswered
from docfleet.vlm.upstream import MODEL_ALIAS

#: Bytes of a request: a page as PNG in base64 is 1 to 5 MB.
_LONGEST_REQUEST = 64 * 1024 * 1024
#: Seconds for one's bytes to arrive, from a process of the same machine.
_READ_SECONDS = 60.0

#: Statuses that MinerU's client does not repeat (it does 429, 502, 503, 504): the router has tried already.
NO_SERVER = 424
PAGE_REFUSED = 500


@dataclass(frozen=True)
class App:
    """The handlers."""

    router: Router
    token: str

    def build(self) -> web.Application:
        """Return the application."""
        app = web.Application()
        app.router.add_get("/{token}/status", self.status)
        app.router.add_get("/{token}/{servers}/v1/models", self.models)
        app.router.add_post("/{token}/{servers}/v1/chat/completions", self.complete)
        return app

    async def status(self, request: web.Request) -> web.Response:
        """Return how each server stands, and how many requests wait."""
        self._check(request)
        rows = [row.to_json() for row in self.router.rows()]
        return web.json_response({"endpoints": rows, "waiting": self.router.waiting})

    async def models(self, request: web.Request) -> web.Response:
        """Return the one model there is, whatever each server calls it."""
        self._check(request)
        return web.json_response({"object": "list", "data": [{"id": MODEL_ALIAS, "object": "model"}]})

    async def complete(self, request: web.Request) -> web.Response:
        """Send the request to a server, to another if it fails, and return the answer."""
        self._check(request)

        async def read() -> bytes:
            async with asyncio.timeout(_READ_SECONDS):
                return await _body(request)

        size = _LONGEST_REQUEST if request.content_length is None else request.content_length
        try:
            reply = await self.router.send(_selection(request), size, read)
        except NotAllowed:
            return _error(403, "forbidden", "This server may not use that VLM server.")
        except Unanswered as exc:
            return _error(NO_SERVER, "no_vlm_server", f"No VLM server answers ({exc}).")
        except Refused as exc:
            return _error(PAGE_REFUSED, "page_refused", f"No VLM server reads this page: {exc}.")
        except TimeoutError:
            return _error(408, "too_slow", "The request did not arrive in time.")
        return web.Response(status=reply.status, body=reply.body, content_type=reply.content_type)

    def _check(self, request: web.Request) -> None:
        if not hmac.compare_digest(request.match_info["token"].encode(), self.token.encode()):
            raise web.HTTPNotFound


async def _body(request: web.Request) -> bytes:
    # Not `request.read()`: a connection that is kept open keeps its last request, and with it what that has read.
    body = bytearray()
    async for block in request.content.iter_any():
        body += block
        if len(body) > _LONGEST_REQUEST:
            raise web.HTTPRequestEntityTooLarge(_LONGEST_REQUEST, len(body))
    return bytes(body)


def _selection(request: web.Request) -> Selection:
    servers = request.match_info["servers"]
    if servers == WHOLE_POOL:
        return None
    try:
        return from_segment(servers)
    except ValueError:
        raise web.HTTPNotFound from None


def _error(status: int, code: str, message: str) -> web.Response:
    body: dict[str, Any] = {"error": {"message": message, "type": code, "code": code}}
    return web.Response(status=status, text=json.dumps(body), content_type="application/json")
