"""`client.py` with hundreds of documents at the same time, on the real server: busy, killed, and interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from tests.serving import FAULTY, ROOT, Serving, blank_pdf, running, wait_until

#: More documents at the same time than the server takes (20) and than the usual soft limit of files lets be open.
TOGETHER, NUMBER = 100, 160
FEW_FILES = ("sh", "-c", 'ulimit -S -n 96 && exec "$@"', "sh")
SERVER = ("--workers", "2", "--overcommit-cpu", "--engines", FAULTY, "--reuse-results")
BUSY = ("--max-backlog-jobs", "20", "--admission-wait", "0")


def made(folder: Path) -> Path:
    folder.mkdir()
    for number in range(NUMBER):
        (folder / f"sleep-0.02-{number:03}.pdf").write_bytes(blank_pdf(1) + b"%%%d" % number)
    return folder


def begin(docs: Path, out: Path, serving: Serving, *more: str) -> subprocess.Popen[bytes]:
    command = (sys.executable, "client.py", docs, "--out", out, "--url", serving.url, "--concurrency", TOGETHER)
    # On a slow machine the server may need minutes to start anew.
    report = ("--retries", "12", "--json", out.parent / "report.json", *more)
    with (out.parent / "client.log").open("ab") as log:
        return subprocess.Popen([*FEW_FILES, *map(str, (*command, *report))], cwd=ROOT, stdout=log, stderr=log)


def ended(client: subprocess.Popen[bytes], out: Path) -> dict[str, Any]:
    client.wait(timeout=240)
    report: dict[str, Any] = json.loads((out.parent / "report.json").read_text())
    assert report["inputs"] == report["succeeded"] + report["failed"] == NUMBER
    return report


def results(out: Path) -> int:
    return len(list(out.glob("*/docfleet.json")))


def until_results(out: Path, number: int, client: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: results(out) >= number or client.poll() is not None, 120, "no results")
    assert client.poll() is None


def test_a_run_of_hundreds_loses_nothing_when_it_is_interrupted_and_its_server_killed_and_started_anew(
    tmp_path: Path,
) -> None:
    docs, out = made(tmp_path / "docs"), tmp_path / "out"
    with running(tmp_path / "data", *SERVER, *BUSY) as serving:
        client = begin(docs, out, serving)
        until_results(out, 20, client)
        client.send_signal(signal.SIGINT)
        report = ended(client, out)
        log, done = (tmp_path / "client.log").read_text(), report["succeeded"]
        assert (client.returncode, report["interrupted"]) == (130, True), log[-4000:]
        assert "Traceback" not in log
        assert results(out) == done < NUMBER
        # What was under way was cancelled as its caller left: nobody works for nobody.
        wait_until(lambda: not serving.get("/status")["queue"]["backlog_jobs"], 60, "work for nobody")

        client = begin(docs, out, serving, "--resume")
        until_results(out, done + 20, client)
        memory = psutil.Process(client.pid).memory_info().rss
        for process in serving.family():
            process.kill()
        serving.process.wait()
    with running(tmp_path / "data", *SERVER, *BUSY, port=int(serving.url.rpartition(":")[2])) as serving:
        report = ended(client, out)
    log = (tmp_path / "client.log").read_text()
    assert (client.returncode, report["succeeded"], report["skipped"]) == (0, NUMBER, done), log[-4000:]
    assert results(out) == NUMBER
    assert report["refusals"] > 0
    assert memory < 150 * 2**20
    # The devices' part in this run alone: what the killed server had read before is not in it twice.
    (cpu,) = report["server"]["rows"]
    assert (cpu["name"], cpu["failed"]) == ("cpu", 0)
    assert 0 < cpu["pages"] <= NUMBER - done
