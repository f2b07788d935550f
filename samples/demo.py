"""`make demo`: start the server, parse the three samples through client.py, show what came out, stop the server."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "output" / "demo"
DATA = ROOT / "data" / "demo"
SAMPLES = [ROOT / "samples" / name for name in ("report.pdf", "letter-scan.pdf", "minutes.docx")]
#: Lines of each result that are shown.
HEAD = 8
#: Seconds that the server may take to start.
PATIENCE = 180


@contextlib.contextmanager
def server(port: int) -> Iterator[str]:
    """Run the server for a while; yield its address."""
    command = [sys.executable, "server.py", "--port", str(port), "--data-dir", str(DATA), "--log-level", "warning"]
    # The demo is to run anywhere: no model is looked for.
    environ = os.environ | {"MINERU_MODEL_SOURCE": os.environ.get("MINERU_MODEL_SOURCE", "embedded")}
    process = subprocess.Popen(command, cwd=ROOT, env=environ)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_ready(process, url)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def wait_ready(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"the server ended with status {process.returncode}")
        with contextlib.suppress(requests.ConnectionError):
            if requests.get(f"{url}/readyz", timeout=5).ok:
                return
        time.sleep(0.1)
    raise SystemExit(f"the server was not ready within {PATIENCE} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def show_heads() -> None:
    for result in sorted(OUTPUT.glob("*/*.md")):
        lines = [line for line in result.read_text(encoding="utf-8").splitlines() if line.strip()]
        print(f"\n--- {result.relative_to(ROOT)}")
        for line in lines[:HEAD]:
            print(line if len(line) <= 110 else line[:107] + "...")


def main() -> int:
    started = time.monotonic()
    shutil.rmtree(OUTPUT, ignore_errors=True)
    with server(free_port()) as url:
        print(f"server ready on {url} after {time.monotonic() - started:.1f} s")
        command = [sys.executable, "client.py", *map(str, SAMPLES), "--out", str(OUTPUT), "--url", url]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
    show_heads()
    print(f"\nresults are in {OUTPUT.relative_to(ROOT)}/ ({time.monotonic() - started:.1f} s in all)")
    return status


if __name__ == "__main__":
    sys.exit(main())
