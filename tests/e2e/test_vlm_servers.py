"""VLM servers that the server runs itself, through the real server: documents are read by them whatever is killed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from docfleet.vlm.local import LocalServer, LocalState, read_servers
from tests.launch_house import behave, first_port, make_command, make_engine, servers, starts
from tests.serving import ROOT, Serving, blank_pdf, gone, running, start, stop, wait_ready, wait_until
from tests.vlm_house import TEXT

DOCS = (ROOT / "docs" / "vlm.md").read_text()
#: Asks the servers and computes nothing; it reads tier advanced.
ASKER = "tests.vlm_engine:PageAsker"


@dataclass
class Place:
    """A running server, and where its VLM servers' program lies."""

    serving: Serving
    bin: Path

    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.serving.get("/status")["vlm"]["servers"]
        return rows

    def endpoints(self) -> list[dict[str, Any]]:
        endpoints: list[dict[str, Any]] = self.serving.get("/vlm/endpoints")["endpoints"]
        return endpoints

    def well(self) -> bool:
        """Both answer, and the router knows; one that was down is on trial until it has read something."""
        ready = [row["state"] for row in self.rows()] == ["ready"] * 2
        return ready and {row["state"] for row in self.endpoints()} <= {"up", "trial"}

    def read(self, pages: int) -> None:
        answer = self.serving.predict(blank_pdf(pages), "pages.pdf", timeout=240, tier="advanced")
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["failed_pages"] == []
        assert body["markdown"].split("\n\n") == [TEXT] * pages

    def launcher(self) -> psutil.Process:
        (found,) = [one for one in self.serving.family() if "docfleet.launch.launcher" in " ".join(one.cmdline())]
        return found


def options(folder: Path) -> list[str]:
    program = make_command(folder)
    told = ["--vlm-servers", "2", "--vlm-server-engine", "llama-cpp", "--vlm-server-command", str(program)]
    return [*told, "--vlm-server-port", str(first_port()), "--engines", ASKER, "--workers", "2", "--overcommit-cpu"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("servers")
    arguments = options(folder / "bin")
    behave(folder / "bin", all_="held")
    with running(folder / "data", *arguments, wait=False) as serving:
        yield Place(serving, folder / "bin")
    for process in servers(folder / "bin"):
        process.kill()


def seen(row: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = requests.get(f"{row['url']}/control", timeout=10).json()
    return told


def test_workers_wait_for_the_first_server_and_then_read_with_all_of_them(place: Place) -> None:
    def waiting() -> bool:
        try:
            told = [(one["state"], one["detail"]) for one in place.serving.workers()]
        except requests.RequestException:
            return False
        each = "; ".join(f"VLM server {number} on cpu is loading" for number in range(2))
        return set(told) == {("loading", each)}

    wait_until(waiting, 120)
    behave(place.bin)
    wait_ready(place.serving, seconds=120)
    wait_until(place.well, 60)
    before = [seen(row)["pages"] for row in place.rows()]
    place.read(24)
    gained = [seen(row)["pages"] - earlier for row, earlier in zip(place.rows(), before, strict=True)]
    assert sum(gained) == 24
    assert all(gained)
    rows, endpoints = place.rows(), place.endpoints()
    assert [row["id"] for row in rows] == [endpoint["id"] for endpoint in endpoints]
    for row in rows:
        assert (row["device"], row["engine"], row["restarts"], row["reason"]) == ("cpu", "llama-cpp", 0, "")
        assert row["uptime"] > 0
        assert "engine llama-cpp loads" in (place.serving.data / row["log"]).read_text()


def test_a_server_that_is_killed_in_mid_run_costs_no_page_and_gets_its_share_again(place: Place) -> None:
    for row in place.rows():
        requests.post(f"{row['url']}/control", json={"seconds": 0.1}, timeout=10).raise_for_status()
    over = threading.Event()

    def go_on_reading() -> None:
        while not over.is_set():
            place.read(12)

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(go_on_reading)
        try:
            wait_until(lambda: place.endpoints()[1]["in_flight"] > 0, 60)
            psutil.Process(starts(place.bin, place.rows()[1]["port"])[-1]["pid"]).kill()
            wait_until(lambda: place.well() and place.rows()[1]["restarts"] == 1, 120)
            wait_until(lambda: seen(place.rows()[1])["pages"] > 0, 120)
        finally:
            over.set()
        reading.result()


def test_servers_outlive_a_killed_api_process_and_are_replaced_with_a_killed_launcher(place: Place) -> None:
    before = [row["pid"] for row in place.rows()]
    place.serving.api().kill()

    def told_again() -> bool:
        try:
            return [row["pid"] for row in place.rows()] == before and place.well()
        except requests.RequestException:
            return False

    wait_until(told_again, 120)
    place.read(4)
    launcher = place.launcher()
    below = launcher.children(recursive=True)
    assert len(below) >= 6
    launcher.kill()
    gone([launcher, *below])
    wait_until(place.well, 120)
    place.read(8)
    assert not {row["pid"] for row in place.rows()} & set(before)


def test_servers_end_in_order_with_the_server_even_those_that_ignore_it(place: Place) -> None:
    behave(place.bin, all_="stubborn")
    place.launcher().kill()
    wait_until(lambda: [len(starts(place.bin, row["port"])) >= 3 for row in place.rows()] == [True] * 2, 120)
    wait_until(place.well, 120)
    assert stop(place.serving, seconds=30) == 0
    gone(servers(place.bin))


def test_the_documented_command_runs_one_on_each_card_and_a_kill_leaves_none_behind(tmp_path: Path) -> None:
    (command,) = re.findall(r"^    python server\.py (--vlm-servers .*)$", DOCS, re.MULTILINE)
    program = make_command(tmp_path / "bin")
    cards = make_engine(tmp_path / "packages", tmp_path / "bin", cards=2)
    settings = {"ENGINES": ASKER, "VLM_SERVER_PORT": str(first_port()), "VLM_SERVER_COMMAND": str(program)}
    settings["VLM_SERVER_ENGINE"] = "llama-cpp"
    variables = {f"DOCFLEET_{name}": value for name, value in settings.items()}
    serving = start(tmp_path / "data", *command.split(), wait=False, **cards, **variables)
    try:
        rows = wait_until(lambda: ready_on_cards(serving), 120)
        for card, row in enumerate(rows):
            (given,) = starts(tmp_path / "bin", row.port)
            assert given["environment"]["CUDA_VISIBLE_DEVICES"] == str(card)
        left = [*serving.family(), *servers(tmp_path / "bin")]
        serving.process.kill()
        gone(left, 60)
        assert "cuda:1: its VLM servers take about 4 GB each" in serving.log.read_text()
    finally:
        serving.process.kill()
        serving.process.wait()


def ready_on_cards(serving: Serving) -> list[LocalServer]:
    rows = read_servers(serving.data / "vlm" / "servers.json")
    told = [(row.device, row.state) for row in rows]
    return rows if told == [("cuda:0", LocalState.READY), ("cuda:1", LocalState.READY)] else []


def test_an_engine_that_cannot_run_here_is_refused_at_the_start(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "server.py", "--data-dir", str(tmp_path / "data"), "--devices", "cpu", "--vlm-servers", "1"],
        cwd=ROOT,
        env=os.environ | {"MINERU_MODEL_SOURCE": "local", "DOCFLEET_VLM_SERVER_ENGINE": "mlx"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert "vlm_server_engine=mlx does not run on cpu; engines that do: llama-cpp" in done.stderr
