"""What all shapes that go out have in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


def printable(text: Any) -> Any:
    """Replace what UTF-8 cannot hold: text out of documents and file names may have lone surrogates."""
    return text.encode("utf-8", "replace").decode() if isinstance(text, str) else text


Text = Annotated[str, BeforeValidator(printable)]


class Out(BaseModel):
    """A shape that goes out: it has these fields and no others."""

    model_config = ConfigDict(frozen=True, extra="forbid")
