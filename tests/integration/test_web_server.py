from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pypdfium2
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from docfleet.records import WorkerSlot, WorkerState
from docfleet.web.forms import sample_pdf
from docfleet.web.schemas import Answer, ErrorAnswer, Liveness, Readiness, Results, StatusView
from tests.integration.web_house import PDF, House, open_house


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with open_house(tmp_path / "data") as running:
        yield running


class BrokenStore:
    """A store whose disk is gone."""

    def __getattr__(self, name: str) -> object:
        raise OSError(f"the disk is gone, so no {name}")


def test_the_process_answers_that_it_lives_even_without_a_store(tmp_path: Path) -> None:
    with open_house(tmp_path / "data") as house:
        object.__setattr__(house.doors, "store", BrokenStore())
        Liveness.model_validate(house.get("/livez").json())
        ready = house.get("/readyz")
        assert ready.status_code == 500
        assert ErrorAnswer.model_validate(ready.json()).error.code == "internal_error"
        assert "disk" not in ready.text


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/status", "/jobs", "/api/gpu-status"])
def test_monitors_may_look_with_head_and_get_the_status_without_a_body(house: House, path: str) -> None:
    told = requests.head(house.url + path, timeout=30)
    assert told.status_code == house.get(path).status_code
    assert told.content == b""
    assert told.headers["content-type"] == "application/json"


def test_a_refused_method_names_those_of_the_address(house: House) -> None:
    refused = requests.patch(f"{house.url}/jobs", timeout=30)
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, POST")
    assert refused.json()["error"]["message"] == "PATCH does not work at /jobs; use GET, HEAD, POST."


@pytest.mark.parametrize("state", [WorkerState.READY, WorkerState.BUSY])
def test_the_server_is_ready_with_one_worker_that_has_loaded_its_engine(house: House, state: WorkerState) -> None:
    house.worker.announce(state)
    object.__setattr__(house.doors, "plan", (*house.doors.plan, WorkerSlot(index=1, device="cuda:0")))
    response = house.get("/readyz")
    assert response.status_code == 200
    view = Readiness.model_validate(response.json())
    assert view.workers == {"0": str(state), "1": "starting: it has not reported yet"}


@pytest.mark.parametrize(
    ("state", "detail", "age", "reason"),
    [
        (WorkerState.LOADING, "weights", 0, "loading: weights"),
        (WorkerState.FAILED, "no torch", 0, "failed: no torch"),
        (WorkerState.GONE, "the process ended", 0, "gone: the process ended"),
        (WorkerState.READY, "", 3600, r"ready, but silent for 36\d\d s"),
    ],
)
def test_the_server_is_not_ready_before_and_says_why(
    house: House, state: WorkerState, detail: str, age: float, reason: str
) -> None:
    house.worker.announce(state, detail, age=age)
    response = house.get("/readyz")
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    told = Readiness.model_validate(response.json())
    assert not told.ready
    assert list(told.workers) == ["0"]
    assert re.fullmatch(reason, told.workers["0"]), told.workers


def test_reports_of_workers_that_are_no_longer_planned_make_nothing_ready(house: House) -> None:
    object.__setattr__(house.doors, "plan", (WorkerSlot(index=7, device="cpu"),))
    assert house.get("/readyz").json() == {"ready": False, "workers": {"7": "starting: it has not reported yet"}}


def test_the_status_shows_the_server_as_a_whole(house: House) -> None:
    house.predict_files({"a.pdf": PDF, "broken.pdf": PDF, "partial.pdf": PDF})
    view = StatusView.model_validate(house.get("/status").json())
    assert (view.version, view.devices, view.model_source, view.warnings) == ("9.9", ["cpu"], "local", ["CPU only"])
    assert (view.totals.completed, view.totals.partial, view.totals.failed) == (1, 1, 1)
    assert (view.queue.queued_jobs, view.queue.running_jobs) == (0, 0)
    assert view.pages_per_second > 0
    assert view.uptime > 0
    (worker,) = view.workers
    assert (worker.slot, worker.device, worker.rss, worker.job_id) == (0, "cpu", 123, None)
    assert worker.heartbeat_age is not None


def test_the_status_names_the_job_that_a_worker_has_in_hand_but_not_the_document(house: House) -> None:
    house.worker.delivering.clear()
    object.__setattr__(house.doors, "wait_timeout", 0.05)
    job_id = house.predict_files({"private name.pdf": PDF}).json()["job_id"]
    while (status := house.get("/status").json())["workers"][0]["job_id"] is None:
        time.sleep(0.005)
    assert status["workers"][0]["job_id"] == job_id
    assert status["workers"][0]["state"] == "busy"
    assert status["queue"]["running_jobs"] == 1
    assert "private" not in json.dumps(status)


def test_the_examples_of_the_api_description_work_as_they_stand(house: House) -> None:
    description = house.get("/openapi.json").json()
    body = description["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    for name, example in body["examples"].items():
        response = house.predict_json(example["value"])
        assert response.status_code == 200, name
        model = Results if "files" in example["value"] else Answer
        model.model_validate(response.json())


def test_the_example_document_is_a_pdf_that_says_hello() -> None:
    document = pypdfium2.PdfDocument(sample_pdf())
    assert len(document) == 1
    assert document[0].get_textpage().get_text_bounded() == "Hello, Docfleet"
    document.close()


def test_every_error_in_the_api_description_has_the_one_shape(house: House) -> None:
    description = house.get("/openapi.json").json()
    assert set(description["paths"]["/predict"]) == {"post"}
    for path, operations in description["paths"].items():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if status >= "400" and path != "/readyz":
                    schema = response["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/ErrorAnswer"}, (path, status)


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_within_or_beyond_the_api_description_is_a_fault_of_the_server(
    tmp_path: Path, mode: GenerationMode
) -> None:
    with open_house(tmp_path / "data") as house:
        schema = schemathesis.openapi.from_url(f"{house.url}/openapi.json")
        operations = [result.ok() for result in schema.get_all_operations()]
        assert len(operations) >= 7
        for operation in operations:
            # One of the operations is a pause.
            house.doors.store.set_max_concurrent(None)
            # Without a parameter nothing can be sent that does not fit.
            if mode is GenerationMode.POSITIVE or operation.body or operation.path_parameters:
                attack(operation, mode, house.predict_files({"a.pdf": PDF}).json()["job_id"])


def attack(operation: Any, mode: GenerationMode, job_id: str) -> None:
    @settings(max_examples=40, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        if mode is GenerationMode.POSITIVE and "job_id" in case.path_parameters:
            # No generator guesses the id of a job that exists.
            case.path_parameters["job_id"] = job_id
        case.call_and_validate(checks=CHECKS, timeout=20)

    check()
