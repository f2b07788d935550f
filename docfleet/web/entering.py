"""From a request to jobs, whichever door it came through: room, body, key, and one entry for each document."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from typing import Any

from anyio.to_thread import run_sync
from starlette.requests import Request

from docfleet.errors import Busy, DocfleetError, InvalidOption, InvalidRequest, NotReady, StorageFull
from docfleet.files import remove_tree
from docfleet.intake.spool import Upload
from docfleet.records import Job
from docfleet.store.admission import Terms
from docfleet.web.admission import LONGEST_WAIT, Patience
from docfleet.web.callers import caller_of
from docfleet.web.doors import Doors
from docfleet.web.problems import incident
from docfleet.web.readiness import nobody_can_serve

#: Seconds after which a server whose every worker failed to load is worth another try.
_RELOAD_SECONDS = 30
_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")


@dataclass(frozen=True)
class Entered:
    """What became of one upload: a job, or the reason why not."""

    filename: str
    job: Job | None = None
    error: DocfleetError | None = None

    @property
    def settled(self) -> bool:
        """Whether there is nothing to wait for."""
        return self.job is None or self.job.state.final


class Entering:
    """Takes the documents of requests in."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors

    async def enter(self, request: Request, terms: Terms, *, wait: float) -> list[Entered]:
        """Make jobs of a request's documents, in the order they were sent.

        Args:
            request: its body must not have been read.
            terms: on which they come in, but for the key, the bounds and the caller.
            wait: seconds to wait for room unless the caller says otherwise.

        Raises:
            DocfleetError: why the request was refused, or its only document; of several, why none was taken for want
                of room.
        """
        key = _key_of(request)
        admission = self._doors.admission
        terms = replace(terms, limits=admission.limits, key_seconds=self._doors.key_seconds, caller=caller_of(request))
        patience = admission.patience(_wait_of(request, wait))
        try:
            entered = await self._enter_all(request, terms, key, patience)
        except (Busy, StorageFull):
            admission.count()
            raise
        refused = [one.error for one in entered if isinstance(one.error, Busy | StorageFull)]
        if refused:
            admission.count(len(refused))
        if refused and len(refused) == len(entered):
            raise refused[0]
        return entered

    def _refusal(self, key: str | None) -> Busy | None:
        """Return why not even one page can be taken now, if so. Blocks on the store.

        Raises:
            NotReady: no worker can take work before somebody helps.
        """
        store = self._doors.store
        reason = nobody_can_serve(self._doors, store.workers())
        if reason is not None:
            raise NotReady(
                f"No worker of this server could load its engine: {reason} GET /readyz tells when one has.",
                retry_after=_RELOAD_SECONDS,
            )
        # A key that is known makes no new work.
        if key is not None and store.knows_key(f"{key} 0"):
            return None
        return self._doors.admission.refusal()

    async def _enter_all(self, request: Request, terms: Terms, key: str | None, patience: Patience) -> list[Entered]:
        # Before the body is read.
        admission = self._doors.admission
        while not admission.open:
            busy = await run_sync(partial(self._refusal, key))
            if busy is None:
                if key is None:
                    admission.found_room()
                break
            await patience.wait(busy, 1)
        uploads = await self._doors.receive(request, self._doors.folder, self._doors.body_limit)
        if not uploads:
            raise InvalidRequest("The request holds no document: send it as file or files; /docs has examples.")
        # An only document's error is the request's; one of several must not lose the others.
        enter = self._enter if len(uploads) == 1 else self._enter_guarded
        entered: list[Entered] = []
        try:
            for place, upload in enumerate(uploads):
                # Each document of a request has a key of its own, which no caller's key can be: it ends with its place.
                own = terms if key is None else replace(terms, key=f"{key} {place}")
                entered.append(await enter(upload, own, patience))
        finally:
            # The intake has taken the files of jobs; others were refused, or never got their turn.
            left = [upload for upload, one in zip_longest(uploads, entered) if one is None or one.job is None]
            if left:
                await asyncio.shield(run_sync(partial(_discard, left)))
        return entered

    async def _enter(self, upload: Upload, terms: Terms, patience: Patience) -> Entered:
        job = await self._doors.intake.accept(upload, terms, patience)
        if not job.state.final:
            self._doors.admission.took_work()
        return Entered(upload.filename, job=job)

    async def _enter_guarded(self, upload: Upload, terms: Terms, patience: Patience) -> Entered:
        try:
            return await self._enter(upload, terms, patience)
        except DocfleetError as error:
            return Entered(upload.filename, error=error)
        except Exception as exc:
            return Entered(upload.filename, error=incident(exc, "taking one of several documents in"))


def key_parameter() -> dict[str, Any]:
    """Return what the API description says of the key."""
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "sent again with the same documents and options it gives the same jobs, not new ones",
        "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
    }


def _key_of(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and _KEY.fullmatch(key) is None:
        raise InvalidRequest("Idempotency-Key must be 1 to 255 printable ASCII characters.")
    return key


def _wait_of(request: Request, default: float) -> float:
    given = request.query_params.get("admission_wait")
    if given is None or given == "":
        return default
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= LONGEST_WAIT:
        raise InvalidOption(f"admission_wait must be a number of seconds from 0 to {LONGEST_WAIT:.0f}.")
    return seconds


def _discard(uploads: Sequence[Upload]) -> None:
    for upload in uploads:
        remove_tree(upload.path)
