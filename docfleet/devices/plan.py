"""From the machine and the settings to one record for each worker. Pure: the same input gives the same plan."""

from __future__ import annotations

from collections import Counter

from docfleet.devices import capacity as sizes
from docfleet.devices.affinity import format_cpus, parse_cpus
from docfleet.devices.environment import (
    DEVICE_MEMORY,
    RENDER_PROCESSES,
    THREADS,
    Share,
    environment,
    unusable,
    user_number,
)
from docfleet.devices.needs import NEEDS, SERVER_BYTES, worker_bytes
from docfleet.devices.records import GIB, Accelerator, Fitness, Kind, Machine, Plan, PlannedWorker
from docfleet.devices.selection import select
from docfleet.errors import ConfigurationError
from docfleet.options import Tier

#: Free share of a device's memory below which somebody else is taken to be using it.
_BUSY_BELOW = 0.5


def plan(
    machine: Machine,
    *,
    devices: str = "auto",
    workers: int | None = None,
    workers_per_device: sizes.PerDevice = None,
    max_workers: int | None = None,
    tier: str = "auto",
    require_accelerator: bool = False,
    max_cpu_workers: int = sizes.MAX_CPU_WORKERS,
    overcommit: bool = False,
) -> Plan:
    """Plan the workers: one for each accelerator, or on the CPU as many as cores and memory carry.

    Args:
        machine: what `detect()` found.
        devices: "auto", or names such as "cuda:0,cuda:1", "npu", "mps", "cuda:0,cpu".
        workers: workers in all.
        workers_per_device: workers on each device; "auto": as many as the tier's need fits into each accelerator
            with margin. With `workers` too: so many on each, `workers` at most.
        max_workers: workers in all, at most, where `workers` leaves their number open.
        tier: the tier that workers must have room for.
        require_accelerator: refuse to plan on the CPU alone.
        max_cpu_workers: workers on the CPU at most, however many cores there are.
        overcommit: start as many workers on the CPU as were asked for; for engines that wait more than they compute.

    Raises:
        ConfigurationError: a device is unknown or not here, a number is not positive, the tier is unknown, or an
            accelerator is required and none can be used. The message says what can be done.
    """
    wanted = _tier(tier)
    numbers = {"workers": workers, "workers_per_device": workers_per_device, "max_workers": max_workers}
    for name, number in numbers.items():
        if isinstance(number, int) and number < 1:
            raise ConfigurationError(f"{name} is {number}; it must be 1 or more, or left out for the default.")
    selection = select(machine, devices)
    if require_accelerator and not any(_serves(target) for target in selection.targets):
        raise ConfigurationError(_refusal(machine, selection.unused, devices))
    carried = sizes.fill(
        machine,
        selection.targets,
        tier=wanted,
        workers=workers,
        per_device=workers_per_device,
        max_workers=max_workers,
        max_cpu_workers=max_cpu_workers,
        overcommit=overcommit,
    )
    planned = _workers(machine, carried.places)
    accelerated = any(_serves(place) for place in carried.places)
    scarce = _scarce_memory(machine, carried.places[0], wanted)
    narrow = _device_memory_warnings(planned, carried, wanted)
    return Plan(
        workers=planned,
        fitness=_fitness(machine, accelerated=accelerated, scarce=bool(scarce or narrow or carried.overfull)),
        limits=tuple(carried.limits),
        warnings=(
            *machine.remarks,
            *selection.warnings,
            *_blocked(machine, selection.unused, accelerated=accelerated),
            *carried.warnings,
            *scarce,
            *unusable(machine.variables),
            *narrow,
        ),
        performance_warning=None if accelerated else _performance_warning(machine, selection.unused),
        unused=selection.unused | carried.unused,
    )


def _serves(place: Accelerator | None) -> bool:
    """Whether a worker there has an accelerator: one on which nothing can compute may be named, and is none."""
    return place is not None and not place.hindrance


def _tier(word: str) -> Tier:
    try:
        return Tier(word)
    except ValueError:
        raise ConfigurationError(f"tier {word!r} is not known; use one of {', '.join(Tier)}.") from None


