"""Run the real server for a test, on a free loopback port, with a data folder of its own."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests

ROOT = Path(__file__).resolve().parent.parent
FAULTY = "tests.engines:FaultyEngine"


@dataclass
class Serving:
    """A running server."""

    process: subprocess.Popen[bytes]
    url: str
    data: Path
    log: Path

    def predict(self, content: bytes, filename: str, timeout: float = 60, **options: str) -> requests.Response:
        files = {"files": (filename, content)}
        return requests.post(f"{self.url}/predict", files=files, data=options, timeout=timeout)

    def get(self, path: str) -> Any:
        return requests.get(self.url + path, timeout=10).json()

    def workers(self) -> list[dict[str, Any]]:
        workers: list[dict[str, Any]] = self.get("/status")["workers"]
        return workers

    def spares(self) -> list[dict[str, Any]]:
        spares: list[dict[str, Any]] = self.get("/status")["spares"]
        return spares

    def family(self) -> list[psutil.Process]:
        """The main process and everything it started."""
        main = psutil.Process(self.process.pid)
        return [main, *main.children(recursive=True)]

    def api(self) -> psutil.Process:
        """The process that answers requests: the one that has documents looked at."""
        for process in self.family()[1:]:
            if any("inspector_main" in " ".join(child.cmdline()) for child in process.children()):
                return process
        raise AssertionError("no API process")


def free_port() -> int:
    """Return a port below those that the system gives to connections: none of these takes it before the server does."""
    while True:
        port = random.randrange(10_000, 29_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def start(
    data: Path,
    *arguments: str,
    wait: bool = True,
    under: tuple[str, ...] = (),
    port: int | None = None,
    **environment: str,
) -> Serving:
    """Start the server, `under` another command if given, on a free port unless one is given."""
    port = port or free_port()
    data.parent.mkdir(parents=True, exist_ok=True)
    log = data.parent / f"{data.name}.log"
    # A source that is set is not probed: tests stay off the network.
    # Tests send the same bytes again and want them parsed again; those of reuse say --reuse-results.
    # A spare process would be one more to load in each of them; tests of it say --spares.
    quiet = {"MINERU_MODEL_SOURCE": "local", "PYTHONUNBUFFERED": "1", "DOCFLEET_REUSE_RESULTS": "false"}
    quiet["DOCFLEET_SPARES"] = "0"
    # To the tests' engines the name of a document is its content; those of the poison list say --poison-hours.
    quiet["DOCFLEET_POISON_HOURS"] = "0"
    environ = os.environ | quiet | environment
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [*under, sys.executable, "server.py", "--port", str(port), "--data-dir", str(data), *arguments],
            cwd=ROOT,
            env=environ,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    serving = Serving(process, f"http://127.0.0.1:{port}", data, log)
    if wait:
        try:
            wait_ready(serving)
        except BaseException:
            # Whoever called never gets it, and could not end it.
            _end(serving)
            raise
    return serving


def wait_ready(serving: Serving, workers: int = 1, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if serving.process.poll() is not None:
            break
        with contextlib.suppress(requests.RequestException, KeyError):
            ready = [worker for worker in serving.workers() if worker["state"] in ("ready", "busy")]
            if len(ready) >= workers:
                return
        time.sleep(0.05)
    raise AssertionError(f"not ready\n{serving.log.read_text()[-4000:]}")


def wait_until(condition: Any, seconds: float = 30, message: str = "") -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds} s: {message or condition}")


def gone(processes: list[psutil.Process], seconds: float = 15) -> None:
    """Assert that every process ends within the time."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    alive = [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert not alive, [(process.pid, process.cmdline()) for process in alive]


def stop(serving: Serving, seconds: float = 15) -> int:
    family = serving.family() if serving.process.poll() is None else []
    if family:
        serving.process.send_signal(signal.SIGTERM)
    status = serving.process.wait(timeout=seconds)
    gone(family)
    return status


@contextlib.contextmanager
def running(
    data: Path,
    *arguments: str,
    wait: bool = True,
    under: tuple[str, ...] = (),
    port: int | None = None,
    **environment: str,
) -> Iterator[Serving]:
    serving = start(data, *arguments, wait=wait, under=under, port=port, **environment)
    try:
        yield serving
    finally:
        _end(serving)


def _end(serving: Serving) -> None:
    if serving.process.poll() is None:
        family = serving.family()
        serving.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            serving.process.wait(timeout=15)
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()


def blank_pdf(pages: int) -> bytes:
    """A PDF of empty pages, for engines that do not look inside."""
    import io

    import pypdfium2

    document = pypdfium2.PdfDocument.new()
    for _ in range(pages):
        document.new_page(300, 400)
    sink = io.BytesIO()
    document.save(sink)
    return sink.getvalue()
