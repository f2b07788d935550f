"""Jobs, cancelling, admission and keys on the real server, with real workers and real signals."""

from __future__ import annotations

import concurrent.futures
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.serving import FAULTY, Serving, blank_pdf, running, wait_until


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    with running(tmp_path / "data", "--workers", "1", "--engines", FAULTY) as server:
        yield server


def submit(serving: Serving, name: str, pages: int = 1, **more: Any) -> requests.Response:
    return requests.post(f"{serving.url}/jobs", files={"files": (name, blank_pdf(pages))}, timeout=60, **more)


def state_of(serving: Serving, job_id: str) -> str:
    return str(serving.get(f"/jobs/{job_id}")["state"])


def busy(serving: Serving) -> int | None:
    return next((worker["pid"] for worker in serving.workers() if worker["state"] == "busy"), None)


def test_a_job_in_the_middle_of_short_pages_is_cancelled_and_its_worker_goes_on(serving: Serving) -> None:
    job = submit(serving, "sleep-0.2-a.pdf", pages=300).json()["job_id"]
    worker = wait_until(lambda: busy(serving))
    cancelled = requests.delete(f"{serving.url}/jobs/{job}", timeout=10)
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    answer = serving.predict(blank_pdf(1), "b.pdf").json()
    assert f"pid {worker}" in answer["markdown"]
    wait_until(lambda: [path.name for path in (serving.data / "jobs").iterdir()] == [answer["job_id"]])
    result = requests.get(f"{serving.url}/jobs/{job}/result", timeout=10)
    assert (result.status_code, result.json()["error"]["code"]) == (409, "cancelled")
    # Its folders went while it wrote to them; nobody need be told of that.
    told = [line for line in serving.log.read_text().splitlines() if job in line]
    assert not [line for line in told if " ERROR " in line], told


def test_a_job_in_the_middle_of_an_endless_page_is_cancelled_by_ending_its_worker(serving: Serving) -> None:
    job = submit(serving, "children-hang.pdf").json()["job_id"]
    worker = wait_until(lambda: busy(serving))
    child = int(wait_until(lambda: next(serving.data.glob("jobs/*/child.pid"), None)).read_text())
    assert requests.delete(f"{serving.url}/jobs/{job}", timeout=10).status_code == 200
    wait_until(lambda: not psutil.pid_exists(worker) and not psutil.pid_exists(child))
    assert serving.predict(blank_pdf(1), "b.pdf").status_code == 200
    assert state_of(serving, job) == "cancelled"
    assert serving.get("/status")["totals"]["cancelled"] == 1
    wait_until(lambda: len(list((serving.data / "jobs").iterdir())) == 1)


def test_a_queued_job_is_cancelled_and_an_ended_one_is_forgotten(serving: Serving) -> None:
    first = submit(serving, "sleep-0.3-a.pdf", pages=3).json()["job_id"]
    wait_until(lambda: busy(serving))
    queued = submit(serving, "b.pdf").json()["job_id"]
    assert serving.get(f"/jobs/{queued}")["queue_position"] == 0
    assert requests.delete(f"{serving.url}/jobs/{queued}", timeout=10).json()["state"] == "cancelled"
    wait_until(lambda: state_of(serving, first) == "completed")
    for job in (first, queued):
        assert requests.delete(f"{serving.url}/jobs/{job}", timeout=10).status_code == 204
        assert requests.get(f"{serving.url}/jobs/{job}", timeout=10).status_code == 404
    assert list((serving.data / "jobs").iterdir()) == []
    assert serving.get("/jobs")["jobs"] == []


def test_a_caller_who_hangs_up_frees_the_worker(serving: Serving) -> None:
    host, port = serving.url.removeprefix("http://").split(":")
    body = blank_pdf(1)
    head = f"POST /predict?filename=hang.pdf HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head.encode() + body)
        wait_until(lambda: busy(serving))
    assert serving.predict(blank_pdf(1), "b.pdf").status_code == 200
    assert serving.get("/status")["totals"]["cancelled"] == 1


