"""Plans for machines as their drivers describe them: answers of NVML and npu-smi, the kernel's files.

The answers have the shape and the figures of these machines; they go through the probes that read the real ones.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from docfleet.devices import Accelerator, Cpu, Kind, Machine, Memory, Plan, cgroup, cuda, host, npu, plan
from docfleet.devices.affinity import bind, format_cpus, near_cpus, parse_cpus
from docfleet.devices.child import Reply
from docfleet.devices.needs import MOST_AUTO, NEEDS, fitting
from docfleet.devices.records import GIB
from docfleet.errors import ConfigurationError
from docfleet.options import Tier
from docfleet.records import WorkerSlot
from docfleet.settings import resolve

MIB = 1024**2


def nvml(*cards: dict[str, Any], **environ: str) -> tuple[Accelerator, ...]:
    found, _ = cuda.read(Reply(output=json.dumps({"driver": "570.133.20", "cards": list(cards)})), environ)
    return tuple(found)


def card(index: int, name: str, mib: int, *, used: int = 1, bus: str = "", slices: int = 0) -> dict[str, Any]:
    pieces = [
        {
            "uuid": f"MIG-{index}{number}c6a2e4-5f1b-5a0e-8d0f-0d3a7d1c9e10",
            "name": f"{name} MIG 3g.40gb",
            "memory_total": 40192 * MIB,
            "memory_free": 40155 * MIB,
        }
        for number in range(slices)
    ]
    return {
        "index": index,
        "uuid": f"GPU-{index}d9c1f3e-7d8e-5c1b-b7a4-2e5d2f0a6b11",
        "name": name,
        "memory_total": mib * MIB,
        "memory_free": (mib - used) * MIB,
        "compute_capability": "8.0",
        "bus": bus or f"00000000:{7 + 8 * index:02X}:00.0",
        "processes": 0,
        "mig": slices > 0,
        "slices": pieces,
    }


#: `npu-smi info` of an Atlas 800 (8 x 910B3), as version 23.0 prints it.
ATLAS_800 = "\n".join(
    [
        "| npu-smi 23.0.6                   Version: 23.0.6                                               |",
        "| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|",
        "| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |",
        *(
            f"| {chip}     910B3               | OK            | 95.{chip}        3{chip}            0    / 0      |\n"
            f"| 0                         | 0000:{bus}:00.0  | 0           0    / 0          3342 / 65536         |"
            for chip, bus in enumerate(("C1", "C2", "81", "82", "01", "02", "41", "42"))
        ),
        "| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |",
        "| No running processes found in NPU 0                                                            |",
    ]
)


def machine(cores: int, gib: float, found: tuple[Accelerator, ...] = (), **limits: Any) -> Machine:
    return Machine(
        cpu=Cpu(logical=cores, affinity=cores, allowed=f"0-{cores - 1}", **limits),
        memory=Memory(total=int(gib * GIB), available=int(gib * GIB * 0.94)),
        accelerators=found,
    )


def devices_of(planned: Plan) -> list[str]:
    return [worker.device for worker in planned.workers]


EIGHT_A100 = machine(256, 1008, nvml(*[card(n, "NVIDIA A100-SXM4-80GB", 81920) for n in range(8)]))
DGX = machine(224, 2015, nvml(*[card(n, "NVIDIA H100 80GB HBM3", 81559) for n in range(8)]))
SLICED = machine(
    64, 503, nvml(card(0, "NVIDIA A100-SXM4-80GB", 81920, slices=2), card(1, "NVIDIA A100-SXM4-80GB", 81920))
)
TWO_4090 = machine(32, 125, nvml(*[card(n, "NVIDIA GeForce RTX 4090", 24564, used=400) for n in range(2)]))
ATLAS = machine(192, 1510, tuple(npu.parse(ATLAS_800)))


@pytest.mark.parametrize(
    ("here", "one_each", "memory", "by_itself"),
    [
        (EIGHT_A100, [f"cuda:{n}" for n in range(8)], {80}, 32),
        (DGX, [f"cuda:{n}" for n in range(8)], {80}, 32),
        (SLICED, ["cuda:0", "cuda:1", "cuda:2"], {39, 80}, 12),
        (TWO_4090, ["cuda:0", "cuda:1"], {24}, 8),
        (ATLAS, [f"npu:{n}" for n in range(8)], {64}, 32),
    ],
    ids=["8 x A100", "DGX H100", "A100 in slices", "2 x 4090", "Atlas 800"],
)
def test_a_machine_gets_a_worker_a_device_and_on_request_as_many_as_fit(
    here: Machine, one_each: list[str], memory: set[int], by_itself: int
) -> None:
    planned = plan(here)
    assert devices_of(planned) == one_each
    assert {worker.device_memory_gb for worker in planned.workers} == memory
    several = plan(here, workers_per_device="auto")
    assert len(several.workers) == by_itself
    assert devices_of(several)[: len(one_each)] == one_each, "every device has its first before one has its second"
    total = {device.device: round((device.memory_total or 0) / GIB) for device in here.accelerators}
    for worker in several.workers:
        share = int(worker.environment["MINERU_VIRTUAL_VRAM_SIZE"])
        assert share == total[worker.device] // MOST_AUTO


@pytest.mark.parametrize(("tier", "each"), [("auto", 4), ("basic", 4), ("standard", 2), ("advanced", 2), ("flash", 1)])
def test_a_heavier_tier_fits_less_often_on_a_card(tier: str, each: int) -> None:
    assert len(plan(TWO_4090, workers_per_device="auto", tier=tier).workers) == 2 * each


def test_where_a_vlm_can_run_auto_leaves_room_for_it() -> None:
    with_vlm = replace(TWO_4090, versions={"mineru-llama-cpp": "0.1"})
    assert len(plan(with_vlm, workers_per_device="auto").workers) == 4
    greedy = plan(replace(TWO_4090, versions={"vllm": "0.11"}), workers_per_device="auto")
    assert len(greedy.workers) == 2
    assert any("its share of the whole card" in limit for limit in greedy.limits)


def test_what_others_hold_of_a_card_and_too_few_cores_make_fewer() -> None:
    unequal = nvml(card(0, "NVIDIA L40S", 46068, used=38000), card(1, "NVIDIA L4", 23034))
    planned = plan(machine(32, 125, unequal), workers_per_device="auto")
    assert devices_of(planned) == ["cuda:0", "cuda:1", "cuda:1", "cuda:1", "cuda:1"]
    slow = plan(machine(4, 125, unequal[1:]), workers_per_device="auto", tier="standard")
    assert devices_of(slow) == ["cuda:1", "cuda:1"]
    fed = plan(machine(1, 125, unequal[1:]), workers_per_device="auto")
    assert devices_of(fed) == ["cuda:1"]
    assert any("1 core(s) are there to feed them" in limit for limit in fed.limits)


def test_main_memory_bounds_what_is_found_by_itself_and_nobody_asked_for_more() -> None:
    planned = plan(replace(TWO_4090, memory=Memory(total=16 * GIB, available=10 * GIB)), workers_per_device="auto")
    assert devices_of(planned) == ["cuda:0", "cuda:1", "cuda:0"]
    assert any(limit.startswith("Memory:") for limit in planned.limits)
    assert not any("asked for" in warning for warning in planned.warnings)


def test_a_device_that_does_not_tell_its_memory_and_a_mac_get_one() -> None:
    silent = Accelerator(kind=Kind.CUDA, index=0, name="NVIDIA GB10", pin="0")
    assert fitting(silent, Tier.BASIC) == 1
    mac = Accelerator(kind=Kind.MPS, index=0, name="Apple M3 Max", memory_total=85 * GIB, memory_free=60 * GIB)
    planned = plan(machine(16, 128, (mac,)), workers_per_device="auto")
    assert devices_of(planned) == ["mps"]
    assert any("one program at a time" in limit for limit in planned.limits)
    assert devices_of(plan(machine(16, 128, (mac,)), workers_per_device=9)) == ["mps", "mps"]


def test_chips_and_cores_work_side_by_side() -> None:
    planned = plan(ATLAS, devices="npu:0,npu:1,cpu", workers_per_device="auto")
    assert devices_of(planned).count("npu:0") == MOST_AUTO
    assert devices_of(planned).count("cpu") == 8
    chip = next(worker for worker in planned.workers if worker.device == "npu:1")
    assert chip.environment["ASCEND_RT_VISIBLE_DEVICES"] == "1"


@pytest.mark.parametrize(
    ("files", "workers", "threads"),
    [
        ({"cpu.max": "200000 100000", "memory.max": str(8 * GIB), "memory.current": "0"}, 2, 1),
        ({"cpu.max": "max 100000", "memory.max": str(1 * GIB), "memory.current": str(100 * MIB)}, 1, 16),
    ],
    ids=["2 of 64 cores", "1 GB"],
)
def test_a_container_is_planned_for_by_its_limits(
    tmp_path: Path, files: dict[str, str], workers: int, threads: int
) -> None:
    tree = {"proc/self/mountinfo": "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw", "proc/self/cgroup": "0::/"}
    for name, text in (tree | {f"sys/fs/cgroup/{name}": text for name, text in files.items()}).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    limits = cgroup.read(tmp_path)
    room = limits.memory_available
    assert limits.memory is not None
    assert room is not None
    here = Machine(
        cpu=Cpu(logical=64, affinity=64, quota=limits.cores),
        memory=Memory(total=limits.memory, available=room, limit=limits.memory),
    )
    planned = plan(here)
    assert len(planned.workers) == workers
    assert {worker.threads for worker in planned.workers} == {threads}
    with pytest.raises(ConfigurationError, match="An accelerator is required"):
        plan(here, require_accelerator=True)


@pytest.mark.parametrize(
    ("text", "cores"),
    [("0-3,8,10-11", {0, 1, 2, 3, 8, 10, 11}), ("5", {5}), ("", set()), ("x,2,3-", {2}), ("0-99999999", set())],
)
def test_lists_of_cores_are_read_as_the_kernel_writes_them(text: str, cores: set[int]) -> None:
    assert parse_cpus(text) == cores
    assert parse_cpus(format_cpus(cores)) == cores


def sysfs(root: Path, bus: str, node: str, cpus: str) -> None:
    folder = root / "sys/bus/pci/devices" / bus
    folder.mkdir(parents=True)
    (folder / "numa_node").write_text(f"{node}\n", encoding="ascii")
    (folder / "local_cpulist").write_text(f"{cpus}\n", encoding="ascii")


def test_the_cores_near_a_card_are_found_by_its_address(tmp_path: Path) -> None:
    sysfs(tmp_path, "0000:c1:00.0", "1", "32-63,96-127")
    sysfs(tmp_path, "0000:41:00.0", "-1", "0-127")
    assert near_cpus("00000000:C1:00.0", tmp_path) == near_cpus("0000:C1:00.0", tmp_path) == "32-63,96-127"
    assert near_cpus("0000:41:00.0", tmp_path) == "", "the firmware does not say which node"
    assert near_cpus("0000:99:00.0", tmp_path) == near_cpus("../../etc", tmp_path) == near_cpus("", tmp_path) == ""


@pytest.mark.parametrize(
    ("near", "allowed", "cpus"),
    [
        ("32-63", "0-63", "32-63"),
        ("32-63", "0-40", "32-40"),
        ("0-63", "0-63", ""),
        ("32-63", "0-15", ""),
        ("32-33", "0-63", ""),
        ("", "0-63", ""),
    ],
    ids=["far node", "part of it", "one node", "none granted", "too few for its threads", "unknown"],
)
def test_a_worker_is_bound_to_near_cores_only_where_there_are_enough_and_others(
    near: str, allowed: str, cpus: str
) -> None:
    (found,) = nvml(card(0, "NVIDIA A100-SXM4-80GB", 81920))
    device = replace(found, near_cpus=near)
    granted = len(parse_cpus(allowed))
    here = Machine(
        cpu=Cpu(logical=64, affinity=granted, allowed=allowed, quota=8.0),
        memory=Memory(total=256 * GIB, available=250 * GIB),
        accelerators=(device,),
    )
    (worker,) = plan(here).workers
    assert (worker.cpus, worker.slot().cpus) == (cpus, cpus)


@pytest.mark.skipif(not hasattr(host.os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_process_is_bound_within_what_it_may_use_and_never_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    before = host.os.sched_getaffinity(0)
    try:
        bind("4000-4001")
        assert host.os.sched_getaffinity(0) == before, "none of them is ours"
        bind(f"{min(before)},4000")
        assert host.os.sched_getaffinity(0) == {min(before)}
        bind("")
        bind(format_cpus(before))
        assert host.os.sched_getaffinity(0) == {min(before)}, "what was given up is not taken back"
    finally:
        host.os.sched_setaffinity(0, before)


def test_the_setting_takes_a_number_or_auto() -> None:
    assert resolve({}, {"DOCFLEET_WORKERS_PER_DEVICE": "auto"}).settings.workers_per_device == "auto"
    assert resolve({}, {"DOCFLEET_WORKERS_PER_DEVICE": "3"}).settings.workers_per_device == 3
    assert resolve({}, {"DOCFLEET_WORKERS_PER_DEVICE": ""}).settings.workers_per_device is None
    for wrong in ("0", "many"):
        with pytest.raises(ConfigurationError):
            resolve({}, {"DOCFLEET_WORKERS_PER_DEVICE": wrong})
    assert WorkerSlot(index=0, device="cpu").cpus == ""


def test_every_tier_has_its_needs_and_a_heavier_one_needs_no_less() -> None:
    assert set(NEEDS) == set(Tier)
    rising = [NEEDS[tier] for tier in (Tier.FLASH, Tier.BASIC, Tier.STANDARD, Tier.ADVANCED)]
    for figure in ("cpu_bytes", "device_gb", "cpu_seconds", "device_seconds"):
        assert [getattr(need, figure) for need in rising] == sorted(getattr(need, figure) for need in rising)
