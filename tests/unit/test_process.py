from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from docfleet.errors import ConfigurationError
from docfleet.host.lock import hold_folder
from docfleet.process.groups import kill_group
from docfleet.process.identity import identify, is_alive
from docfleet.records import ProcessIdentity


def test_a_process_knows_itself_and_another_start_time_is_another_process() -> None:
    me = identify()
    assert me.pid == os.getpid()
    assert is_alive(me)
    assert not is_alive(ProcessIdentity(pid=me.pid, started=me.started + 1))


def test_a_zombie_and_a_process_that_never_was_are_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = identify(child.pid)
    assert is_alive(identity)
    child.kill()
    deadline = time.monotonic() + 5
    while is_alive(identity) and time.monotonic() < deadline:
        time.sleep(0.01)
    # Killed and not yet waited for: a zombie.
    assert not is_alive(identity)
    child.wait()
    with pytest.raises(ProcessLookupError):
        identify(child.pid)


def test_killing_a_group_reaches_grandchildren_and_never_ourselves() -> None:
    code = (
        "import subprocess, sys; from docfleet.process.groups import lead_group; lead_group();"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        "print(child.pid, flush=True); child.wait()"
    )
    leader = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert leader.stdout is not None
    grandchild = identify(int(leader.stdout.readline()))
    kill_group(leader.pid)
    assert leader.wait(timeout=5) == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while is_alive(grandchild) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(grandchild)
    kill_group(os.getpgrp())
    kill_group(leader.pid)
    assert is_alive(identify())


def test_leading_a_group_twice_is_no_error() -> None:
    code = (
        "import os; from docfleet.process.groups import lead_group as lead;"
        "lead(); lead(); print(os.getpgrp() == os.getpid())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "True"


def test_a_data_folder_whose_lock_cannot_be_written_is_told_as_a_setting_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "server.lock").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be written"):
        hold_folder(tmp_path)