def test_a_cancelled_job_stays_cancelled_when_everything_is_killed_and_started_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data, "--workers", "1", "--engines", FAULTY) as first:
        job = submit(first, "hang.pdf").json()["job_id"]
        wait_until(lambda: busy(first))
        assert requests.delete(f"{first.url}/jobs/{job}", timeout=10).status_code == 200
        for process in first.family():
            process.kill()
    with running(data, "--workers", "1", "--engines", FAULTY) as again:
        assert again.predict(blank_pdf(1), "b.pdf").status_code == 200
        assert state_of(again, job) == "cancelled"
        assert not (data / "jobs" / job).exists()


def events(serving: Serving, job: str, last: str | None = None) -> Iterator[dict[str, str]]:
    headers = {"Last-Event-ID": last} if last else {}
    with requests.get(f"{serving.url}/jobs/{job}/events", headers=headers, stream=True, timeout=30) as stream:
        event: dict[str, str] = {"status": str(stream.status_code)}
        if stream.status_code != 200:
            yield event
        for line in stream.iter_lines(chunk_size=1, decode_unicode=True):
            if line:
                name, _, value = line.partition(": ")
                event[name] = value
            elif "data" in event:
                yield event
                event = {}
            else:
                event = {}


def test_events_tell_of_every_page_and_resume_where_they_were_cut(serving: Serving) -> None:
    job = submit(serving, "sleep-0.6-a.pdf", pages=4).json()["job_id"]
    stream = events(serving, job)
    first = next(event for event in stream if event["id"].startswith("1."))
    stream.close()  # type: ignore[attr-defined]
    rest = list(events(serving, job, first["id"]))
    places = [tuple(map(int, event["id"].split("."))) for event in [first, *rest]]
    assert places == sorted(set(places))
    assert [event["event"] for event in rest][-1:] == ["end"]
    assert all(event["event"] == "progress" for event in rest[:-1])
    assert '"state":"completed","pages":4,"pages_done":4' in rest[-1]["data"]
    assert list(events(serving, job, rest[-1]["id"])) == [{"status": "204"}]
    assert [event["event"] for event in events(serving, job)] == ["end"]


def test_an_id_that_is_none_of_this_jobs_does_not_keep_its_end_from_being_told(serving: Serving) -> None:
    job = submit(serving, "sleep-0.5-a.pdf", pages=200).json()["job_id"]
    address = f"{serving.url}/jobs/{job}"
    with requests.get(f"{address}/events", headers={"Last-Event-ID": "2.999"}, stream=True, timeout=30) as stream:
        assert requests.delete(address, timeout=10).status_code == 200
        assert "event: end" in stream.text


def test_a_hundred_listeners_hear_the_end_of_one_job(serving: Serving) -> None:
    job = submit(serving, "sleep-0.5-a.pdf", pages=4).json()["job_id"]
    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        ends = list(pool.map(lambda _: list(events(serving, job))[-1]["event"], range(100)))
    assert ends == ["end"] * 100


def test_several_files_are_several_jobs_and_the_list_finds_them_by_name_and_state(serving: Serving) -> None:
    files = [("files", (name, blank_pdf(1))) for name in ("Alpha.pdf", "beta.pdf", "broken.pdf")]
    files[2] = ("files", ("broken.pdf", b"no document"))
    response = requests.post(f"{serving.url}/jobs", files=files, data={"lane": "interactive"}, timeout=30)
    body = response.json()
    assert (response.status_code, body["accepted"], body["failed"]) == (202, 2, 1)
    assert response.headers["location"] == "/jobs"
    assert [entry["filename"] for entry in body["jobs"]] == ["Alpha.pdf", "beta.pdf", "broken.pdf"]
    assert body["jobs"][0]["lane"] == "interactive"
    for entry in body["jobs"][:2]:
        wait_until(lambda entry=entry: state_of(serving, entry["job_id"]) == "completed")
    found = serving.get("/jobs?filename=alpha&state=completed&limit=1")
    assert [job["job_id"] for job in found["jobs"]] == [body["jobs"][0]["job_id"]]
    page = serving.get("/jobs?limit=1")
    assert serving.get(page["next"])["jobs"][0]["job_id"] == body["jobs"][0]["job_id"]
    assert serving.get(serving.get(page["next"])["next"] or "/jobs?filename=none")["jobs"] == []
    assert requests.get(f"{serving.url}/jobs?state=odd", timeout=10).status_code == 400
    passed_over = requests.get(f"{serving.url}/jobs?status=failed", timeout=10)
    assert (passed_over.status_code, "use state" in passed_over.json()["error"]["message"]) == (400, True)


