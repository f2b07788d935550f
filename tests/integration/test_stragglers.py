from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: A process of its own: the last look ends every child of the process that takes it.
PROGRAM = """
import multiprocessing, threading, time
from docfleet.host.shutdown import end_stragglers

def start(context):
    child = context.Process(target=time.sleep, args=(40,))
    child.start()
    return child

def monitor(context, first):
    first.join()
    start(context)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    first = start(context)
    threading.Thread(target=monitor, args=(context, first)).start()
    end_stragglers()
    print("left", len(multiprocessing.active_children()), flush=True)
"""


def test_a_worker_that_starts_while_the_server_ends_is_ended_too(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    # Without the last look the interpreter waits for its children at its exit, for ever if they are workers.
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "left 0"
