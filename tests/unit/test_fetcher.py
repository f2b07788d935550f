"""The chore that has weights fetched: one process at a time, again after a pause where it fails, killed at the end."""

from __future__ import annotations

import subprocess
import sys

from docfleet.supervisor import fetcher
from docfleet.supervisor.fetcher import Fetcher


class Started:
    """Starts programs, one after the other, and remembers them."""

    def __init__(self, *programs: str) -> None:
        self._programs = list(programs)
        self.processes: list[subprocess.Popen[str]] = []

    def __call__(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-S", "-c", self._programs.pop(0)]
        self.processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, text=True))
        return self.processes[-1]


def test_a_fetch_that_fails_is_started_again_after_a_pause_and_one_that_succeeds_is_not() -> None:
    started, told = Started("raise SystemExit(1)", "pass"), []
    chore = Fetcher(started, lambda: told.append(1))
    chore.look()
    chore.look()
    assert len(started.processes) == 1
    started.processes[0].wait()
    chore.look()
    chore.look()
    # The pause is on.
    assert len(started.processes) == 1
    chore._due = 0.0
    chore.look()
    started.processes[1].wait()
    chore.look()
    chore._due = 0.0
    chore.look()
    assert len(started.processes) == 2
    assert len(told) == 6
    assert fetcher._PAUSE < chore._pause <= fetcher._LONGEST_PAUSE


def test_stopping_ends_the_fetch_under_way() -> None:
    started = Started("import time; time.sleep(600)")
    chore = Fetcher(started, lambda: None)
    chore.look()
    chore.stop()
    assert started.processes[0].returncode == -9
    chore.look()
    assert len(started.processes) == 1
