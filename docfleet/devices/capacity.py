"""How many workers the devices, the cores and the memory carry."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from docfleet.devices.needs import MARGIN, MOST_AUTO, NEEDS, SERVER_BYTES, fitting, free_bytes, holds, worker_bytes
from docfleet.devices.records import GIB, Accelerator, Kind, Machine
from docfleet.options import Tier

#: A little more than one worker a core keeps cores busy while a worker waits for its disk or its render child.
WORKERS_PER_CORE = 1.2
MAX_CPU_WORKERS = 8
#: The accelerator of a Mac runs one program at a time; a second worker only fills its pauses.
MAX_MPS_WORKERS = 2
#: More threads than this gain nothing in models of this size.
MAX_THREADS = 16

#: With one of these a worker runs tiers standard and advanced by itself.
_VLM_ENGINES = {"vllm", "lmdeploy", "mineru-llama-cpp"}
#: These take their share of the whole card, whoever else is on it: two do not fit.
_GREEDY_ENGINES = {"vllm", "lmdeploy"}

#: A number for each device, or as many as fit; None is one.
PerDevice = Literal["auto"] | int | None


@dataclass
class Capacity:
    """One entry for each worker (None: on the CPU), and why there are not more."""

    places: list[Accelerator | None] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unused: dict[str, str] = field(default_factory=dict)
    #: Devices that get more workers than their memory holds, because the user put them there; it is among `warnings`.
    overfull: set[str] = field(default_factory=set)


def fill(
    machine: Machine,
    targets: list[Accelerator | None],
    *,
    tier: Tier,
    workers: int | None,
    per_device: PerDevice,
    max_workers: int | None,
    max_cpu_workers: int,
    overcommit: bool = False,
) -> Capacity:
    """Give each device its workers, then take back what memory does not hold; one worker always stays."""
    capacity = Capacity()
    if workers is not None:
        capacity.limits.append(f"The setting workers asks for {workers} in all.")
    accelerators = [target for target in targets if target is not None]
    with_cpu = None in targets
    rounds = _rounds(machine, accelerators, capacity, tier, workers if not with_cpu else None, per_device)
    capacity.places += _go_round(accelerators, rounds, workers)
    if with_cpu:
        number = per_device if isinstance(per_device, int) else None
        asked = number if workers is None else workers - len(capacity.places)
        capacity.places += _on_cpu(machine, capacity, asked, None if overcommit else max_cpu_workers)
    _bound(capacity, workers, max_workers)
    _fit_memory(machine, capacity, tier, asked=workers is not None or isinstance(per_device, int))
    _compare(capacity, accelerators, rounds, tier, None if with_cpu else workers, per_device)
    for target in targets:
        if target not in capacity.places:
            name = "cpu" if target is None else target.device
            capacity.unused[name] = "there are fewer workers than devices"
    return capacity


def _rounds(
    machine: Machine,
    devices: list[Accelerator],
    capacity: Capacity,
    tier: Tier,
    workers: int | None,
    per_device: PerDevice,
) -> dict[str, int]:
    """Return how many workers each device may have, and note why not more."""
    if per_device == "auto":
        return _found_by_itself(machine, devices, capacity, tier)
    wanted = per_device or (1 if workers is None else workers)
    rounds = {}
    for device in devices:
        # Without a number for each device, a total is what may go round, not what each one was asked to carry.
        asked_here = per_device or (math.ceil(wanted / len(devices)))
        held = MAX_MPS_WORKERS if device.kind is Kind.MPS else None if per_device else holds(device, tier)
        rounds[device.device] = wanted if held is None else min(wanted, held)
        if device.kind is Kind.MPS and asked_here > 1:
            told = f"; {asked_here} were asked for" if asked_here > MAX_MPS_WORKERS else ""
            capacity.warnings.append(
                f"mps gets {rounds[device.device]} workers{told}: the device runs one at a time, so the second adds "
                f"little and takes memory. {MAX_MPS_WORKERS} is the most."
            )
    if devices and workers is None:
        count = f"{wanted} workers" if wanted > 1 else "one worker"
        capacity.limits.append(f"Accelerators: {count} on each; workers_per_device sets another number.")
    return rounds


def _compare(
    capacity: Capacity,
    devices: list[Accelerator],
    rounds: dict[str, int],
    tier: Tier,
    workers: int | None,
    per_device: PerDevice,
) -> None:
    """Warn where less is given than was asked for in all, and where more was put on a device than it holds."""
    devices = [device for device in devices if device.kind is not Kind.MPS]
    if workers is not None and per_device is None and devices and sum(rounds.values()) < workers:
        why = "; ".join(f"{device.device}: {_held(device, rounds[device.device], tier)}" for device in devices)
        capacity.warnings.append(
            f"{workers} workers were asked for, and the devices hold {sum(rounds.values())} of them ({why}). "
            "workers_per_device puts more on a device all the same."
        )
    for device in devices if isinstance(per_device, int) else ():
        given, held = capacity.places.count(device), holds(device, tier)
        if held is not None and given > held:
            capacity.overfull.add(device.device)
            capacity.warnings.append(
                f"{device.device} gets {given} workers, as workers_per_device says, but its "
                f"{_held(device, held, tier)}: expect it to run out of memory. Set workers_per_device to "
                f"{held} or less, or to auto."
            )


def _held(device: Accelerator, number: int, tier: Tier) -> str:
    free = (free_bytes(device) or 0) / GIB
    return f"{free:.1f} GiB free hold {number}, at {NEEDS[tier].device_gb} GB each by estimate"


def _found_by_itself(machine: Machine, devices: list[Accelerator], capacity: Capacity, tier: Tier) -> dict[str, int]:
    """As often as the tier's need fits into each device; but a worker needs a core that feeds it."""
    if tier is Tier.AUTO and _VLM_ENGINES & machine.versions.keys():
        # It takes the best that can run, and a VLM can.
        tier = Tier.STANDARD
    rounds = {}
    for device in devices:
        cores = max(1, int(machine.cpu.cores / len(devices)))
        greedy = _GREEDY_ENGINES & machine.versions.keys() and tier not in (Tier.FLASH, Tier.BASIC)
        fits = 1 if device.kind is Kind.MPS or greedy else fitting(device, tier)
        rounds[device.device] = min(fits, cores)
        why = f"{NEEDS[tier].device_gb} GB each, an estimate, in {MARGIN:.0%} of what is free; {MOST_AUTO} at most"
        if device.kind is Kind.MPS:
            why = "it runs one program at a time"
        elif greedy:
            why = "the VLM in each would take its share of the whole card; serve one and set vlm_server_url for more"
        elif cores < fits:
            why = f"{fits} would fit, and {cores} core(s) are there to feed them"
        capacity.limits.append(f"{device.device}: {rounds[device.device]} worker(s) for tier {tier} ({why}).")
    return rounds


