"""Every address of the doors, in one list."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.responses import Response

from docfleet.web.admission import wait_parameter
from docfleet.web.device_schemas import ConcurrencyView, GpuAnswer
from docfleet.web.doors import Doors
from docfleet.web.entering import key_parameter
from docfleet.web.events import EventDoor
from docfleet.web.forms import predict_request
from docfleet.web.gpu import ConcurrencyDoor, GpuDoor, cap_request
from docfleet.web.jobs import JobDoors
from docfleet.web.metrics import MetricsDoor
from docfleet.web.overview import Overview
from docfleet.web.poison import PoisonDoors
from docfleet.web.predict import Predict
from docfleet.web.probes import Probes
from docfleet.web.schemas import (
    Accepted,
    AcceptedJobs,
    Answer,
    ErrorAnswer,
    Forgotten,
    JobList,
    JobView,
    Liveness,
    PoisonList,
    Readiness,
    Results,
    StatusView,
    StillRunning,
    VlmView,
)
from docfleet.web.status import Status
from docfleet.web.submit import Submit
from docfleet.web.vlm import VlmDoors, add_request

_PREDICT_ERRORS: dict[int | str, str] = {
    400: "The request cannot be understood.",
    403: "The server's settings do not allow this.",
    409: "The job was cancelled, or the Idempotency-Key was sent before with something else.",
    413: "The body, or what it unpacks to, is over the limit.",
    415: "No engine reads this type of file here.",
    422: "An option or the document cannot be used; the code tells which.",
    429: "The server has as much work as it takes on; see Retry-After.",
    500: "A fault of the server's own.",
    503: "What was asked for cannot run here, or not yet.",
    504: "The work did not end within its time limit.",
    507: "There is no room left on the disk.",
}
# "4XX" is listed so that the framework does not add its own shape of a 422.
_JOB_ERRORS: dict[int | str, str] = {404: "There is no such job.", "4XX": "The request cannot be understood."}


def create_doors(doors: Doors) -> APIRouter:
    """Return the router of all doors. Touches nothing yet: the store may be opened later, before the first request."""
    router = APIRouter()
    predict, jobs = Predict(doors), JobDoors(doors)
    still_running = _of(StillRunning, "Accepted and not ready yet; ask at the links.")

    router.add_api_route(
        "/predict",
        predict.predict,
        methods=["POST"],
        summary="Parse documents and wait for the result",
        tags=["documents"],
        responses={
            200: _of(Answer | Results, "The result; of several documents, each one's in the order they were sent."),
            202: _of(StillRunning | Results, "Not all is ready yet; ask at the links."),
            **_errors(_PREDICT_ERRORS),
        },
        openapi_extra=_document_request(),
    )
    _add_many(router, Submit(doors), Overview(doors))
    router.add_api_route(
        "/jobs/{job_id}",
        jobs.show,
        methods=["GET"],
        summary="How a job stands",
        tags=["jobs"],
        responses={200: _of(JobView, "State, pages done, shards."), **_errors(_JOB_ERRORS)},
    )
    router.add_api_route(
        "/jobs/{job_id}/result",
        jobs.result,
        methods=["GET"],
        summary="The result of a job",
        tags=["jobs"],
        responses={200: _of(Answer, "The result."), 202: still_running, **_errors(_PREDICT_ERRORS | _JOB_ERRORS)},
    )
    _add_control(router, jobs, EventDoor(doors))
    _add_files(router, jobs)
    _add_server(router, Probes(doors), Status(doors), MetricsDoor(doors))
    _add_devices(router, GpuDoor(doors), ConcurrencyDoor(doors))
    _add_poison(router, PoisonDoors(doors))
    _add_vlm(router, VlmDoors(doors))
    _add_heads(router)
    return router


def _add_heads(router: APIRouter) -> None:
    # Monitors and `wget --spider` look with HEAD; the host leaves the body out. A stream of events would have no end.
    for route in [one for one in router.routes if isinstance(one, APIRoute)]:
        if "GET" in (route.methods or ()) and not route.path.endswith("/events"):
            router.add_api_route(route.path, route.endpoint, methods=["HEAD"], include_in_schema=False)


def _document_request() -> dict[str, Any]:
    described = predict_request()
    return {**described, "parameters": [*described["parameters"], wait_parameter(), key_parameter()]}


def _add_many(router: APIRouter, submit: Submit, overview: Overview) -> None:
    router.add_api_route(
        "/jobs",
        submit.submit,
        methods=["POST"],
        status_code=202,
        summary="Accept documents and answer at once",
        tags=["jobs"],
        responses={
            202: _of(Accepted | AcceptedJobs, "Accepted; ask at the links. Of several, each in the order sent."),
            **_errors(_PREDICT_ERRORS),
        },
        openapi_extra=_document_request(),
    )
    router.add_api_route(
        "/jobs",
        overview.list,
        methods=["GET"],
        summary="The jobs there are, newest first",
        tags=["jobs"],
        responses={200: _of(JobList, "Jobs that fit."), **_errors({"4XX": "A parameter cannot be used."})},
    )


def _add_control(router: APIRouter, jobs: JobDoors, events: EventDoor) -> None:
    router.add_api_route(
        "/jobs/{job_id}",
        jobs.delete,
        methods=["DELETE"],
        summary="Cancel a job, or forget one that has ended",
        tags=["jobs"],
        responses={
            200: _of(JobView, "It was stopped, and is cancelled."),
            204: {"description": "It had ended; it and its files are gone."},
            **_errors(_JOB_ERRORS),
        },
    )
    fields = {"event": {"enum": ["progress", "end"]}, "id": {"type": "string"}, "data": {"type": "string"}}
    stream = {"text/event-stream": {"schema": {"type": "object", "properties": fields}}}
    router.add_api_route(
        "/jobs/{job_id}/events",
        events.events,
        methods=["GET"],
        summary="A job's progress as server-sent events",
        tags=["jobs"],
        response_class=Response,
        responses={
            200: {"description": "Events `progress` and `end`, each with an id to resume after.", "content": stream},
            204: {"description": "The job's end was seen already."},
            **_errors(_JOB_ERRORS),
        },
    )


def _add_files(router: APIRouter, jobs: JobDoors) -> None:
    path = "/jobs/{job_id}/files/{name:path}"
    file_content = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
    router.add_api_route(
        path,
        jobs.file,
        methods=["GET"],
        summary="A file that was made of the document",
        tags=["jobs"],
        response_class=Response,
        responses={
            200: {"description": "The file.", "content": file_content},
            206: {"description": "The range asked for.", "content": file_content},
            304: {"description": "The caller has it already."},
            **_errors(_JOB_ERRORS | {404: "There is no such job or file.", 416: "The range lies outside the file."}),
        },
    )


def _add_server(router: APIRouter, probes: Probes, status: Status, metrics: MetricsDoor) -> None:
    router.add_api_route(
        "/livez",
        probes.livez,
        methods=["GET"],
        summary="Does the process answer",
        tags=["server"],
        responses={200: _of(Liveness, "It does.")},
    )
    router.add_api_route(
        "/readyz",
        probes.readyz,
        methods=["GET"],
        summary="Can documents be worked on now",
        tags=["server"],
        responses={200: _of(Readiness, "A worker is ready."), 503: _of(Readiness, "No worker is ready yet.")},
    )
    router.add_api_route(
        "/status",
        status.status,
        methods=["GET"],
        summary="Devices, workers, queue, totals",
        tags=["server"],
        responses={200: _of(StatusView, "The server as a whole.")},
    )
    text = {"text/plain": {"schema": {"type": "string"}}}
    router.add_api_route(
        "/metrics",
        metrics.metrics,
        methods=["GET"],
        summary="Numbers for Prometheus",
        tags=["server"],
        response_class=Response,
        responses={200: {"description": "Prometheus' text format, version 0.0.4.", "content": text}},
    )


def _add_devices(router: APIRouter, gpu: GpuDoor, concurrency: ConcurrencyDoor) -> None:
    router.add_api_route(
        "/api/gpu-status",
        gpu.show,
        methods=["GET"],
        summary="Devices, their load, and how much work to give them",
        tags=["server"],
        responses={
            200: _of(GpuAnswer, "The devices, and what to make of them."),
            **_errors({"4XX": "A parameter cannot be used."}),
        },
    )
    for method, endpoint in (("GET", concurrency.show), ("PUT", concurrency.change)):
        router.add_api_route(
            "/api/max-concurrent",
            endpoint,
            methods=[method],
            summary="How much is done at once" if method == "GET" else "Change how much is done at once",
            openapi_extra=cap_request() if method == "PUT" else None,
            tags=["server"],
            responses={
                200: _of(ConcurrencyView, "What is in force."),
                **_errors({"4XX": "The request cannot be understood."}),
            },
        )


def _add_poison(router: APIRouter, poison: PoisonDoors) -> None:
    router.add_api_route(
        "/poison",
        poison.list,
        methods=["GET"],
        summary="Documents that killed workers",
        tags=["server"],
        responses={200: _of(PoisonList, "What is remembered of them, and until when.")},
    )
    router.add_api_route(
        "/poison",
        poison.forget_all,
        methods=["DELETE"],
        summary="Forget all documents that killed workers",
        tags=["server"],
        responses={200: _of(Forgotten, "They are read like any other again.")},
    )
    router.add_api_route(
        "/poison/{sha256}",
        poison.forget,
        methods=["DELETE"],
        summary="Forget a document that killed workers",
        tags=["server"],
        responses={
            200: _of(Forgotten, "It is read like any other again."),
            **_errors({404: "It is not remembered.", "4XX": "The request cannot be understood."}),
        },
    )


def _add_vlm(router: APIRouter, vlm: VlmDoors) -> None:
    forbidden: dict[int | str, str] = {403: "The settings do not allow this.", "4XX": "The request is not understood."}
    router.add_api_route(
        "/vlm/endpoints",
        vlm.list,
        methods=["GET"],
        summary="The VLM servers, and how each stands",
        tags=["server"],
        responses={200: _of(VlmView, "The pool.")},
    )
    router.add_api_route(
        "/vlm/endpoints",
        vlm.add,
        methods=["POST"],
        summary="Add a VLM server to the pool, or bring one back",
        tags=["server"],
        responses={200: _of(VlmView, "The pool with it."), **_errors(forbidden)},
        openapi_extra=add_request(),
    )
    router.add_api_route(
        "/vlm/endpoints/{endpoint_id}",
        vlm.drain,
        methods=["DELETE"],
        summary="Take a VLM server out of the pool; it may finish what it has",
        tags=["server"],
        responses={
            200: _of(VlmView, "The pool without it."),
            **_errors({404: "There is no such server.", "4XX": "The request is not understood."}),
        },
    )


def _of(model: Any, description: str) -> dict[str, Any]:
    return {"model": model, "description": description}


def _errors(descriptions: dict[int | str, str]) -> dict[int | str, dict[str, Any]]:
    return {status: _of(ErrorAnswer, description) for status, description in descriptions.items()}
