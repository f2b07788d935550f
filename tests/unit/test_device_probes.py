"""What the probes make of the answers of drivers, and of the files of control groups."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from docfleet.devices import cgroup, cuda, npu
from docfleet.devices.child import Reply
from docfleet.devices.records import Accelerator

MIB = 1024**2


def card(index: int, *, slices: list[str] | None = None, mig: bool = False, gib: int = 80) -> dict[str, Any]:
    memory = {"memory_total": gib * 1024 * MIB, "memory_free": gib * 1000 * MIB}
    pieces = [{"uuid": uuid, "name": "NVIDIA H100 MIG 1g.10gb", **memory} for uuid in slices or []]
    return {
        "index": index,
        "uuid": f"GPU-{index}aaa-bbb",
        "name": "NVIDIA H100",
        **memory,
        "compute_capability": "9.0",
        "bus": f"0000:0{index}:00.0",
        "processes": 0,
        "mig": mig or bool(slices),
        "slices": pieces,
    }


def see(cards: list[dict[str, Any]], **environ: str) -> tuple[list[Accelerator], str]:
    return cuda.read(Reply(output=json.dumps({"driver": "580.1", "cards": cards})), environ)


FOUR = [card(index) for index in range(4)]
UNEQUAL = [card(0), card(1) | {"name": "NVIDIA T4"}]
SLICED = [card(0, slices=["MIG-1", "MIG-2"]), card(1)]


@pytest.mark.parametrize(
    ("value", "pins"),
    [
        (None, ["0", "1", "2", "3"]),
        ("0,1,2,3", ["0", "1", "2", "3"]),
        ("2", ["2"]),
        ("3, 1", ["3", "1"]),
        ("GPU-2aaa-bbb", ["2"]),
        ("GPU-2aa,0", ["2", "0"]),
        ("", []),
        ("-1", []),
        ("1,-1,2", ["1"]),
        ("0,9,1", ["0"]),
        ("GPU-nobody", []),
        ("all", []),
        ("1,1", ["1"]),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(value: str | None, pins: list[str]) -> None:
    found, reason = see(FOUR) if value is None else see(FOUR, CUDA_VISIBLE_DEVICES=value)
    assert [one.pin for one in found] == pins
    assert [one.device for one in found] == [f"cuda:{index}" for index in range(len(pins))]
    assert bool(reason) == (len(pins) < 4), "what is hidden is said"


@pytest.mark.parametrize(
    ("cards", "environ", "told"),
    [
        (UNEQUAL, {"CUDA_VISIBLE_DEVICES": "0"}, True),
        (UNEQUAL, {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, True),
        (UNEQUAL, {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, False),
        (UNEQUAL, {"CUDA_VISIBLE_DEVICES": "GPU-0aaa"}, False),
        (UNEQUAL, {"CUDA_VISIBLE_DEVICES": "1,0"}, False),
        (UNEQUAL, {}, False),
        (FOUR, {"CUDA_VISIBLE_DEVICES": "0"}, False),
        ([*FOUR, {"index": 4, "failure": "GPU is lost"}], {"CUDA_VISIBLE_DEVICES": "0"}, False),
    ],
)
def test_a_choice_among_unequal_cards_by_number_is_doubted_where_cuda_may_count_otherwise(
    cards: list[dict[str, Any]], environ: dict[str, str], told: bool
) -> None:
    said = cuda.doubt(Reply(output=json.dumps({"driver": "580.1", "cards": cards})), environ)
    assert ("order of the PCI bus" in said) == bool(said) == told
    assert cuda.doubt(Reply(failure="no driver"), environ) == ""
    assert cuda.doubt(Reply(output='{"failure": "no driver"}'), environ) == ""


@pytest.mark.parametrize(
    ("value", "pins"),
    [
        (None, ["MIG-1", "MIG-2", "GPU-1aaa-bbb"]),
        ("MIG-2", ["MIG-2"]),
        ("MIG-2,1", ["MIG-2", "GPU-1aaa-bbb"]),
        ("0", ["MIG-1", "MIG-2"]),
        ("GPU-0aaa", ["MIG-1", "MIG-2"]),
        ("MIG-9", []),
    ],
)
def test_slices_of_a_card_count_one_by_one_and_all_pins_are_identifiers(value: str | None, pins: list[str]) -> None:
    found, _ = see(SLICED) if value is None else see(SLICED, CUDA_VISIBLE_DEVICES=value)
    assert [one.pin for one in found] == pins


def test_a_card_in_mig_mode_without_instances_and_a_lost_card_are_named() -> None:
    found, reason = see([card(0, mig=True), {"index": 1, "failure": "GPU is lost"}, card(2)])
    assert [one.uuid for one in found] == ["GPU-2aaa-bbb"]
    assert "card 0 is in MIG mode without instances" in reason
    assert "card 1 does not answer: GPU is lost" in reason


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Reply(failure="python gave no answer within 5 s"), "gave no answer"),
        (Reply(output='{"failure": "no NVIDIA driver is installed"}'), "no NVIDIA driver"),
        (Reply(output="Segmentation fault"), "cannot be read"),
        (Reply(output='{"driver": "1", "cards": []}'), "shows no card"),
    ],
)
def test_no_card_always_comes_with_a_reason(reply: Reply, told: str) -> None:
    found, reason = cuda.read(reply, {})
    assert found == []
    assert told in reason


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ('{"driver": "580.105.08", "cards": []}', {"nvidia-driver": "580.105.08"}),
        ('{"driver": null, "cards": []}', {}),
        ('{"failure": "no NVIDIA driver is installed"}', {}),
        ("Segmentation fault", {}),
        ("[]", {}),
    ],
)
def test_the_version_of_nvidia_s_driver_is_kept_where_it_is_told(output: str, told: dict[str, str]) -> None:
    assert cuda.driver(Reply(output=output)) == told


ATLAS = """
+------------------------------------------------------------------------------------------------+
| npu-smi 24.1.rc2                 Version: 24.1.rc2                                             |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B3               | OK            | 90.1        40                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          3100 / 65536         |
+===========================+===============+====================================================+
| 5     910B3               | Critical      | 91.2        41                0    / 0             |
| 0                         | 0000:C2:00.0  | 3           0    / 0          59000/ 65536         |
+===========================+===============+====================================================+
+---------------------------+---------------+----------------------------------------------------+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
+===========================+===============+====================================================+
| 5       0                 | 4711          | python                   | 55000                   |
+===========================+===============+====================================================+
"""

TWO_CHIPS_A_CARD = """
| NPU     Name                  | Health          | Power(W)     Temp(C)           Hugepages-Usage(page) |
| Chip    Device                | Bus-Id          | AICore(%)    Memory-Usage(MB)                        |
+===============================+=================+======================================================+
| 1       310P3                 | OK              | NA           49                0     / 0             |
| 0       0                     | 0000:01:00.0    | 0            1448 / 44278                            |
+-------------------------------+-----------------+------------------------------------------------------+
| 1       310P3                 | OK              | NA           45                0     / 0             |
| 1       1                     | 0000:01:00.0    | 0            1511 / 43693                            |
"""

SUPER_NODE = """
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip  Phy-ID              | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
| 0     Ascend910           | OK            | 164.0       29                0    / 0             |
| 0     0                   | 0000:9D:00.0  | 0           0    / 0          3142 / 65536         |
| 0     Ascend910           | OK            | -           30                0    / 0             |
| 1     1                   | 0000:9F:00.0  | 0           0    / 0          2887 / 65536         |
"""


@pytest.mark.parametrize(
    ("table", "chips"),
    [
        (ATLAS, [("npu:0", "Ascend 910B3", 65536, 62436), ("npu:1", "Ascend 910B3", 65536, 6536)]),
        (TWO_CHIPS_A_CARD, [("npu:0", "Ascend 310P3", 44278, 42830), ("npu:1", "Ascend 310P3", 43693, 42182)]),
        (SUPER_NODE, [("npu:0", "Ascend 910", 65536, 62394), ("npu:1", "Ascend 910", 65536, 62649)]),
    ],
    ids=["Atlas 800", "300I Duo", "two chips a package"],
)
def test_the_tables_of_npu_smi_are_read(table: str, chips: list[tuple[str, str, int, int]]) -> None:
    found, reason = npu.read(Reply(output=table), {})
    read = [(one.device, one.name, one.memory_total or 0, one.memory_free or 0) for one in found]
    assert read == [(device, name, total * MIB, free * MIB) for device, name, total, free in chips]
    assert reason == ""


def test_a_chip_in_bad_health_gets_no_work() -> None:
    found, _ = npu.read(Reply(output=ATLAS), {})
    assert [bool(one.blocked) for one in found] == [False, True]
    assert "Critical" in found[1].blocked


@pytest.mark.parametrize(("value", "pins"), [("1", ["1"]), ("1,0", ["1", "0"]), ("", []), ("0,7,1", ["0"]), ("-1", [])])
def test_ascend_rt_visible_devices_is_honoured(value: str, pins: list[str]) -> None:
    found, reason = npu.read(Reply(output=SUPER_NODE), {"ASCEND_RT_VISIBLE_DEVICES": value})
    assert [one.pin for one in found] == pins
    assert [one.index for one in found] == list(range(len(pins)))
    assert bool(reason) == (len(pins) < 2)


@pytest.mark.parametrize("output", ["", "error: permission denied", "| | |", "|0|1|", "| 0 x | 0000:01:00.0 | - |"])
def test_a_strange_answer_of_npu_smi_is_no_error(output: str) -> None:
    found, reason = npu.read(Reply(output=output), {})
    assert len(found) <= 1
    assert found or reason


def files(root: Path, tree: dict[str, str]) -> Path:
    for name, text in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    return root


V2_MOUNT = "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"


def test_a_container_of_version_2_is_limited_in_cores_and_memory(tmp_path: Path) -> None:
    root = files(
        tmp_path,
        {
            "proc/self/mountinfo": V2_MOUNT,
            "proc/self/cgroup": "0::/",
            "sys/fs/cgroup/cpu.max": "150000 100000",
            "sys/fs/cgroup/memory.max": str(4 << 30),
            "sys/fs/cgroup/memory.current": str(3 << 30),
            "sys/fs/cgroup/memory.stat": f"anon 1\ninactive_file {2 << 30}\nactive_file 0",
        },
    )
    assert cgroup.read(root) == cgroup.Limits(cores=1.5, memory=4 << 30, memory_available=3 << 30)


def test_the_narrowest_group_on_the_way_up_holds(tmp_path: Path) -> None:
    root = files(
        tmp_path,
        {
            "proc/self/mountinfo": V2_MOUNT,
            "proc/self/cgroup": "0::/kubepods/pod1/box",
            "sys/fs/cgroup/kubepods/cpu.max": "800000 100000",
            "sys/fs/cgroup/kubepods/pod1/cpu.max": "200000 100000",
            "sys/fs/cgroup/kubepods/pod1/box/cpu.max": "max 100000",
            "sys/fs/cgroup/kubepods/pod1/memory.max": str(2 << 30),
            "sys/fs/cgroup/kubepods/pod1/memory.current": str(1 << 30),
            "sys/fs/cgroup/kubepods/pod1/box/memory.max": "max",
            "sys/fs/cgroup/kubepods/pod1/box/memory.high": str(3 << 30),
        },
    )
    assert cgroup.read(root) == cgroup.Limits(cores=2.0, memory=2 << 30, memory_available=1 << 30)


def test_a_container_of_version_1_that_sees_its_full_path_finds_its_group_at_the_mount(tmp_path: Path) -> None:
    root = files(
        tmp_path,
        {
            "proc/self/mountinfo": "33 31 0:28 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct"
            "\n34 31 0:29 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory",
            "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(1 << 30),
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(600 << 20),
            "sys/fs/cgroup/memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {100 << 20}",
        },
    )
    assert cgroup.read(root) == cgroup.Limits(cores=0.5, memory=1 << 30, memory_available=(1 << 30) - (500 << 20))


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"proc/self/mountinfo": V2_MOUNT, "proc/self/cgroup": "0::/gone"},
        {"proc/self/mountinfo": "nonsense", "proc/self/cgroup": "nonsense"},
        {"proc/self/mountinfo": V2_MOUNT, "proc/self/cgroup": "0::/../up", "sys/fs/cgroup/cpu.max": "max 100000"},
        {
            "proc/self/mountinfo": "33 31 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
            "proc/self/cgroup": "4:memory:/",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
        },
    ],
    ids=["no control groups", "group without files", "unreadable", "outside the mount", "no limit in version 1"],
)
def test_without_a_limit_none_is_found(tmp_path: Path, tree: dict[str, str]) -> None:
    assert cgroup.read(files(tmp_path, tree)) == cgroup.Limits()
