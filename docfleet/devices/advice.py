"""What a plan means for whoever uses it: how much at once, how fast, and what to put right."""

from __future__ import annotations

from typing import Any

from docfleet.devices.needs import NEEDS
from docfleet.devices.records import Kind, Machine, Plan, PlannedWorker
from docfleet.options import VLM_TIERS, Tier


def recommendations(machine: Machine, planned: Plan, recommended: Plan, *, vlm_servers: int = 0) -> dict[str, Any]:
    """Return JSON for `/api/gpu-status`, `/status` and `device_utils.py`.

    Args:
        machine: as it was found.
        planned: the workers as the settings make them.
        recommended: the workers that the machine would get without any wish for their number.
        vlm_servers: in the pool that the workers ask.
    """
    return {
        "max_concurrent": len(recommended.workers),
        "workers": len(planned.workers),
        "fitness": planned.fitness.value,
        "performance_warning": planned.performance_warning is not None,
        "message": planned.performance_warning,
        "seconds_per_page": {
            tier.value: seconds_per_page(machine, planned, tier, vlm_servers=vlm_servers) for tier in Tier
        },
        "limits": list(planned.limits),
        "warnings": list(planned.warnings),
    }


def seconds_per_page(machine: Machine, planned: Plan, tier: Tier, *, vlm_servers: int = 0) -> dict[str, Any]:
    """Return what to expect of the first worker, and of all together on many documents, in seconds.

    `measured` says that the figure for one core was measured on some machine; on another it may be off by half.
    """
    need, first = NEEDS[tier], planned.workers[0]
    if vlm_servers and tier in VLM_TIERS:
        # The workers wait for answers; as many pages are read at once as there are servers to read them.
        rate = min(vlm_servers, len(planned.workers)) / need.device_seconds
        return {"one_worker": round(need.device_seconds, 2), "all_workers": round(1 / rate, 3), "measured": False}
    seconds = [_alone(worker, tier, accelerated=planned.accelerated) for worker in planned.workers]
    rate = sum(1 / each for each in seconds)
    if not planned.accelerated:
        # Workers on the CPU share its cores, however many they are.
        rate = min(rate, machine.cpu.cores / need.cpu_seconds)
    measured = need.measured and first.device == Kind.CPU
    return {"one_worker": round(seconds[0], 2), "all_workers": round(1 / rate, 3), "measured": measured}


def _alone(worker: PlannedWorker, tier: Tier, *, accelerated: bool) -> float:
    on_cpu = worker.device == Kind.CPU or not accelerated
    return NEEDS[tier].cpu_seconds if on_cpu else NEEDS[tier].device_seconds
