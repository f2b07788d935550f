"""`POST /jobs`: documents in, and an answer at once that says where their results will be."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from docfleet.errors import InternalError
from docfleet.records import Lane
from docfleet.store.admission import Terms
from docfleet.web.answers import ASK_AGAIN, Addresses, json_of
from docfleet.web.doors import Doors
from docfleet.web.entering import Entered, Entering
from docfleet.web.schemas import Accepted, AcceptedJobs, Error, Failure


class Submit:
    """Takes documents and does not wait."""

    def __init__(self, doors: Doors) -> None:
        self._entering = Entering(doors)

    async def submit(self, request: Request) -> Response:
        """Accept one document or several; each is a job that survives whatever happens to the server.

        The answer of several names each, in the order they were sent; one that was refused leaves the others alone.
        """
        entered = await self._entering.enter(request, Terms(lane=Lane.BATCH, kept=True), wait=0.0)
        addresses = Addresses.of(request)
        if len(entered) > 1:
            return _several(entered, addresses)
        (only,) = entered
        if only.job is None:
            raise only.error or InternalError("The document was lost on its way in; send it again.")
        headers = {"Location": addresses.job(only.job.id), "Retry-After": str(ASK_AGAIN)}
        return json_of(_accepted(only, addresses), 202, headers)


def _several(entered: list[Entered], addresses: Addresses) -> Response:
    jobs = [_accepted(one, addresses) for one in entered]
    taken = sum(isinstance(one, Accepted) for one in jobs)
    if not taken and (error := entered[0].error):
        raise error
    view = AcceptedJobs(jobs=jobs, accepted=taken, failed=len(jobs) - taken)
    return json_of(view, 202, {"Location": f"{addresses.root}/jobs", "Retry-After": str(ASK_AGAIN)})


def _accepted(one: Entered, addresses: Addresses) -> Accepted | Failure:
    if one.job is None:
        error = one.error or InternalError("The document was lost on its way in; send it again.")
        return Failure(filename=one.filename, error=Error.model_validate(error.record()))
    job = one.job
    return Accepted(
        job_id=job.id,
        filename=job.document.filename,
        status=job.state,
        lane=job.lane,
        links=addresses.links(job.id),
    )
