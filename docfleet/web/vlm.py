"""`/vlm/endpoints`: the pool of VLM servers, seen and changed while it works."""

from __future__ import annotations

import time
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from starlette.requests import Request
from starlette.responses import Response

from docfleet.addresses import address_id
from docfleet.errors import Forbidden, NotFound
from docfleet.vlm.local import LocalServer
from docfleet.web.answers import json_of
from docfleet.web.doors import Doors, VlmPool
from docfleet.web.schemas import VlmView
from docfleet.web.vlm_schemas import VlmServer
from docfleet.web.wishes import read_wish, wish_request

EndpointId = Annotated[
    str,
    PathParameter(description="as GET /vlm/endpoints tells it", json_schema_extra={"pattern": "^[0-9a-f]{12}$"}),
]


class AddEndpoint(BaseModel):
    """A server to be added. Not shown or logged: it may hold a key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(
        max_length=2048, description="an address that the settings allow", examples=["http://10.0.0.5:8001"]
    )
    api_key: SecretStr | None = Field(
        None, max_length=4096, description="sent to this server only; left out: the one it had, or none"
    )


class VlmDoors:
    """Answers about the pool."""

    def __init__(self, doors: Doors) -> None:
        self._pool = doors.vlm

    async def list(self) -> Response:
        """Return each server: its state and why, its limit, what it has in hand, its speed."""
        return json_of(await self._view())

    async def add(self, request: Request) -> Response:
        """Add a server that the settings allow to the pool; it gets its share from now on, after a restart too."""
        if self._pool is None:
            raise Forbidden(
                "This server has no VLM pool. Start it with vlm_endpoints, or with allowed_server_urls naming the "
                "servers that may be added."
            )
        wanted = await read_wish(request, AddEndpoint, like='{"url": "http://10.0.0.5:8001", "api_key": "..."}')
        key = None if wanted.api_key is None else wanted.api_key.get_secret_value()
        await self._pool.add(wanted.url, key)
        return json_of(await self._view())

    async def drain(self, endpoint_id: EndpointId) -> Response:
        """Give a server nothing more, after a restart neither. It leaves the list when it has finished what it has."""
        if self._pool is None:
            raise NotFound("This server has no VLM pool.")
        await self._pool.drain(endpoint_id)
        return json_of(await self._view())

    async def _view(self) -> VlmView:
        return await vlm_view(self._pool) or VlmView(available=False, waiting=0, endpoints=[])


async def vlm_view(pool: VlmPool | None) -> VlmView | None:
    """Return the pool as it is shown; None where there is none."""
    if pool is None:
        return None
    servers = [_server(server) for server in await run_sync(pool.servers)]
    state = await pool.state()
    if state is None:
        return VlmView(available=False, waiting=0, endpoints=[], servers=servers)
    return VlmView.model_validate({"available": True, **state, "servers": servers})


def _server(server: LocalServer) -> VlmServer:
    return VlmServer(
        id=address_id(server.url),
        device=server.device,
        engine=server.engine,
        url=server.url,
        port=server.port,
        state=server.state,
        reason=server.reason,
        pid=None if server.process is None else server.process.pid,
        restarts=server.restarts,
        uptime=None if server.started_at is None else round(max(0.0, time.time() - server.started_at), 3),
        next_try=None if server.retry_at is None else round(max(0.0, server.retry_at - time.time()), 3),
        log=f"vlm/{server.log}",
    )


def add_request() -> dict[str, Any]:
    """Return the request's body for the API description."""
    return wish_request(AddEndpoint)
