from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import requests
from loguru import logger

from docfleet.errors import StorageFull
from docfleet.records import Claim, Job, JobState, WorkerState
from docfleet.store.reuse import hand_on
from docfleet.web.schemas import Answer, ErrorAnswer, Results, StillRunning
from tests.integration.web_house import PDF, House, Work, open_house

ENCODED = base64.b64encode(PDF).decode()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with open_house(tmp_path / "data") as running:
        yield running


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


def error_of(response: requests.Response) -> dict[str, Any]:
    ErrorAnswer.model_validate(response.json())
    error: dict[str, Any] = response.json()["error"]
    return error


def test_every_form_of_the_body_gives_the_same_answer(house: House) -> None:
    responses = [
        house.predict_json({"file": ENCODED, "filename": "a.pdf"}),
        house.predict_json({"files": [{"file": ENCODED, "filename": "a.pdf"}]}),
        house.predict_files({"a.pdf": PDF}),
        requests.post(f"{house.url}/predict?filename=a.pdf", data=PDF, timeout=30),
    ]
    assert [response.status_code for response in responses] == [200] * 4
    answers = [Answer.model_validate(response.json()) for response in responses]
    assert len({answer.job_id for answer in answers}) == 4
    assert {answer.markdown for answer in answers} == {"# a.pdf\n\n![](images/x.png)\n"}
    assert {answer.filename for answer in answers} == {"a.pdf"}


def test_the_answer_names_what_was_used_and_where_everything_lies(house: House) -> None:
    answer = house.predict_files({"a.pdf": PDF}).json()
    job_id = answer["job_id"]
    assert answer["status"] == "completed"
    assert (answer["tier"], answer["backend"], answer["engine"], answer["engine_version"]) == (
        "flash",
        "flash",
        "thread",
        "1",
    )
    assert (answer["pages"], answer["failed_pages"]) == (1, [])
    assert answer["timings"] == {"read": 0.25}
    assert answer["warnings"] == ["no tables here"]
    folder = Path(answer["output_dir"])
    assert folder.is_absolute()
    assert set(answer["files"]) == {"document.md", "content_list.json", "document.html", "images/x.png"}
    for name, url in answer["files"].items():
        assert url == f"/jobs/{job_id}/files/{name}"
        assert house.get(url).content == (folder / name).read_bytes()


def test_a_document_without_some_pages_is_partial_and_names_them(house: House) -> None:
    answer = Answer.model_validate(house.predict_files({"partial.pdf": PDF}).json())
    assert answer.status is JobState.PARTIAL
    assert [(page.page, page.cause) for page in answer.failed_pages] == [(0, "the page could not be drawn")]


def test_a_failed_document_answers_with_its_own_error_and_status(house: House) -> None:
    response = house.predict_files({"broken.pdf": PDF})
    assert response.status_code == 422
    assert error_of(response) == {
        "code": "broken_document",
        "message": "The file ends in the middle of page 1; send it again.",
        "retryable": False,
    }


def test_of_several_documents_each_one_is_answered_whatever_happens_to_the_others(house: House) -> None:
    files = {"one.pdf": PDF, "empty.pdf": b"", "broken.pdf": PDF, "partial.pdf": PDF, "noise.bin": b"\x00\x01\x02" * 99}
    response = house.predict_files(files)
    assert response.status_code == 200
    results = Results.model_validate(response.json())
    assert [entry.filename for entry in results.results] == list(files)
    assert [str(entry.status) for entry in results.results] == ["completed", "failed", "failed", "partial", "failed"]
    codes = [entry["error"]["code"] for entry in response.json()["results"] if "error" in entry]
    assert codes == ["empty_document", "broken_document", "unsupported_type"]
    assert (results.succeeded, results.failed, results.running) == (2, 3, 0)
    assert house.uploads_left() == []


def test_options_of_each_document_reach_the_worker(house: House) -> None:
    seen: dict[str, int] = {}

    def work(claim: Claim) -> Work:
        seen[claim.document.filename] = len(claim.options.formats)
        return Work(files={})

    house.worker.work = work
    body = {
        "files": [
            {"file": ENCODED, "filename": "a.pdf", "options": {"formats": ["markdown", "html", "latex"]}},
            {"file": ENCODED, "filename": "b.pdf"},
        ]
    }
    results = house.predict_json(body).json()["results"]
    assert seen == {"a.pdf": 3, "b.pdf": 2}
    assert [entry["markdown"] for entry in results] == [None, None], "no document.md was made"


