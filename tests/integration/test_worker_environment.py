"""What worker processes are given: each its own device, its share of memory, its threads, the cores near its card."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from docfleet.devices import Accelerator, Cpu, Kind, Machine, Memory, plan
from docfleet.devices.records import GIB
from docfleet.files import DataFolder
from docfleet.options import Tier
from docfleet.sharding.deadlines import Deadlines
from docfleet.worker.assembly import WorkerPlan

ROOT = Path(__file__).resolve().parents[2]
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("MINERU_", "OMP_", "CUDA_"))}

PROGRAM = """
import pickle, sys
from docfleet.worker.assembly import assemble
assemble(pickle.load(sys.stdin.buffer), int(sys.argv[1]))
"""


def machine(near: str) -> Machine:
    cores = len(os.sched_getaffinity(0))
    pair = [
        Accelerator(
            kind=Kind.CUDA,
            index=index,
            name="NVIDIA Fake",
            pin=f"{index + 4}",
            memory_total=gib * GIB,
            memory_free=gib * GIB,
            near_cpus=near,
        )
        for index, gib in enumerate((24, 80))
    ]
    allowed = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    return Machine(
        cpu=Cpu(logical=cores, affinity=cores, allowed=allowed),
        memory=Memory(total=64 * GIB, available=60 * GIB),
        accelerators=tuple(pair),
    )


def given(folder: DataFolder, machine: Machine, **wishes: Any) -> list[dict[str, Any]]:
    """Run a process for each planned worker; return what they say that they were given, by slot."""
    slots = plan(machine, **wishes).slots()
    workers = WorkerPlan(
        folder=folder,
        slots=slots,
        engines=("tests.engines:TellingEngine",),
        model_source="local",
        vlm_server_url=None,
        log_level="error",
        deadlines=Deadlines(60, dict.fromkeys(Tier, 20.0)),
        max_attempts=1,
    )
    told, processes = [], []
    # Each tries the slot of its own number first, and nobody else wants that.
    for number in range(len(slots)):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM + "sys.stdin.close(); import time; time.sleep(120)", str(number)],
            cwd=ROOT,
            env=CLEAN,
            stdin=subprocess.PIPE,
        )
        assert process.stdin is not None
        process.stdin.write(pickle.dumps(workers))
        process.stdin.close()
        processes.append(process)
    try:
        for number, process in enumerate(processes):
            file = folder.root / f"given-{number}.json"
            while not file.exists() or not file.read_text().endswith("}"):
                assert process.poll() is None, "the worker ended"
                try:
                    process.wait(0.05)
                except subprocess.TimeoutExpired:
                    continue
            told.append(json.loads(file.read_text()))
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return told


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    folder = DataFolder(tmp_path)
    folder.create()
    return folder


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_four_workers_on_two_unequal_cards_each_have_their_own(folder: DataFolder) -> None:
    cores = sorted(os.sched_getaffinity(0))
    told = given(folder, machine(str(cores[0])), workers_per_device=2)
    pins = [one["environment"]["CUDA_VISIBLE_DEVICES"] for one in told]
    assert pins == ["4", "5", "4", "5"]
    assert [one["environment"]["MINERU_VIRTUAL_VRAM_SIZE"] for one in told] == ["12", "40", "12", "40"]
    assert len({one["pid"] for one in told}) == 4
    for one in told:
        assert one["device"] == one["environment"]["MINERU_DEVICE_MODE"] == "cuda:0"
        assert one["environment"]["OMP_NUM_THREADS"] == str(one["threads"])
        # One near core carries one thread; where there is no other core there is nothing to bind.
        bound = one["threads"] == 1 and len(cores) > 1
        assert one["cores"] == (cores[:1] if bound else cores)
