"""Who counts as a caller, on the real server."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import requests

from tests.serving import FAULTY, Serving, blank_pdf, running

BUSY = ("--workers", "1", "--engines", FAULTY)


def callers(serving: Serving) -> set[str]:
    with closing(sqlite3.connect(serving.data / "docfleet.db")) as database:
        return {name for (name,) in database.execute("SELECT name FROM callers")}


def send(serving: Serving, forwarded: str) -> str:
    headers = {"X-Forwarded-For": forwarded, "Forwarded": f"for={forwarded}"}
    response = requests.post(
        f"{serving.url}/jobs", files={"files": ("hang.pdf", blank_pdf(1))}, headers=headers, timeout=30
    )
    assert response.status_code == 202
    return str(response.json()["job_id"])


def test_a_forged_header_makes_nobody_another_caller_and_no_address_is_told(tmp_path: Path) -> None:
    # Uvicorn by itself would believe any connection from this machine, and whom its own variable names.
    with running(tmp_path / "data", *BUSY, FORWARDED_ALLOW_IPS="*") as serving:
        job, *_ = [send(serving, f"203.0.113.{number}") for number in range(3)]
        assert callers(serving) == {"address 127.0.0.1"}
        for path in ("/jobs", f"/jobs/{job}", "/status"):
            told = requests.get(serving.url + path, timeout=10).text
            assert not [word for word in ("203.0.113", "127.0.0.1", "caller") if word in told], path


def test_what_a_trusted_proxy_says_names_the_caller(tmp_path: Path) -> None:
    with running(tmp_path / "data", *BUSY, "--trusted-proxies", "10.0.0.0/8,127.0.0.1") as serving:
        send(serving, "203.0.113.1")
        # What the caller itself put before the proxies' words is not believed.
        send(serving, "198.51.100.9, 203.0.113.2, 10.1.2.3")
        send(serving, "2001:db8:1:2::3")
        send(serving, "2001:db8:1:2:ffff::4")
        assert callers(serving) == {"address 203.0.113.1", "address 203.0.113.2", "address 2001:db8:1:2::"}
