"""Small JSON bodies that say what somebody wants changed."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from docfleet.errors import DocumentTooLarge, InvalidRequest

Wish = TypeVar("Wish", bound=BaseModel)

#: Bytes that such a body may have.
_LONGEST_BODY = 16 * 1024


async def read_wish(request: Request, model: type[Wish], *, like: str) -> Wish:
    """Return the request's body, whatever it calls itself: curl says it was a form unless told otherwise.

    Args:
        request: its body must not have been read.
        model: what it must be.
        like: an example, for the refusal.

    Raises:
        InvalidRequest: it is not like that.
        DocumentTooLarge: it is too long to be.
    """
    body = bytearray()
    async for block in request.stream():
        body += block
        if len(body) > _LONGEST_BODY:
            raise DocumentTooLarge(f"The body may have {_LONGEST_BODY} bytes. Send {like}.")
    try:
        return model.model_validate_json(bytes(body))
    except ValidationError as exc:
        # Names and rules only: the values may be a key.
        told = "; ".join(
            f"{'.'.join(str(step) for step in item['loc']) or 'body'}: {item['msg']}"
            for item in exc.errors(include_input=False, include_url=False)
        )
        raise InvalidRequest(f"Send {like} ({told}).") from None


def wish_request(model: type[BaseModel]) -> dict[str, Any]:
    """Return such a body for the API description."""
    content = {"application/json": {"schema": model.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}