AWKWARD = '\ufeff# “Über” 中文 😀\r\n\tquote " back\\slash \u2028 \x00 \x1b </script>\n'


@pytest.mark.parametrize("repeat", [0, 1, 20_000])
def test_any_markdown_arrives_as_it_lies_on_disk(house: House, repeat: int) -> None:
    text = AWKWARD * repeat
    house.worker.work = lambda claim: Work(files={"document.md": text.encode()})
    assert house.predict_files({"a.pdf": PDF}).json()["markdown"] == text


def test_bytes_that_are_no_utf8_do_not_cost_the_rest_of_the_markdown(house: House) -> None:
    house.worker.work = lambda claim: Work(files={"document.md": b"good \xff\xfe text"})
    assert house.predict_files({"a.pdf": PDF}).json()["markdown"] == "good \ufffd\ufffd text"


def test_a_document_that_takes_longer_than_the_wait_is_answered_with_its_address(tmp_path: Path) -> None:
    with open_house(tmp_path / "data", wait_timeout=0.1) as house:
        house.worker.delivering.clear()
        response = house.predict_files({"slow.pdf": PDF})
        assert response.status_code == 202
        answer = StillRunning.model_validate(response.json())
        assert response.headers["location"] == answer.links.job == f"/jobs/{answer.job_id}"
        assert int(response.headers["retry-after"]) > 0
        pending = house.get(answer.links.result)
        assert pending.status_code == 202
        assert pending.json()["job_id"] == answer.job_id
        house.worker.delivering.set()
        until(lambda: house.get(answer.links.job).json()["state"] == "completed")
        result = house.get(answer.links.result)
        assert result.status_code == 200
        assert Answer.model_validate(result.json()).filename == "slow.pdf"


def test_the_address_is_told_also_where_the_disk_has_no_room_to_note_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: str) -> None:
        raise StorageFull("The disk is full.")

    with open_house(tmp_path / "data", wait_timeout=0.1) as house:
        monkeypatch.setattr(house.doors.store, "keep", full)
        house.worker.delivering.clear()
        response = house.predict_files({"slow.pdf": PDF})
        assert response.status_code == 202
        house.worker.delivering.set()
        until(lambda: house.get(response.headers["location"]).json()["state"] == "completed")


@pytest.fixture
def sharing(tmp_path: Path) -> Iterator[House]:
    with open_house(tmp_path / "data", shared=True) as running:
        running.worker.claiming.clear()
        yield running


def states(house: House) -> list[str]:
    """Return the states of all jobs, the oldest first."""
    return [job["state"] for job in reversed(house.get("/jobs").json()["jobs"])]


def waiting_caller(house: House) -> socket.socket:
    before = house.doors.watch.waiting
    connection = socket.create_connection(address(house), timeout=20)
    connection.sendall(raw_post(PDF))
    until(lambda: house.doors.watch.waiting == before + 1)
    return connection


@pytest.mark.parametrize("last", ["leaves", "is deleted"])
def test_shared_work_is_stopped_when_the_last_who_waits_for_it_goes(sharing: House, last: str) -> None:
    first, second = waiting_caller(sharing), waiting_caller(sharing)
    first.close()
    until(lambda: sharing.doors.watch.waiting == 1)
    if last == "leaves":
        second.close()
    else:
        newest = sharing.get("/jobs").json()["jobs"][0]
        assert requests.delete(sharing.url + newest["links"]["job"], timeout=20).status_code == 200
        second.close()
    until(lambda: states(sharing) == ["cancelled", "cancelled"])
    until(lambda: list(sharing.doors.folder.jobs.iterdir()) == [])


def test_shared_work_goes_on_for_those_who_wait_and_those_who_need_not_stay(sharing: House) -> None:
    first, second = waiting_caller(sharing), waiting_caller(sharing)
    second.close()
    until(lambda: states(sharing) == ["queued", "cancelled"])
    assert requests.post(f"{sharing.url}/jobs?filename=a.pdf", data=PDF, timeout=20).status_code == 202
    first.close()
    until(lambda: sharing.doors.watch.waiting == 0)
    waiting_caller(sharing).close()
    until(lambda: states(sharing) == ["queued", "cancelled", "queued", "cancelled"])
    sharing.worker.claiming.set()
    until(lambda: hand_on(sharing.worker.store, sharing.doors.folder) == 1)
    assert states(sharing) == ["completed", "cancelled", "completed", "cancelled"]


