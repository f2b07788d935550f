"""`/poison`: documents that killed workers, and how to give them another chance."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import Path as PathParameter
from starlette.responses import Response

from docfleet.errors import NotFound
from docfleet.store.poison import Remembered
from docfleet.web.answers import json_of
from docfleet.web.doors import Doors
from docfleet.web.schemas import Forgotten, MissingPage, PoisonList, PoisonView

Digest = Annotated[
    str,
    PathParameter(
        description="SHA-256 of the document's bytes, as `GET /poison` tells it",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
        json_schema_extra={"pattern": "^[0-9a-f]{64}$"},
    ),
]


class PoisonDoors:
    """What is remembered of documents that killed workers."""

    def __init__(self, doors: Doors) -> None:
        self._store = doors.store

    async def list(self) -> Response:
        """Return every document that killed workers and was not read to its end since, and which pages it was."""
        found = await run_sync(self._store.remembered)
        return json_of(PoisonList(documents=[_view(one) for one in found]))

    async def forget(self, sha256: Digest) -> Response:
        """Read a document like any other again, whatever options it comes with."""
        forgotten = await run_sync(partial(self._store.forget, sha256.lower()))
        if not forgotten:
            raise NotFound("No such document is remembered. GET /poison lists them with their sha256.")
        return json_of(Forgotten(forgotten=forgotten))

    async def forget_all(self) -> Response:
        """Read all of them like any other again: what was the matter has been put right, with a new version perhaps."""
        return json_of(Forgotten(forgotten=await run_sync(partial(self._store.forget, None))))


def _view(one: Remembered) -> PoisonView:
    return PoisonView(
        sha256=one.sha256,
        filename=one.filename,
        options=one.options,
        deaths=one.deaths,
        cause=one.cause,
        pages=[MissingPage(page=page.page, cause=page.cause) for page in one.pages],
        since=one.since,
        until=one.until,
    )
