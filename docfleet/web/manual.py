"""`/docs`: the description of every address, also where no other server can be reached.

The pages that FastAPI makes fetch what draws them from a content network. A machine without one would show an empty
page at the address that our errors send people to; here the list of addresses stands in it until it is drawn over.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

_PLACE = '<div id="swagger-ui">'


def install_manual(app: FastAPI) -> None:
    """Put the page in the place of the app's own. Call before the app starts."""

    async def manual(request: Request) -> Response:
        root = request.scope.get("root_path", "").rstrip("/")
        page = get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}", title=app.title, swagger_ui_parameters=app.swagger_ui_parameters
        )
        drawn = bytes(page.body).decode()
        listed = "".join(_lines(app.openapi(), f"{root}{app.openapi_url}"))
        return HTMLResponse(drawn.replace(_PLACE, _PLACE + listed, 1))

    address = app.docs_url or "/docs"
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", None) != address]
    app.add_route(address, manual, include_in_schema=False)


def _lines(description: dict[str, Any], address: str) -> Iterator[str]:
    info = description["info"]
    yield f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>"
    yield f'<p>All of it, for programs, is at <a href="{escape(address)}">{escape(address)}</a>.</p><dl>'
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            yield f"<dt><code>{escape(method.upper())} {escape(path)}</code></dt>"
            yield f"<dd>{escape(operation.get('summary', ''))}. {escape(operation.get('description', ''))}</dd>"
    yield "</dl>"
