"""`POST /predict`: documents in, Markdown out, in one request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from anyio.to_thread import run_sync
from loguru import logger
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from docfleet.errors import DocfleetError, InvalidRequest, NotReady
from docfleet.files import remove_tree
from docfleet.intake.spool import Upload
from docfleet.records import Job
from docfleet.web.answers import Addresses, Answers, Outcome
from docfleet.web.doors import Doors
from docfleet.web.problems import incident, to_json
from docfleet.web.readiness import nobody_can_serve

T = TypeVar("T")

#: Seconds after which a server whose every worker failed to load is worth another try.
_RELOAD_SECONDS = 30


@dataclass(frozen=True)
class Entered:
    """What became of one upload: a job, or the reason why not."""

    filename: str
    job: Job | None = None
    error: DocfleetError | None = None


class Predict:
    """Takes documents, waits for their jobs, answers with the results."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors

    async def predict(self, request: Request) -> Response:
        """Parse one document or several and answer when they are done.

        If that takes longer than the server waits, the answer is 202 with the address of the result: the work goes
        on, and nothing needs to be sent again.
        """
        await self._refuse_if_hopeless()
        entered = await self._enter_all(request)
        answers = Answers(self._doors.folder, Addresses.of(request))
        settled = await or_gone(request, self._settle(entered))
        if len(settled) > 1:
            return await _answer_many(answers, settled)
        (only,) = settled
        if only.error is not None:
            raise only.error
        assert only.job is not None
        return await answers.respond(only.job)

    async def _refuse_if_hopeless(self) -> None:
        reason = nobody_can_serve(self._doors, await run_sync(self._doors.store.workers))
        if reason is not None:
            raise NotReady(
                f"No worker of this server could load its engine: {reason} GET /readyz tells when one has.",
                retry_after=_RELOAD_SECONDS,
            )

    async def _enter_all(self, request: Request) -> list[Entered]:
        uploads = await self._doors.receive(request, self._doors.folder, self._doors.body_limit)
        if not uploads:
            raise InvalidRequest("The request holds no document: send it as file or files; /docs has examples.")
        # An only document's error is the request's; one of several must not lose the others.
        enter = self._enter if len(uploads) == 1 else self._enter_guarded
        try:
            return [await enter(upload) for upload in uploads]
        finally:
            await run_sync(partial(_discard, uploads))

    async def _enter(self, upload: Upload) -> Entered:
        return Entered(upload.filename, job=await self._doors.intake.accept(upload))

    async def _enter_guarded(self, upload: Upload) -> Entered:
        try:
            return await self._enter(upload)
        except DocfleetError as error:
            return Entered(upload.filename, error=error)
        except Exception as exc:
            return Entered(upload.filename, error=incident(exc, "taking one of several documents in"))

    async def _settle(self, entered: Sequence[Entered]) -> list[Entered]:
        return list(await asyncio.gather(*(self._end_of(one) for one in entered)))

    async def _end_of(self, one: Entered) -> Entered:
        if one.job is None or one.job.state.final:
            return one
        try:
            await self._doors.watch.wait(one.job.id, self._doors.wait_timeout)
        except DocfleetError as error:
            return replace(one, error=error)
        # Removed within this instant: answering finds its files gone and says so.
        return replace(one, job=await run_sync(partial(self._doors.store.job, one.job.id)) or one.job)


async def or_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await the work, but not longer than the caller stays on the line. What was accepted is done all the same.

    Raises:
        ClientDisconnect: the caller left.
    """
    done = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({done, gone}, return_when=asyncio.FIRST_COMPLETED)
        if done.done():
            return done.result()
        logger.debug("the caller of {!r} left; its jobs go on", request.url.path)
        raise ClientDisconnect
    finally:
        done.cancel()
        gone.cancel()
        await asyncio.gather(done, gone, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _answer_many(answers: Answers, settled: Sequence[Entered]) -> Response:
    running = any(one.error is None and one.job is not None and not one.job.state.final for one in settled)
    return StreamingResponse(
        _results(answers, settled), status_code=202 if running else 200, media_type="application/json"
    )


async def _results(answers: Answers, settled: Sequence[Entered]) -> AsyncIterator[bytes]:
    counts = dict.fromkeys(Outcome, 0)
    before = b'{"results":['
    for one in settled:
        outcome, pieces = await answers.entry(one.filename, one.job, one.error)
        counts[outcome] += 1
        yield before
        async for piece in pieces:
            yield piece
        before = b","
    yield b"]," + to_json({str(outcome): number for outcome, number in counts.items()})[1:]


def _discard(uploads: Sequence[Upload]) -> None:
    # The intake takes the file of what it accepts; what still lies here was refused, or never got its turn.
    for upload in uploads:
        remove_tree(upload.path)