def _go_round(devices: list[Accelerator], rounds: dict[str, int], workers: int | None) -> list[Accelerator | None]:
    """A second worker comes to a card only when each has its first."""
    places: list[Accelerator | None] = []
    for turn in range(max(rounds.values(), default=0)):
        places += [device for device in devices if turn < rounds[device.device]]
    return places if workers is None else places[:workers]


def _on_cpu(machine: Machine, capacity: Capacity, asked: int | None, most: int | None) -> list[Accelerator | None]:
    if most is None and asked is not None:
        capacity.limits.append("CPU: as many workers as asked for, whatever its cores carry (overcommit_cpu).")
        return [None] * max(0, asked)
    most = MAX_CPU_WORKERS if most is None else most
    # Each worker on an accelerator keeps a core busy with what surrounds the models.
    cores = max(1.0, machine.cpu.cores - len(capacity.places))
    cap = max(1, min(int(cores * WORKERS_PER_CORE + 1e-9), most))
    capacity.limits.append(
        f"CPU: {cores:g} core(s) carry {cap} worker(s) ({WORKERS_PER_CORE:g} a core, at most {most})."
    )
    if asked is not None and asked > cap:
        capacity.warnings.append(f"{asked} workers on the CPU were asked for; {cap} run, which keeps its cores busy.")
    return [None] * max(0, cap if asked is None else min(asked, cap))


def _bound(capacity: Capacity, workers: int | None, most: int | None) -> None:
    if most is None:
        return
    if workers is not None:
        if workers > most:
            capacity.warnings.append(f"max_workers={most} does nothing, because workers={workers} says otherwise.")
    elif len(capacity.places) > most:
        capacity.limits.append(f"The setting max_workers allows {most} of {len(capacity.places)} workers.")
        capacity.places = capacity.places[:most]


def _fit_memory(machine: Machine, capacity: Capacity, tier: Tier, *, asked: bool) -> None:
    room = machine.memory.available - SERVER_BYTES
    kept = 0
    for target in capacity.places:
        room -= worker_bytes(target, tier)
        if room < 0:
            break
        kept += 1
    if kept == len(capacity.places):
        return
    planned, capacity.places = len(capacity.places), capacity.places[: max(1, kept)]
    sentence = (
        f"Memory: {machine.memory.available / GIB:.1f} GiB available hold {kept} of {planned} worker(s) "
        f"({worker_bytes(capacity.places[0], tier) / GIB:.2g} GiB each and {SERVER_BYTES / GIB:g} GiB for the server)."
    )
    capacity.limits.append(sentence)
    if asked and kept:
        capacity.warnings.append(f"Fewer workers than asked for. {sentence}")


def threads(cores: float, workers: int) -> int:
    """Return threads for each worker so that all threads together are about the number of cores."""
    return max(1, min(MAX_THREADS, math.ceil(cores / workers - 0.5)))


def render_processes(cores: float, workers: int, *, accelerated: bool) -> int:
    """Return render children for each worker: a fast device has to be fed, on the CPU they compete with the models."""
    spare = cores / workers
    if accelerated:
        return 3 if spare >= 4 else 2 if spare >= 2 else 1
    return 3 if spare >= 12 else 2 if spare >= 4 else 1