def test_several_documents_of_which_one_takes_too_long_are_answered_with_what_is_there(tmp_path: Path) -> None:
    with open_house(tmp_path / "data", wait_timeout=0.1) as house:
        house.worker.claiming.clear()
        response = house.predict_files({"a.pdf": PDF, "empty.pdf": b""})
        assert response.status_code == 202
        results = Results.model_validate(response.json())
        assert [str(entry.status) for entry in results.results] == ["queued", "failed"]
        assert (results.succeeded, results.failed, results.running) == (0, 1, 1)


def test_at_the_end_of_the_server_waiting_requests_get_their_jobs_address(house: House) -> None:
    house.worker.claiming.clear()
    with socket.create_connection(address(house), timeout=20) as connection:
        connection.sendall(raw_post(PDF))
        until(lambda: house.doors.watch.waiting == 1)
        loop_call(house, house.doors.watch.release)
        assert connection.recv(4096).startswith(b"HTTP/1.1 202 ")


def test_a_request_that_the_end_of_the_server_cuts_short_is_told_so(house: House) -> None:
    house.worker.claiming.clear()
    house.server.config.timeout_graceful_shutdown = 0
    with socket.create_connection(address(house), timeout=20) as connection:
        connection.sendall(raw_post(PDF))
        until(lambda: house.doors.watch.waiting == 1)
        house.server.should_exit = True
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"shutting down" in answer


def test_a_caller_that_hangs_up_while_it_is_answered_leaves_no_file_open(house: House) -> None:
    house.worker.work = lambda claim: Work(files={"document.md": b"a line\n" * 5_000_000})
    with socket.create_connection(address(house), timeout=20) as connection:
        connection.sendall(raw_post(PDF))
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert open_documents(house)
    until(lambda: not open_documents(house))


def test_a_caller_that_hangs_up_is_no_error_and_its_document_is_cancelled(house: House) -> None:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="WARNING")
    house.worker.claiming.clear()
    connection = socket.create_connection(address(house), timeout=20)
    connection.sendall(raw_post(PDF))
    until(lambda: house.doors.watch.waiting == 1)
    connection.close()
    until(lambda: house.doors.watch.waiting == 0)
    until(lambda: house.get("/status").json()["totals"]["cancelled"] == 1)
    (job,) = house.get("/jobs").json()["jobs"]
    assert (job["state"], job["error"]["code"]) == ("cancelled", "cancelled")
    until(lambda: list(house.doors.folder.jobs.iterdir()) == [])
    logger.remove(sink)
    assert lines == []


@pytest.mark.parametrize("second", ["predict", "jobs", "events"])
def test_a_job_goes_on_without_its_caller_if_another_waits_for_it_or_knows_it(house: House, second: str) -> None:
    house.worker.claiming.clear()
    connection = socket.create_connection(address(house), timeout=20)
    connection.sendall(raw_post(PDF).replace(b"Host: x", b"Host: x\r\nIdempotency-Key: k"))
    until(lambda: house.doors.watch.waiting == 1)
    (job,) = house.get("/jobs").json()["jobs"]
    if second == "events":
        other: Any = requests.get(house.url + job["links"]["events"], stream=True, timeout=20)
        until(lambda: house.doors.feed.listening == 1)
    else:
        address_ = f"{house.url}/{second}?filename=a.pdf&admission_wait=1"
        pool = ThreadPoolExecutor(1)
        other = pool.submit(requests.post, address_, data=PDF, headers={"Idempotency-Key": "k"}, timeout=20)
        pool.shutdown(wait=False)
        until(lambda: house.doors.watch.waiting == 2 or other.done())
    connection.close()
    until(lambda: house.doors.watch.waiting == (second == "predict"))
    house.worker.claiming.set()
    until(lambda: house.get("/status").json()["totals"]["completed"] == 1)
    if second == "events":
        assert b"event: end" in other.content
    else:
        assert other.result().json()["job_id"] == job["job_id"]


