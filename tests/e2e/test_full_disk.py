"""A disk that is really full: new work is refused, work in hand waits for room, and nothing is harmed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.serving import FAULTY, Serving, blank_pdf, gone, start, stop, wait_until

#: Size of the data folder's own disk.
_DISK = 96 * 2**20
#: As the smallest that the settings allow for.
_RESERVE = 32 * 2**20

pytestmark = pytest.mark.needs("namespaces")


class SmallDisk:
    """A server whose data folder is a small disk of its own, which only its processes see."""

    def __init__(self, data: Path, *arguments: str) -> None:
        data.mkdir(parents=True)
        mount = f'mount -t tmpfs -o size={_DISK} tmpfs "$0" && exec "$@"'
        under = ("unshare", "--mount", "--propagation", "private", "sh", "-c", mount, str(data))
        arguments = ("--workers", "1", "--engines", FAULTY, "--min-free-disk-mb", "32", *arguments)
        self.serving = start(data, *arguments, under=under)
        #: The data folder as the server sees it.
        self.data = Path(f"/proc/{self.serving.process.pid}/root{data}")
        self._ballast = self.data / "ballast"

    def free(self) -> int:
        found = os.statvfs(self.data)
        return found.f_bavail * found.f_frsize

    def leave(self, size: int) -> None:
        """Fill the disk until so many bytes are free."""
        with self._ballast.open("ab") as ballast:
            ballast.truncate(0)
            os.posix_fallocate(ballast.fileno(), 0, self.free() - size)

    def fill(self) -> None:
        """Fill it to the last byte."""
        with self._ballast.open("ab", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(b"x" * 4096)
            except OSError:
                return

    def empty(self) -> None:
        self._ballast.unlink()

    def integrity(self) -> str:
        code = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('PRAGMA integrity_check').fetchone())"
        there = ("nsenter", "--mount", "--target", str(self.serving.process.pid))
        command = [*there, sys.executable, "-c", code, str(self.serving.data / "docfleet.db")]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def uploads(self) -> list[str]:
        return [path.name for path in (self.data / "incoming").iterdir()]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    # The shortest silence that the settings allow: no test has to wait long for it.
    disk = SmallDisk(tmp_path / "data", "--stale-seconds", "5")
    family = disk.serving.family()
    yield disk
    if disk.serving.process.poll() is None:
        stop(disk.serving)
    gone(family)


def post(serving: Serving, name: str, pages: int) -> requests.Response:
    return requests.post(f"{serving.url}/jobs", files={"files": (name, blank_pdf(pages))}, timeout=60)


def test_a_full_disk_refuses_new_work_and_what_was_accepted_is_done_once_there_is_room(disk: SmallDisk) -> None:
    serving = disk.serving
    # Nearly full: refused before a byte is taken.
    disk.leave(_RESERVE // 2)
    refused = post(serving, "b.pdf", 1)
    assert (refused.status_code, refused.json()["error"]["code"]) == (507, "storage_full")

    # Room enough when it begins, and full while it is taken: a body that does not say its length.
    disk.leave(_RESERVE + 2 * 2**20)
    body = (b"%PDF-1.4\n" + b"x" * 2**20 for _ in range(64))
    cut_off = requests.post(f"{serving.url}/jobs", data=body, headers={"Content-Type": "application/pdf"}, timeout=60)
    assert (cut_off.status_code, cut_off.json()["error"]["code"]) == (507, "storage_full")
    wait_until(lambda: disk.uploads() == [])

    # Full to the last byte while a worker is at work: what it makes has no place.
    accepted = post(serving, "sleep-0.5-a.pdf", 10)
    assert accepted.status_code == 202
    job_id = accepted.json()["job_id"]
    disk.fill()
    wait_until(lambda: "room left on the disk" in serving.log.read_text(), seconds=60)
    assert requests.get(f"{serving.url}/livez", timeout=10).status_code == 200
    assert serving.get(f"/jobs/{job_id}")["state"] in ("queued", "running")
    worker = serving.workers()[0]["pid"]

    disk.empty()
    wait_until(lambda: serving.get(f"/jobs/{job_id}")["state"] == "completed", seconds=90)
    assert "page 9" in serving.get(f"/jobs/{job_id}/result")["markdown"]
    # Neither the worker nor the document was blamed.
    assert serving.workers()[0]["pid"] == worker
    assert serving.get("/status")["totals"]["failed"] == 0
    assert "Traceback" not in serving.log.read_text(), "the log lies on the same disk as often as not"
    assert disk.integrity() == "ok"
    job = disk.data / "jobs" / job_id
    wait_until(lambda: sorted(path.name.partition("-")[0] for path in job.iterdir()) == ["result", "source.pdf"])
    assert stop(serving) == 0


def test_a_worker_that_cannot_say_that_it_lives_is_not_killed_for_that(disk: SmallDisk) -> None:
    serving = disk.serving
    worker = serving.workers()[0]["pid"]
    job_id = post(serving, "sleep-0.5-a.pdf", 6).json()["job_id"]
    wait_until(lambda: serving.get(f"/jobs/{job_id}")["state"] == "running")
    disk.fill()
    # Longer than a worker may be silent.
    time.sleep(8)
    disk.empty()
    wait_until(lambda: serving.get(f"/jobs/{job_id}")["state"] == "completed", seconds=60)
    assert serving.workers()[0]["pid"] == worker
    assert "was killed" not in serving.log.read_text()
    told = [line for line in serving.log.read_text().splitlines() if "supervisor: leases" in line]
    assert [("WARNING" in line, "INFO" in line) for line in told] == [(True, False), (False, True)], told
    assert stop(serving) == 0
