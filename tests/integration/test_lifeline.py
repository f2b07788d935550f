"""Real processes, tied to a parent that is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.serving import ROOT, gone, wait_until

PARENT = """
import subprocess, sys, time
from docfleet.process.lifeline import offer_lifeline
offer_lifeline()
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
print(child.pid, flush=True)
time.sleep(600)
"""
CHILD = """
import sys, time
from pathlib import Path
from docfleet.process.lifeline import tie_to_parent
if {late}:
    while not Path({sign!r}).exists():
        time.sleep(0.01)
tie_to_parent()
time.sleep(600)
"""


@pytest.mark.parametrize("late", [False, True], ids=["tied before", "tied after"])
def test_a_child_leaves_when_its_parent_is_killed(tmp_path: Path, late: bool) -> None:
    sign = tmp_path / "parent-is-gone"
    command = [sys.executable, "-c", PARENT, CHILD.format(late=late, sign=str(sign))]
    parent = subprocess.Popen(command, cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    if not late:
        wait_until(lambda: child.num_threads() > 1)
    parent.kill()
    parent.wait()
    sign.touch()
    gone([child], seconds=5)