def _workers(machine: Machine, places: list[Accelerator | None]) -> tuple[PlannedWorker, ...]:
    cores, count = machine.cpu.cores, len(places)
    on_device = Counter(place.device for place in places if place is not None)
    variables = machine.variables
    planned = []
    for index, place in enumerate(places):
        memory_gb = None
        if place is not None and place.memory_total:
            # Cards of "24 GB" report a little less than 24 GiB: round the card, then divide.
            memory_gb = max(1, round(place.memory_total / GIB) // on_device[place.device])
        share = Share(
            threads=user_number(variables, THREADS[0]) or sizes.threads(cores, count),
            render_processes=user_number(variables, RENDER_PROCESSES[0])
            or sizes.render_processes(cores, count, accelerated=place is not None),
            memory_gb=memory_gb if place is None else user_number(variables, DEVICE_MEMORY) or memory_gb,
        )
        planned.append(
            PlannedWorker(
                index=index,
                device=Kind.CPU.value if place is None else place.device,
                threads=share.threads,
                render_processes=share.render_processes,
                device_memory_gb=share.memory_gb,
                environment=environment(place, share, variables),
                cpus=_near(place, machine, share.threads),
            )
        )
    return tuple(planned)


def _near(place: Accelerator | None, machine: Machine, threads: int) -> str:
    """Return the cores to bind a worker to, or an empty text: all of them, or too few to carry its threads."""
    if place is None or not place.near_cpus:
        return ""
    allowed = parse_cpus(machine.cpu.allowed)
    near = parse_cpus(place.near_cpus) & allowed
    return format_cpus(near) if threads <= len(near) < len(allowed) else ""


def _fitness(machine: Machine, *, accelerated: bool, scarce: bool) -> Fitness:
    if machine.memory.available < SERVER_BYTES + worker_bytes(None, Tier.FLASH):
        return Fitness.UNFIT
    return Fitness.FIT if accelerated and not scarce else Fitness.DEGRADED


def _blocked(machine: Machine, unused: dict[str, str], *, accelerated: bool) -> list[str]:
    # Without any accelerator in use the performance warning says the same.
    left = [device for device in machine.accelerators if accelerated and unused.get(device.device) == device.hindrance]
    return [f"{device.device} ({device.name}) is not used: {device.hindrance}." for device in left]


def _scarce_memory(machine: Machine, first: Accelerator | None, tier: Tier) -> list[str]:
    need = SERVER_BYTES + worker_bytes(first, tier)
    if machine.memory.available >= need:
        return []
    where = "the container's limit" if machine.memory.limit else "the machine"
    return [
        f"Memory is scarce: {machine.memory.available / GIB:.1f} GiB available, {need / GIB:.1f} GiB wanted for one "
        f"worker; documents may end with their worker killed. Raise {where}, or stop other programs."
    ]


def _device_memory_warnings(workers: tuple[PlannedWorker, ...], carried: sizes.Capacity, tier: Tier) -> list[str]:
    warnings = {}
    for worker, place in zip(workers, carried.places, strict=True):
        if place is None or place.device in carried.overfull:
            continue
        if worker.device_memory_gb is not None and worker.device_memory_gb < NEEDS[tier].device_gb:
            warnings[place.device] = (
                f"{place.device}: {worker.device_memory_gb} GB for each worker is little; about "
                f"{NEEDS[tier].device_gb} GB is wanted for tier {tier}."
            )
        elif place.memory_total and place.memory_free is not None:
            free = place.memory_free / place.memory_total
            if free < _BUSY_BELOW:
                warnings[place.device] = (
                    f"{place.device}: other programs hold {1 - free:.0%} of its memory; models may not fit."
                )
    return list(warnings.values())


def _performance_warning(machine: Machine, unused: dict[str, str]) -> str:
    return (
        "No accelerator is used: recognising a scanned page takes seconds on the CPU, where a graphics card takes a "
        f"fraction of one. {_reasons(machine, unused)}"
    )


def _refusal(machine: Machine, unused: dict[str, str], devices: str) -> str:
    return (
        f"An accelerator is required and none can be used with devices={devices}. {_reasons(machine, unused)} "
        "Put that right, or start without require_accelerator to run on the CPU."
    )


def _reasons(machine: Machine, unused: dict[str, str]) -> str:
    # One on which nothing can compute may have been named, and is not unused then.
    why = {device.device: device.hindrance for device in machine.accelerators if device.hindrance} | unused
    if why:
        return " ".join(f"{device}: {reason}." for device, reason in why.items())
    return " ".join(f"{probe.kind}: {probe.reason}." for probe in machine.probes if probe.reason)
