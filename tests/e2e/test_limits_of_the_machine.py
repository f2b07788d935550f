"""A server that may use less than the machine has plans for what it may use."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from docfleet.devices.environment import MANAGED
from tests.serving import FAULTY, ROOT, running, wait_until

#: Control groups of version 1, or of version 2.
GROUPS = (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup"))


@contextlib.contextmanager
def quota(cores: float) -> Iterator[tuple[str, ...]]:
    """A control group with so many cores' worth of time; yields what a command is put under to run in it."""
    top = next(folder for folder in GROUPS if (folder / "cgroup.procs").exists())
    group = top / f"docfleet-test-{os.getpid()}"
    try:
        group.mkdir()
        if (group / "cpu.max").exists():
            (group / "cpu.max").write_text(f"{int(cores * 100_000)} 100000", encoding="ascii")
        else:
            (group / "cpu.cfs_quota_us").write_text(str(int(cores * 100_000)), encoding="ascii")
    except OSError as exc:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"left out: no control group can be made here ({exc.strerror})")
    try:
        yield ("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh")
    finally:
        # The last processes of a server that was ended leave it a moment later.
        wait_until(lambda: removed(group), 60)


def removed(group: Path) -> bool:
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


@pytest.fixture(autouse=True)
def plan_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests set for MinerU would be kept by the plan as the user's own wish."""
    for name in set(os.environ) & set(MANAGED):
        monkeypatch.delenv(name)


def told_by_the_command(under: tuple[str, ...]) -> dict[str, Any]:
    command = [*under, sys.executable, "device_utils.py", "--json", "--devices", "cpu"]
    environ = os.environ | {"MINERU_MODEL_SOURCE": "local"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def told_by_the_server(data: Path, under: tuple[str, ...]) -> tuple[dict[str, Any], int]:
    with running(data, "--engines", FAULTY, "--devices", "cpu", under=under) as serving:
        return serving.get("/status")["devices"], len(serving.workers())


@pytest.mark.skipif(shutil.which("taskset") is None, reason="taskset is not here")
def test_bound_to_one_core_the_command_and_the_server_plan_one_worker_with_one_thread(tmp_path: Path) -> None:
    under = ("taskset", "-c", str(min(os.sched_getaffinity(0))))
    facts = told_by_the_command(under)
    assert (facts["machine"]["cpu"]["affinity"], facts["machine"]["cpu"]["cores"]) == (1, 1)
    served, workers = told_by_the_server(tmp_path / "data", under)
    for plan in (facts["plan"], served["plan"]):
        assert [worker["threads"] for worker in plan["workers"]] == [1]
    assert workers == 1


def test_in_a_real_control_group_the_command_and_the_server_plan_for_its_quota(tmp_path: Path) -> None:
    with quota(0.8) as under:
        facts = told_by_the_command(under)
        assert facts["machine"]["cpu"]["quota"] == 0.8
        served, workers = told_by_the_server(tmp_path / "data", under)
        assert served["machine"]["cpu"]["cores"] == 0.8
        assert len(facts["plan"]["workers"]) == len(served["plan"]["workers"]) == workers == 1
