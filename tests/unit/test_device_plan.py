"""The planner, over a table of machines; and what it does with wishes it cannot meet."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from docfleet.devices import Accelerator, Cpu, Fitness, Kind, Machine, Memory, Probe, plan
from docfleet.devices.records import GIB
from docfleet.errors import ConfigurationError
from docfleet.planning.decision import decide
from docfleet.settings import Settings


def cards(*gib: float, name: str = "NVIDIA A100-SXM4-80GB") -> tuple[Accelerator, ...]:
    return tuple(
        Accelerator(
            kind=Kind.CUDA,
            index=index,
            name=name,
            pin=str(index),
            uuid=f"GPU-{index}",
            memory_total=int(size * GIB),
            memory_free=int(size * GIB * 0.98),
        )
        for index, size in enumerate(gib)
    )


def slices(*gib: float) -> tuple[Accelerator, ...]:
    return tuple(
        Accelerator(
            kind=Kind.CUDA,
            index=index,
            name="NVIDIA H100 80GB HBM3 MIG 2g.20gb",
            pin=f"MIG-{index}",
            uuid=f"MIG-{index}",
            memory_total=int(size * GIB),
            memory_free=int(size * GIB),
        )
        for index, size in enumerate(gib)
    )


def chips(count: int, gib: float = 64) -> tuple[Accelerator, ...]:
    return tuple(
        Accelerator(
            kind=Kind.NPU,
            index=index,
            name="Ascend 910B3",
            pin=str(index),
            memory_total=int(gib * GIB),
            memory_free=int(gib * GIB),
        )
        for index in range(count)
    )


def intel(*gib: float) -> tuple[Accelerator, ...]:
    return tuple(replace(card, kind=Kind.XPU, name="Intel Arc B580", uuid="") for card in cards(*gib))


def apple(gib: float = 42) -> tuple[Accelerator, ...]:
    total = int(gib * GIB)
    return (Accelerator(kind=Kind.MPS, index=0, name="Apple M3 Max", memory_total=total, memory_free=total),)


def machine(
    cores: int,
    gib: float,
    accelerators: tuple[Accelerator, ...] = (),
    *,
    quota: float | None = None,
    variables: dict[str, str] | None = None,
) -> Machine:
    limited = int(gib * GIB)
    return Machine(
        cpu=Cpu(logical=cores, affinity=cores, quota=quota),
        memory=Memory(total=limited, available=int(limited * 0.95), limit=limited if quota else None),
        accelerators=accelerators,
        probes=(Probe(kind=Kind.CUDA, found=len(accelerators), reason="" if accelerators else "no NVIDIA driver"),),
        variables=variables or {},
    )


EIGHT_A100 = machine(128, 1024, cards(*[80] * 8))
DGX_H100_MIG = machine(112, 2048, slices(19.5, 19.5, 9.75))
UNEQUAL = machine(16, 64, cards(23.99, 11.76, name="NVIDIA GeForce RTX"))
TWO_4090 = machine(32, 128, cards(23.99, 23.99, name="NVIDIA GeForce RTX 4090"))
ATLAS_800 = machine(192, 1500, chips(8))
M3_MAX = machine(16, 64, apple())
LAPTOP = machine(8, 16)
SMALL_CONTAINER = machine(64, 8, quota=2.0)
TINY_CONTAINER = machine(64, 1, quota=1.0)
BIG_CPU = machine(64, 256)
HALF_CORE = machine(4, 4, quota=0.5)

#: machine, devices of the workers, threads of each, whole GB of each.
TABLE = {
    "eight A100": (EIGHT_A100, [f"cuda:{i}" for i in range(8)], 16, [80] * 8),
    "MIG slices of an H100": (DGX_H100_MIG, ["cuda:0", "cuda:1", "cuda:2"], 16, [20, 20, 10]),
    "two unequal cards": (UNEQUAL, ["cuda:0", "cuda:1"], 8, [24, 12]),
    "two 4090": (TWO_4090, ["cuda:0", "cuda:1"], 16, [24, 24]),
    "Atlas 800": (ATLAS_800, [f"npu:{i}" for i in range(8)], 16, [64] * 8),
    "two Arc B580": (machine(16, 64, intel(11.6, 11.6)), ["xpu:0", "xpu:1"], 8, [12, 12]),
    "M3 Max": (M3_MAX, ["mps"], 16, [42]),
    "8-core laptop": (LAPTOP, ["cpu"] * 8, 1, [None] * 8),
    "2-core container on 64 cores": (SMALL_CONTAINER, ["cpu"] * 2, 1, [None] * 2),
    "1 GB container": (TINY_CONTAINER, ["cpu"], 1, [None]),
    "64 cores": (BIG_CPU, ["cpu"] * 8, 8, [None] * 8),
    "half a core": (HALF_CORE, ["cpu"], 1, [None]),
}


@pytest.mark.parametrize(("here", "devices", "threads", "memory"), TABLE.values(), ids=TABLE.keys())
def test_each_known_machine_gets_its_plan(
    here: Machine, devices: list[str], threads: int, memory: list[int | None]
) -> None:
    planned = plan(here)
    assert [worker.device for worker in planned.workers] == devices
    assert {worker.threads for worker in planned.workers} == {threads}
    assert [worker.device_memory_gb for worker in planned.workers] == memory
    assert [slot.index for slot in planned.slots()] == list(range(len(devices)))
    for worker, slot in zip(planned.workers, planned.slots(), strict=True):
        assert (slot.device, slot.environment) == (worker.device, worker.environment)


@pytest.mark.parametrize("cores", [1, 2, 3, 4, 6, 8, 12, 16, 20, 32, 48, 64, 96, 128])
def test_workers_times_threads_is_about_the_number_of_cores(cores: int) -> None:
    planned = plan(machine(cores, 512))
    total = sum(worker.threads for worker in planned.workers)
    assert len(planned.workers) == max(1, min(int(cores * 1.2), 8))
    assert 0.65 * cores <= total <= 1.35 * cores


def test_a_worker_is_pinned_to_its_card_and_calls_it_number_zero() -> None:
    environments = [worker.environment for worker in plan(EIGHT_A100).workers]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in environments] == [str(i) for i in range(8)]
    assert {one["MINERU_DEVICE_MODE"] for one in environments} == {"cuda:0"}
    assert {one["CUDA_DEVICE_ORDER"] for one in environments} == {"PCI_BUS_ID"}
    assert {one["MINERU_VIRTUAL_VRAM_SIZE"] for one in environments} == {"80"}


def test_a_worker_on_a_slice_is_pinned_by_identifier() -> None:
    environments = [worker.environment for worker in plan(DGX_H100_MIG).workers]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in environments] == ["MIG-0", "MIG-1", "MIG-2"]


def test_a_worker_on_an_npu_is_pinned_to_its_chip_and_sees_no_card() -> None:
    environment = plan(ATLAS_800).workers[5].environment
    assert environment["ASCEND_RT_VISIBLE_DEVICES"] == "5"
    assert environment["MINERU_DEVICE_MODE"] == "npu:0"
    assert environment["CUDA_VISIBLE_DEVICES"] == "-1"


def test_a_worker_on_an_intel_device_is_pinned_to_it_and_sees_no_card() -> None:
    worker = plan(machine(16, 64, intel(12, 12)), devices="xpu:1").workers[0]
    pinned = {"MINERU_DEVICE_MODE": "xpu:0", "ZE_AFFINITY_MASK": "1", "CUDA_VISIBLE_DEVICES": "-1"}
    assert pinned.items() <= worker.environment.items()
    # Where nobody can tell which entry of the user's mask it is, the mask is left as it is.
    unknown = tuple(replace(device, pin="") for device in intel(12, 12))
    environment = plan(machine(16, 64, unknown), devices="xpu:1").workers[0].environment
    assert environment["MINERU_DEVICE_MODE"] == "xpu:1"
    assert "ZE_AFFINITY_MASK" not in environment


def test_several_workers_on_a_card_share_its_memory_and_come_after_every_card_has_one() -> None:
    planned = plan(UNEQUAL, workers_per_device=2)
    assert [worker.device for worker in planned.workers] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert [worker.environment["MINERU_VIRTUAL_VRAM_SIZE"] for worker in planned.workers] == ["12", "6", "12", "6"]


@pytest.mark.parametrize(
    ("workers", "per_device", "devices"),
    [
        (1, None, ["cuda:0"]),
        (3, None, ["cuda:0", "cuda:1", "cuda:0"]),
        (3, 2, ["cuda:0", "cuda:1", "cuda:0"]),
        (8, 2, ["cuda:0", "cuda:1"] * 2),
    ],
)
def test_a_total_of_workers_is_spread_over_the_cards(workers: int, per_device: int | None, devices: list[str]) -> None:
    planned = plan(TWO_4090, workers=workers, workers_per_device=per_device)
    assert [worker.device for worker in planned.workers] == devices


@pytest.mark.parametrize(
    ("wanted", "devices"),
    [
        ({"max_workers": 16}, ["cuda:0", "cuda:1"]),
        ({"max_workers": 1}, ["cuda:0"]),
        ({"max_workers": 3, "workers_per_device": 2}, ["cuda:0", "cuda:1", "cuda:0"]),
        ({"max_workers": 3, "workers_per_device": "auto"}, ["cuda:0", "cuda:1", "cuda:0"]),
        ({"max_workers": 3, "devices": "cuda,cpu"}, ["cuda:0", "cuda:1", "cpu"]),
        ({"max_workers": 3, "devices": "cpu"}, ["cpu"] * 3),
        ({"max_workers": 1, "workers": 2}, ["cuda:0", "cuda:1"]),
    ],
    ids=str,
)
def test_a_bound_takes_workers_away_and_never_adds_one(wanted: dict[str, Any], devices: list[str]) -> None:
    planned = plan(TWO_4090, **wanted)
    assert [worker.device for worker in planned.workers] == devices
    assert any("max_workers=1 does nothing" in warning for warning in planned.warnings) == ("workers" in wanted)


@pytest.mark.parametrize(
    ("here", "workers", "devices"),
    [
        (machine(32, 128, cards(23.99)), 16, ["cuda:0"] * 4),
        (machine(32, 128, cards(80)), 12, ["cuda:0"] * 12),
        (UNEQUAL, 10, ["cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0", "cuda:0"]),
        (machine(32, 128, cards(3)), 2, ["cuda:0"]),
    ],
)
def test_a_total_of_workers_is_bounded_by_what_each_card_holds_and_the_rest_is_named(
    here: Machine, workers: int, devices: list[str]
) -> None:
    planned = plan(here, workers=workers)
    assert [worker.device for worker in planned.workers] == devices
    told = f"{workers} workers were asked for, and the devices hold {len(devices)} of them (cuda:0: "
    assert any(told in warning for warning in planned.warnings) == (len(devices) < workers)


def test_a_number_for_each_card_is_kept_whatever_it_holds_and_one_warning_tells_what_would_fit() -> None:
    planned = plan(machine(32, 128, cards(23.99)), workers_per_device=16)
    assert len(planned.workers) == 16
    assert [warning for warning in planned.warnings if "cuda:0" in warning] == [
        "cuda:0 gets 16 workers, as workers_per_device says, but its 23.5 GiB free hold 4, at 4 GB each by estimate: "
        "expect it to run out of memory. Set workers_per_device to 4 or less, or to auto."
    ]
    few = plan(machine(32, 128, cards(23.99)), workers=4, workers_per_device=16)
    assert (len(few.workers), few.warnings) == (4, ())
    silent = replace(cards(24)[0], memory_total=None, memory_free=None)
    assert plan(machine(32, 128, (silent,)), workers=6).warnings == ()


def test_a_card_left_without_a_worker_is_named() -> None:
    planned = plan(TWO_4090, workers=1)
    assert planned.unused == {"cuda:1": "there are fewer workers than devices"}
    assert planned.limits == ("The setting workers asks for 1 in all.",)


@pytest.mark.parametrize(("asked", "given"), [(1, 1), (2, 2), (4, 2)])
def test_an_apple_chip_gets_two_workers_at_most_and_a_warning(asked: int, given: int) -> None:
    planned = plan(M3_MAX, workers_per_device=asked)
    assert [worker.device for worker in planned.workers] == ["mps"] * given
    assert any("mps gets 2 workers" in warning for warning in planned.warnings) == (asked > 1)
    assert planned.workers[0].environment["MINERU_VIRTUAL_VRAM_SIZE"] == str(42 // given)


def test_more_workers_than_cores_carry_are_cut_with_a_warning() -> None:
    planned = plan(BIG_CPU, workers=50)
    assert len(planned.workers) == 8
    assert any("50 workers" in warning for warning in planned.warnings)
    assert len(plan(BIG_CPU, workers=50, max_cpu_workers=64).workers) == 50


def test_cores_may_be_overcommitted_on_request_and_the_plan_says_so() -> None:
    small = machine(2, 64)
    assert len(plan(small, workers=16).workers) == 2
    planned = plan(small, workers=16, overcommit=True)
    assert len(planned.workers) == 16
    assert any("overcommit_cpu" in limit for limit in planned.limits)
    assert len(plan(small, overcommit=True).workers) == 2


@pytest.mark.parametrize(("gib", "expected"), [(0.5, 1), (1.5, 1), (2.6, 2), (4, 3), (64, 8)])
def test_there_are_never_more_cpu_workers_than_memory_holds(gib: float, expected: int) -> None:
    planned = plan(machine(16, gib))
    assert len(planned.workers) == expected
    assert any(limit.startswith("Memory:") for limit in planned.limits) == (expected < 8)


def test_memory_bounds_the_workers_that_were_asked_for_too_and_says_so() -> None:
    planned = plan(machine(16, 4), workers=8)
    assert len(planned.workers) == 3
    assert any("Fewer workers than asked for" in warning for warning in planned.warnings)


def test_main_memory_bounds_the_workers_on_cards() -> None:
    assert len(plan(machine(32, 16, cards(*[80] * 8))).workers) == 4


def test_a_heavier_tier_gets_fewer_workers_from_the_same_memory() -> None:
    counts = [len(plan(machine(16, 8), tier=tier).workers) for tier in ("flash", "auto", "basic", "standard")]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]


def test_a_card_and_the_cpu_work_together_and_the_cpu_worker_keeps_off_the_card() -> None:
    planned = plan(UNEQUAL, devices="cuda:0,cpu", workers=4)
    assert [worker.device for worker in planned.workers] == ["cuda:0", "cpu", "cpu", "cpu"]
    assert planned.workers[1].environment["CUDA_VISIBLE_DEVICES"] == "-1"
    assert planned.workers[1].environment["MINERU_DEVICE_MODE"] == "cpu"
    assert "MINERU_VIRTUAL_VRAM_SIZE" not in planned.workers[1].environment
    assert planned.unused == {"cuda:1": "not named in devices=cuda:0,cpu"}


def test_cards_and_chips_in_one_machine_are_all_used() -> None:
    planned = plan(machine(64, 256, cards(24) + chips(2, 32)))
    assert [worker.device for worker in planned.workers] == ["cuda:0", "npu:0", "npu:1"]
    assert [worker.device_memory_gb for worker in planned.workers] == [24, 32, 32]


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ("cuda:1", ["cuda:1"]),
        ("CUDA:1, cuda:0", ["cuda:1", "cuda:0"]),
        ("cuda", ["cuda:0", "cuda:1"]),
        ("cpu", ["cpu"] * 8),
        ("cpu:0", ["cpu"] * 8),
    ],
)
def test_devices_can_be_named(devices: str, expected: list[str]) -> None:
    assert [worker.device for worker in plan(UNEQUAL, devices=devices).workers] == expected


@pytest.mark.parametrize(
    ("here", "devices", "told"),
    [
        ({}, "cuda:0", True),
        ({}, "cuda:1,cpu", True),
        ({}, "cuda:1,cuda:0", False),
        ({}, "cuda", False),
        ({}, "cpu", False),
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "cuda:0", False),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, "cuda:0", False),
        ({"MINERU_DEVICE_MODE": "cuda:0"}, "auto", True),
    ],
    ids=str,
)
def test_a_card_named_by_number_among_unequal_ones_is_told_how_they_are_counted(
    here: dict[str, str], devices: str, told: bool
) -> None:
    second = replace(cards(12, name="NVIDIA GeForce RTX 3060")[0], index=1, pin="1")
    for name, expected in (("NVIDIA GeForce RTX 4090", told), (second.name, False)):
        planned = plan(machine(16, 64, (*cards(24, name=name), second), variables=here), devices=devices)
        assert any("order of the PCI bus" in warning for warning in planned.warnings) == expected


def test_what_was_found_strange_about_the_machine_is_warned_of() -> None:
    assert plan(replace(LAPTOP, remarks=("Strange.",))).warnings[0] == "Strange."


@pytest.mark.parametrize(
    ("devices", "told"),
    [
        ("cuda:7", "cuda:7 is not here; this machine has cuda:0, cuda:1, cpu"),
        ("npu:0", "npu:0 is not here"),
        ("mps", "mps is not here"),
        ("cpu:3", "cpu:3 is not here"),
        ("tpu:0", "'tpu:0' is no device"),
        ("cuda:0,", "'' is no device"),
        ("", "'' is no device"),
        ("cuda:0,cuda:0", "names cuda:0 twice"),
        ("cuda:0,cuda", "names cuda twice"),
    ],
)
def test_a_device_that_cannot_be_used_is_refused_with_what_there_is(devices: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        plan(UNEQUAL, devices=devices)
    assert told in refused.value.message


@pytest.mark.parametrize(
    "wrong",
    [{"workers": 0}, {"max_workers": 0}, {"workers_per_device": 0}, {"workers": -1}, {"tier": "fastest"}],
    ids=str,
)
def test_numbers_and_tiers_that_mean_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        plan(LAPTOP, **wrong)  # type: ignore[arg-type]


def test_what_the_user_has_set_is_kept() -> None:
    variables = {
        "OMP_NUM_THREADS": "3,2",
        "MINERU_VIRTUAL_VRAM_SIZE": "10",
        "MINERU_PDF_RENDER_THREADS": "7",
        "MINERU_INTRA_OP_NUM_THREADS": "5",
    }
    worker = plan(machine(32, 128, cards(24, 24), variables=variables)).workers[1]
    assert variables.items() <= worker.environment.items()
    assert (worker.threads, worker.device_memory_gb, worker.render_processes) == (3, 10, 7)
    assert worker.environment["MKL_NUM_THREADS"] == "3"


def test_a_number_of_the_users_that_is_none_is_replaced_and_named() -> None:
    planned = plan(machine(4, 16, variables={"OMP_NUM_THREADS": "many"}))
    assert planned.workers[0].environment["OMP_NUM_THREADS"] == "1"
    assert any("OMP_NUM_THREADS=many" in warning for warning in planned.warnings)


@pytest.mark.parametrize(
    ("mode", "expected"), [("cpu", "cpu"), ("cuda:1", "cuda:1"), ("cuda", "cuda:0"), ("auto", "cuda:0")]
)
def test_mineru_device_mode_chooses_the_devices_where_the_setting_leaves_it_open(mode: str, expected: str) -> None:
    here = machine(16, 64, cards(24, 24), variables={"MINERU_DEVICE_MODE": mode})
    planned = plan(here)
    assert planned.workers[0].device == expected
    inside = "cpu" if expected == "cpu" else "cuda:0"
    assert planned.workers[0].environment["MINERU_DEVICE_MODE"] == inside


def test_the_setting_wins_over_mineru_device_mode_and_says_so() -> None:
    here = machine(16, 64, cards(24), variables={"MINERU_DEVICE_MODE": "cpu"})
    planned = plan(here, devices="cuda:0")
    assert planned.workers[0].device == "cuda:0"
    assert any("MINERU_DEVICE_MODE=cpu is not used" in warning for warning in planned.warnings)


def test_cpu_only_is_said_with_the_reason_and_can_be_refused() -> None:
    planned = plan(LAPTOP)
    assert planned.fitness is Fitness.DEGRADED
    assert not planned.accelerated
    assert planned.performance_warning is not None
    assert "no NVIDIA driver" in planned.performance_warning
    for devices in ("auto", "cpu"):
        with pytest.raises(ConfigurationError, match="An accelerator is required"):
            plan(LAPTOP, devices=devices, require_accelerator=True)


def test_a_machine_with_a_card_is_fit_and_has_no_performance_warning() -> None:
    planned = plan(EIGHT_A100, require_accelerator=True)
    assert planned.fitness is Fitness.FIT
    assert planned.accelerated
    assert planned.performance_warning is None


def test_a_card_that_nothing_can_compute_on_is_left_alone_but_may_be_named() -> None:
    idle = replace(cards(24)[0], lacks="nothing that is installed can compute on it")
    here = machine(8, 32, (idle,))
    automatic, named = plan(here), plan(here, devices="cuda:0")
    assert {worker.device for worker in automatic.workers} == {"cpu"}
    assert "nothing that is installed" in (automatic.performance_warning or "")
    assert "cuda:0" in automatic.unused
    assert [worker.device for worker in named.workers] == ["cuda:0"]
    assert any("because you named it" in warning for warning in named.warnings)
    assert (named.fitness, named.accelerated) == (Fitness.DEGRADED, False)
    assert "nothing that is installed" in (named.performance_warning or "")
    for devices in ("auto", "cuda:0"):
        with pytest.raises(ConfigurationError, match="nothing that is installed"):
            plan(here, devices=devices, require_accelerator=True)
    assert here.to_json()["accelerators"][0]["blocked"] == idle.lacks


def test_a_card_that_is_too_small_or_filled_by_others_makes_the_machine_slow_and_not_fit() -> None:
    small, filled = machine(16, 64, cards(2)), machine(16, 64, (replace(cards(24)[0], memory_free=GIB // 5),))
    assert plan(machine(16, 64, cards(24)), tier="advanced").fitness is Fitness.FIT
    assert plan(small, tier="advanced").fitness is Fitness.DEGRADED
    assert plan(filled, tier="advanced").fitness is Fitness.DEGRADED
    assert plan(small, tier="flash").fitness is Fitness.FIT


def test_more_is_recommended_where_vlm_servers_do_the_work_and_the_wish_for_fewer_does_not_count() -> None:
    here, settings = machine(2, 64), Settings(workers=1)
    alone, pooled = (decide(settings, here, servers=servers, launch=None) for servers in (0, 8))
    assert alone.advice["max_concurrent"] == 2
    assert (len(pooled.planned.workers), pooled.advice["max_concurrent"]) == (1, 8)
    pages = pooled.advice["seconds_per_page"]
    assert pages["standard"]["one_worker"] < alone.advice["seconds_per_page"]["standard"]["one_worker"]
    assert pages["basic"] == alone.advice["seconds_per_page"]["basic"]


@pytest.mark.parametrize(("gib", "fitness"), [(0.6, Fitness.UNFIT), (1, Fitness.DEGRADED), (16, Fitness.DEGRADED)])
def test_too_little_memory_is_said_and_far_too_little_is_unfit(gib: float, fitness: Fitness) -> None:
    planned = plan(machine(2, gib, quota=1.0))
    assert planned.fitness is fitness
    assert any("Memory is scarce" in warning for warning in planned.warnings) == (gib < 2)


def test_a_card_filled_by_others_or_too_small_for_the_tier_is_named() -> None:
    busy = replace(cards(24)[0], memory_free=4 * GIB)
    assert any("other programs hold 83%" in warning for warning in plan(machine(8, 32, (busy,))).warnings)
    small = plan(machine(8, 32, cards(6)), tier="standard")
    assert any("6 GB for each worker is little" in warning for warning in small.warnings)


def test_render_processes_grow_only_where_cores_allow() -> None:
    assert {worker.render_processes for worker in plan(LAPTOP).workers} == {1}
    assert {worker.render_processes for worker in plan(BIG_CPU).workers} == {2}
    assert {worker.render_processes for worker in plan(EIGHT_A100).workers} == {3}
    for one in itertools.chain(plan(LAPTOP).workers, plan(BIG_CPU).workers):
        expected = str(one.render_processes)
        assert one.environment["MINERU_PDF_RENDER_THREADS"] == expected
        assert one.environment["DOCVORTEX_PDF_RENDER_THREADS"] == expected


def test_a_device_of_unknown_memory_gets_a_worker_and_no_memory_share() -> None:
    unified = replace(cards(1)[0], memory_total=None, memory_free=None, name="NVIDIA GB10")
    worker = plan(machine(20, 120, (unified,))).workers[0]
    assert worker.device_memory_gb is None
    assert "MINERU_VIRTUAL_VRAM_SIZE" not in worker.environment
