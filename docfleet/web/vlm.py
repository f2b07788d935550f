"""`/vlm/endpoints`: the pool of VLM servers, seen and changed while it works."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from docfleet.errors import DocumentTooLarge, Forbidden, InvalidRequest, NotFound
from docfleet.web.answers import json_of
from docfleet.web.doors import Doors, VlmPool
from docfleet.web.schemas import VlmView

#: Bytes of a request that names one server.
_LONGEST_BODY = 16 * 1024

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
        wanted = await _read(request)
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
    state = await pool.state()
    if state is None:
        return VlmView(available=False, waiting=0, endpoints=[])
    return VlmView.model_validate({"available": True, **state})


def add_request() -> dict[str, Any]:
    """Return the request's body for the API description."""
    schema = AddEndpoint.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


async def _read(request: Request) -> AddEndpoint:
    body = bytearray()
    async for block in request.stream():
        body += block
        if len(body) > _LONGEST_BODY:
            raise DocumentTooLarge(f"A request to add a VLM server has at most {_LONGEST_BODY} bytes.")
    try:
        return AddEndpoint.model_validate_json(bytes(body))
    except ValidationError as exc:
        # Names and kinds only: the values may be a key.
        told = "; ".join(
            f"{'.'.join(str(step) for step in item['loc']) or 'body'}: {item['type']}" for item in exc.errors()
        )
        raise InvalidRequest(f'Send {{"url": "http://10.0.0.5:8001", "api_key": "..."}} ({told}).') from None