def test_one_key_is_one_job_under_concurrency_and_another_document_is_refused(serving: Serving) -> None:
    pdf = blank_pdf(1)

    def send(door: str) -> requests.Response:
        files = {"files": ("a.pdf", pdf)}
        return requests.post(f"{serving.url}/{door}", files=files, headers={"Idempotency-Key": "one"}, timeout=60)

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(send, ["predict", "jobs"] * 10))
    assert {answer.status_code for answer in answers} == {200, 202}
    assert len({answer.json()["job_id"] for answer in answers}) == 1
    other = submit(serving, "a.pdf", pages=2, headers={"Idempotency-Key": "one"})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
    assert serving.get("/status")["totals"]["completed"] == 1
    assert list((serving.data / "incoming").iterdir()) == []


def test_every_one_of_200_concurrent_requests_is_answered_or_refused_and_obeying_gets_all_through(
    tmp_path: Path,
) -> None:
    bounds = ("--max-backlog-jobs", "20", "--admission-wait", "0")
    seen: Counter[int] = Counter()
    with running(tmp_path / "data", "--workers", "2", "--engines", FAULTY, *bounds) as serving:
        pdf = blank_pdf(1)

        def send(number: int) -> str:
            while True:
                files = {"files": (f"sleep-0.01-{number}.pdf", pdf)}
                response = requests.post(f"{serving.url}/predict", files=files, timeout=120)
                seen[response.status_code] += 1
                if response.status_code == 200:
                    return str(response.json()["filename"])
                assert response.status_code == 429, response.text
                assert "too many concurrent documents (max 20); try again in" in response.text
                time.sleep(int(response.headers["retry-after"]))

        with concurrent.futures.ThreadPoolExecutor(200) as pool:
            names = list(pool.map(send, range(200)))
        assert len(set(names)) == 200
        assert seen[429] > 0
        totals = serving.get("/status")["totals"]
        assert (totals["completed"], totals["failed"], totals["refused"]) == (200, 0, seen[429])


def test_the_backlog_never_exceeds_its_bound_under_50_concurrent_posts(tmp_path: Path) -> None:
    bounds = ("--max-backlog-pages", "20", "--workers", "1")
    with running(tmp_path / "data", "--engines", FAULTY, *bounds) as serving:
        with concurrent.futures.ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(lambda _: submit(serving, "hang.pdf", pages=3), range(50)))
        assert Counter(answer.status_code for answer in answers) == {202: 6, 429: 44}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 429)
        queue = serving.get("/status")["queue"]
        assert (queue["backlog_jobs"], queue["backlog_pages"], queue["max_backlog_pages"]) == (6, 18, 20)
        assert len(list((serving.data / "jobs").iterdir())) == 6


def test_a_caller_who_asks_to_wait_comes_in_when_there_is_room(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--engines", FAULTY, "--workers", "1", "--max-backlog-jobs", "1") as serving:
        submit(serving, "sleep-1-a.pdf")
        refused = submit(serving, "b.pdf")
        assert refused.status_code == 429
        assert submit(serving, "b.pdf", params={"admission_wait": "30"}).status_code == 202


def test_an_upload_is_refused_before_it_is_read_when_there_is_no_room(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--engines", FAULTY, "--workers", "1", "--max-backlog-jobs", "1") as serving:
        submit(serving, "hang.pdf")
        host, port = serving.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 429 ")


def test_documents_are_refused_when_the_disk_is_nearly_full(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--engines", FAULTY, "--min-free-disk-mb", "1000000000") as serving:
        response = serving.predict(blank_pdf(1), "a.pdf")
        assert (response.status_code, response.json()["error"]["code"]) == (507, "storage_full")
        assert list((serving.data / "incoming").iterdir()) == []