def test_a_body_cut_off_half_way_leaves_nothing_on_the_disk(house: House) -> None:
    with socket.create_connection(address(house), timeout=20) as connection:
        # Smaller ones lie in memory until they are whole.
        connection.sendall(raw_post(PDF + bytes(1_000_000), missing=100))
        until(lambda: house.uploads_left() != [])
    until(lambda: house.uploads_left() == [])
    assert house.get("/status").json()["queue"]["queued_jobs"] == 0


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_request"),
        (b"[]", 400, "invalid_request"),
        (b'{"file": "%%%"}', 400, "invalid_request"),
        (b'{"files": []}', 400, "invalid_request"),
        (json.dumps({"file": ENCODED, "options": {"teir": "flash"}}).encode(), 422, "invalid_option"),
        (json.dumps({"file": ENCODED, "options": {"start_page_id": 5}}).encode(), 422, "invalid_page_range"),
        (json.dumps({"file": ""}).encode(), 422, "empty_document"),
        (json.dumps({"file": base64.b64encode(b"x" * 9_000_000).decode()}).encode(), 413, "document_too_large"),
    ],
)
def test_a_bad_request_is_the_callers_and_leaves_nothing(house: House, body: bytes, status: int, code: str) -> None:
    headers = {"Content-Type": "application/json"}
    response = requests.post(f"{house.url}/predict", data=body, headers=headers, timeout=30)
    error = error_of(response)
    assert (response.status_code, error["code"]) == (status, code)
    assert error["message"].strip()
    assert house.uploads_left() == []


def test_documents_are_taken_while_workers_load_and_refused_when_none_could(house: House) -> None:
    house.worker.announce(WorkerState.LOADING, "weights are coming")
    assert house.predict_files({"a.pdf": PDF}).status_code == 200

    def refused() -> bool:
        # Again: the worker may still have had to say that it is done with the document before.
        house.worker.announce(WorkerState.FAILED, "No module named torch")
        return house.predict_files({"a.pdf": PDF}).status_code == 503

    until(refused)
    response = house.predict_files({"a.pdf": PDF})
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    error = error_of(response)
    assert (error["code"], error["retryable"]) == ("not_ready", True)
    assert "No module named torch" in error["message"]


class FaultyIntake:
    """Goes wrong for some names in a way that nobody foresaw."""

    def __init__(self, house: House) -> None:
        self._intake = house.doors.intake

    async def accept(self, upload: Any, *terms: Any) -> Job:
        if "fault" in upload.filename:
            raise ZeroDivisionError(f"secret {upload.path}")
        return await self._intake.accept(upload, *terms)


def test_a_fault_of_the_server_tells_nothing_of_its_inside_and_spares_the_other_documents(tmp_path: Path) -> None:
    with open_house(tmp_path / "data") as house:
        object.__setattr__(house.doors, "intake", FaultyIntake(house))
        single = house.predict_files({"fault.pdf": PDF})
        assert single.status_code == 500
        assert error_of(single)["code"] == "internal_error"
        several = house.predict_files({"fault.pdf": PDF, "good.pdf": PDF})
        assert several.status_code == 200
        assert [entry["status"] for entry in several.json()["results"]] == ["failed", "completed"]
        assert "secret" not in single.text + several.text
        assert house.uploads_left() == []


def test_behind_a_proxy_that_adds_a_prefix_the_addresses_have_it_too(house: House) -> None:
    house.app.root_path = "/parse"
    answer = house.predict_files({"a.pdf": PDF}).json()
    assert answer["files"]["document.md"] == f"/parse/jobs/{answer['job_id']}/files/document.md"


def address(house: House) -> tuple[str, int]:
    parts = urlsplit(house.url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


def raw_post(body: bytes, missing: int = 0) -> bytes:
    head = f"POST /predict?filename=a.pdf HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body[: len(body) - missing]


def open_documents(house: House) -> list[str]:
    """Result files of the house that this process has open."""
    names = [file.path for file in psutil.Process().open_files()]
    return [name for name in names if name.startswith(str(house.doors.folder.jobs))]


def loop_call(house: House, call: Callable[[], None]) -> None:
    task = house.doors.watch._task
    assert task is not None
    task.get_loop().call_soon_threadsafe(call)
