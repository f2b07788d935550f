"""Every process may be killed at any moment. Real server, real signals."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import socket
import time
from pathlib import Path

import psutil
import pytest
import requests

from tests.serving import FAULTY, Serving, blank_pdf, gone, running, start, stop, wait_ready, wait_until
from tests.storm import victims_of


def busy_worker(serving: Serving) -> dict[str, object] | None:
    return next((worker for worker in serving.workers() if worker["state"] == "busy"), None)


def in_background(serving: Serving, name: str, pages: int = 1) -> concurrent.futures.Future[requests.Response]:
    pool = concurrent.futures.ThreadPoolExecutor(1)
    future = pool.submit(serving.predict, blank_pdf(pages), name)
    pool.shutdown(wait=False)
    return future


def test_the_request_of_a_worker_killed_while_busy_is_answered_by_a_second_attempt(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--workers", "2", "--engines", FAULTY) as serving:
        wait_ready(serving, workers=2)
        answer = in_background(serving, "sleep-0.5-a.pdf", pages=3)
        victim = wait_until(lambda: busy_worker(serving))
        os.kill(victim["pid"], signal.SIGKILL)
        body = answer.result(timeout=60).json()
        assert body["status"] == "completed"
        assert f"pid {victim['pid']}" not in body["markdown"]
        job = serving.get(f"/jobs/{body['job_id']}")
        assert [shard["attempt"] for shard in job["shards"]] == [2]


def test_the_request_after_an_idle_worker_was_killed_is_answered(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--workers", "1", "--engines", FAULTY) as serving:
        (worker,) = serving.workers()
        os.kill(worker["pid"], signal.SIGKILL)
        response = serving.predict(blank_pdf(1), "a.pdf")
        assert response.status_code == 200
        assert f"pid {worker['pid']}" not in response.json()["markdown"]


def test_render_children_die_with_a_killed_worker(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--workers", "1", "--engines", FAULTY) as serving:
        answer = in_background(serving, "children-sleep-0.5-die-once-a.pdf")
        child_file = wait_until(lambda: next((tmp_path / "data").glob("jobs/*/child.pid"), None))
        first_child = int(wait_until(child_file.read_text))
        assert answer.result(timeout=60).status_code == 200
        wait_until(lambda: not psutil.pid_exists(first_child), message="the killed worker's child lives on")


def test_a_document_that_always_kills_its_worker_ends_with_an_error_and_the_server_serves_on(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--workers", "1", "--engines", FAULTY, "--max-attempts", "2") as serving:
        response = serving.predict(blank_pdf(1), "die-always.pdf")
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "worker_lost"
        assert serving.predict(blank_pdf(1), "a.pdf").status_code == 200
        assert serving.get("/status")["totals"]["failed"] == 1


@pytest.mark.parametrize("fault", ["raise", "exit"])
def test_an_engine_that_fails_ends_the_document_and_not_the_worker(tmp_path: Path, fault: str) -> None:
    with running(tmp_path / "data", "--workers", "1", "--engines", FAULTY) as serving:
        (before,) = serving.workers()
        response = serving.predict(blank_pdf(1), f"{fault}.pdf")
        assert response.status_code == 422
        assert response.json()["error"]["code"] == "parse_failed"
        (after,) = serving.workers()
        assert after["pid"] == before["pid"]
        # The caller is told first, then the files go.
        wait_until(lambda: not list((tmp_path / "data" / "jobs").iterdir()))


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything_in_order(tmp_path: Path, number: signal.Signals, busy: bool) -> None:
    serving = start(tmp_path / "data", "--workers", "2", "--engines", FAULTY, "--grace-seconds", "1")
    wait_ready(serving, workers=2)
    if busy:
        in_background(serving, "children-sleep-30-a.pdf")
        wait_until(lambda: next((tmp_path / "data").glob("jobs/*/child.pid"), None))
    family = serving.family()
    assert len(family) >= 5
    if number == signal.SIGINT:
        # Ctrl-C reaches the whole foreground group of the terminal.
        os.killpg(serving.process.pid, number)
    else:
        serving.process.send_signal(number)
    assert serving.process.wait(timeout=10) == 0
    gone(family, seconds=2)
    assert "could not be started" not in serving.log.read_text(), "an end in order looks like none in the log"


def test_workers_leave_when_the_main_process_is_killed(tmp_path: Path) -> None:
    serving = start(tmp_path / "data", "--workers", "2", "--engines", FAULTY)
    in_background(serving, "children-sleep-30-a.pdf")
    wait_until(lambda: next((tmp_path / "data").glob("jobs/*/child.pid"), None))
    family = serving.family()
    serving.process.kill()
    serving.process.wait()
    gone(family)


def is_worker(process: psutil.Process) -> bool:
    # Short-lived children that look at the machine may have ended already.
    with contextlib.suppress(psutil.Error):
        return "spawn_main" in " ".join(process.cmdline())
    return False


@pytest.mark.parametrize("pause", [0.5, 1.0])
def test_workers_leave_when_the_main_process_is_killed_while_they_start(tmp_path: Path, pause: float) -> None:
    serving = start(tmp_path / "data", "--workers", "2", "--engines", FAULTY, wait=False)
    main = psutil.Process(serving.process.pid)
    wait_until(lambda: sum(map(is_worker, main.children())) == 2)
    # A worker that is still importing has not looked at its parent yet.
    time.sleep(pause)
    family = serving.family()
    serving.process.kill()
    serving.process.wait()
    gone(family)


def test_a_killed_api_process_is_replaced_and_workers_go_on_meanwhile(tmp_path: Path) -> None:
    serving = start(tmp_path / "data", "--workers", "1", "--engines", FAULTY)
    job = requests.post(f"{serving.url}/jobs", files={"files": ("sleep-0.1-a.pdf", blank_pdf(20))}, timeout=30).json()
    (worker,) = wait_until(lambda: [one for one in serving.workers() if one["state"] == "busy"])
    first = serving.api()
    first.kill()
    # Who connects meanwhile waits for the next one.
    wait_until(lambda: serving.get(f"/jobs/{job['job_id']}")["state"] == "completed")
    assert serving.api().pid != first.pid
    shards = serving.get(f"/jobs/{job['job_id']}")["shards"]
    assert [shard["attempt"] for shard in shards] == [1]
    assert [one["pid"] for one in serving.workers()] == [worker["pid"]]
    assert stop(serving) == 0


def test_an_api_process_killed_again_and_again_ends_the_server_with_an_error(tmp_path: Path) -> None:
    serving = start(tmp_path / "data", "--workers", "1", "--engines", FAULTY)
    family = set(serving.family())

    def killed() -> bool:
        with contextlib.suppress(psutil.Error, AssertionError):
            family.update(serving.family())
            serving.api().kill()
        return serving.process.poll() is not None

    wait_until(killed, seconds=60)
    assert serving.process.wait() == 1
    gone(list(family))


def test_the_server_ends_with_an_error_when_the_hosts_manager_is_killed(tmp_path: Path) -> None:
    serving = start(tmp_path / "data", "--workers", "1", "--engines", FAULTY)
    family = serving.family()
    (manager,) = victims_of(serving)["manager"]
    manager.kill()
    assert serving.process.wait(timeout=15) == 1
    gone(family)


def test_an_accepted_document_is_finished_after_everything_was_killed_and_started_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    serving = start(data, "--workers", "1", "--engines", FAULTY)
    in_background(serving, "sleep-2-a.pdf", pages=2)
    # The one that is read when all is killed; the other waits.
    wait_until(lambda: busy_worker(serving))
    in_background(serving, "b.pdf")
    wait_until(lambda: serving.get("/status")["queue"]["queued_jobs"] == 1)
    family = serving.family()
    for process in family:
        process.kill()
    gone(family)
    names = [path.name for path in (data / "jobs").iterdir()]
    with running(data, "--workers", "1", "--engines", FAULTY) as again:
        for name in names:
            wait_until(lambda name=name: again.get(f"/jobs/{name}")["state"] == "completed", message=name)
        assert again.get("/status")["totals"]["completed"] == 2
        assert "not held against the document" in again.log.read_text()


def test_servers_that_were_killed_while_they_read_a_document_are_counted_and_stopped_ones_are_not(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    serving = start(data, "--workers", "1", "--engines", FAULTY, "--grace-seconds", "1")
    in_background(serving, "sleep-6-a.pdf")
    for _ in range(2):
        wait_until(lambda serving=serving: busy_worker(serving))
        family = serving.family()
        for process in family:
            process.kill()
        gone(family)
        serving = start(data, "--workers", "1", "--engines", FAULTY, "--grace-seconds", "1")
    wait_until(lambda: busy_worker(serving))
    assert "with the whole server, 2 times in a row," in serving.log.read_text()
    assert stop(serving) == 0
    with running(data, "--workers", "1", "--engines", FAULTY) as again:
        wait_until(lambda: again.get("/status")["totals"]["completed"] == 1, seconds=30)
        assert "3 times in a row" not in again.log.read_text()


def test_a_second_server_on_the_same_data_folder_is_refused(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--workers", "1", "--engines", FAULTY):
        second = start(tmp_path / "data", "--engines", FAULTY, wait=False)
        assert second.process.wait(timeout=30) == 2
        assert "--data-dir" in second.log.read_text()


def test_a_port_that_another_program_has_is_told_before_anything_is_started(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        refused = start(tmp_path / "data", wait=False, port=other.getsockname()[1])
        assert refused.process.wait(timeout=60) == 2
    log = refused.log.read_text()
    assert "another program listens there. Stop it, or choose another port with --port" in log
    assert "listening on" not in log


def test_a_stopped_server_leaves_no_temporary_file(tmp_path: Path) -> None:
    serving = start(tmp_path / "data", "--workers", "1", "--engines", FAULTY)
    job = serving.predict(blank_pdf(2), "a.pdf").json()["job_id"]
    assert stop(serving) == 0
    assert list((tmp_path / "data" / "incoming").iterdir()) == []
    assert sorted(path.name for path in (tmp_path / "data" / "jobs" / job).iterdir()) == ["result-1", "source.pdf"]


@pytest.mark.needs("namespaces")
def test_as_process_one_of_a_container_it_reaps_orphans_and_obeys_sigterm(tmp_path: Path) -> None:
    under = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    serving = start(tmp_path / "data", "--workers", "1", "--engines", FAULTY, under=under)
    (first,) = psutil.Process(serving.process.pid).children()
    # The killed worker's child has no parent left but process 1.
    assert serving.predict(blank_pdf(1), "children-sleep-0.3-die-once-a.pdf").status_code == 200

    def zombies() -> list[int]:
        return [child.pid for child in first.children(recursive=True) if child.status() == psutil.STATUS_ZOMBIE]

    wait_until(lambda: not zombies(), message="zombies are left")
    family = [first, *first.children(recursive=True)]
    first.send_signal(signal.SIGTERM)
    assert serving.process.wait(timeout=10) == 0
    gone(family)
