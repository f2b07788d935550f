"""`POST /predict`: documents in, Markdown out, in one request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from anyio.to_thread import run_sync
from loguru import logger
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from docfleet.errors import DocfleetError
from docfleet.records import Lane
from docfleet.store.admission import Terms
from docfleet.web.answers import Addresses, Answers, Outcome, results_gone
from docfleet.web.doors import Doors
from docfleet.web.entering import Entered, Entering
from docfleet.web.leaving import abandon
from docfleet.web.problems import to_json

T = TypeVar("T")


class Predict:
    """Takes documents, waits for their jobs, answers with the results."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._entering = Entering(doors)

    async def predict(self, request: Request) -> Response:
        """Parse one document or several and answer when they are done.

        If that takes longer than the server waits, the answer is 202 with the address of the result: the work goes
        on, and nothing needs to be sent again. If the caller leaves before that, the work is stopped, unless others
        wait for it or know of it.
        """
        terms = Terms(lane=Lane.INTERACTIVE, kept=False)
        entered = await self._entering.enter(request, terms, wait=self._doors.admission.wait)
        answers = Answers(self._doors.folder, Addresses.of(request))
        try:
            settled = entered if all(one.settled for one in entered) else await or_gone(request, self._settle(entered))
        except ClientDisconnect:
            await asyncio.shield(abandon(self._doors, [one.job.id for one in entered if one.job is not None]))
            raise
        if len(settled) > 1:
            return await _answer_many(answers, settled)
        (only,) = settled
        if only.error is not None:
            raise only.error
        assert only.job is not None
        return await answers.respond(only.job)

    async def _settle(self, entered: Sequence[Entered]) -> list[Entered]:
        return list(await asyncio.gather(*(self._end_of(one) for one in entered)))

    async def _end_of(self, one: Entered) -> Entered:
        if one.job is None or one.settled:
            return one
        try:
            await self._doors.watch.wait(one.job.id, self._doors.wait_timeout)
        except DocfleetError as error:
            return replace(one, error=error)
        job = await run_sync(partial(self._doors.store.job, one.job.id))
        if job is None:
            # Removed within this instant.
            return replace(one, error=results_gone(one.job.id))
        if not job.state.final:
            # The caller is about to be told its address, and must be on a full disk, too: nothing was sent in vain.
            try:
                await run_sync(partial(self._doors.store.keep, job.id))
            except DocfleetError as error:
                logger.warning("job {} goes on, but was not marked as known to its caller: {}", job.id, error.message)
        return replace(one, job=job)


async def or_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await the work, but not longer than the caller stays on the line.

    Raises:
        ClientDisconnect: the caller left.
    """
    done = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({done, gone}, return_when=asyncio.FIRST_COMPLETED)
        if done.done():
            return done.result()
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
