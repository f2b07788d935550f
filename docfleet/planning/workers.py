"""The workers' plan: how many, on what, with which environment, and for how long they live."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial

from docfleet.devices import Machine, Plan, PlannedWorker, plan
from docfleet.engine.mineru.environment import tuning
from docfleet.models.records import ModelSource
from docfleet.records import WorkerSlot
from docfleet.settings import Settings
from docfleet.vlm.planning import workers_for
from docfleet.worker.recycling import RecyclingLimits


def plan_workers(machine: Machine, settings: Settings, *, servers: int, tier: str = "auto") -> Plan:
    """Plan the workers for this machine, and for so many VLM servers.

    Args:
        machine: as it was found.
        settings: what the user wants.
        servers: VLM servers in the pool.
        tier: the tier that must fit.

    Raises:
        ConfigurationError: see `docfleet.devices.plan`.
    """
    planner = partial(
        plan,
        machine,
        devices=settings.devices,
        max_workers=settings.max_workers,
        require_accelerator=settings.require_accelerator,
        tier=tier,
    )
    planned = planner(
        workers=settings.workers,
        workers_per_device=settings.workers_per_device,
        overcommit=settings.overcommit_cpu,
    )
    asked = settings.workers or (settings.workers_per_device if settings.workers_per_device != "auto" else None)
    allowed = None if settings.workers else settings.max_workers
    most = min(filter(None, (asked, allowed)), default=None)
    more = workers_for(
        len(planned.workers),
        servers=servers,
        on_cpu=all(worker.device == "cpu" for worker in planned.workers),
        most=most,
    )
    if more is None:
        return planned
    # They wait more than they compute; what bounds them is memory, which the small models beside the VLM take.
    widened = planner(workers=more, overcommit=True, tier="basic")
    if len(widened.workers) <= len(planned.workers):
        return planned
    told = f"CPU: {len(widened.workers)} workers for {servers} VLM servers; they wait more than they compute."
    warnings = widened.warnings
    if asked is not None and most is not None and more < most:
        warnings += (f"{asked} workers on the CPU were asked for; {more} are enough for {servers} VLM servers.",)
    return replace(widened, limits=(told,), warnings=warnings)


def recycling_limits(settings: Settings, memory: int, workers: int) -> RecyclingLimits:
    """Return how long workers live. By default a worker may fill its share of four fifths of the memory.

    Args:
        settings: the user's own limits.
        memory: bytes of the machine, or of the container.
        workers: processes that share it, spares among them.
    """
    share = int(memory * 0.8 / max(workers, 1))
    return RecyclingLimits(
        documents=settings.recycle_documents,
        seconds=settings.recycle_hours * 3600,
        rss=share if settings.recycle_rss_mb is None else settings.recycle_rss_mb * 2**20,
    )


def equip(worker: PlannedWorker, source: ModelSource, log_level: str, *, asks: bool = False) -> WorkerSlot:
    """Return the slot with all that its worker sets before it imports anything heavy.

    Args:
        worker: as it was planned.
        source: where models come from.
        log_level: for MinerU's messages.
        asks: whether VLM servers read for it.
    """
    decided = worker.environment | source.environment()
    environment = decided | tuning(worker.device, os.environ | decided, log_level, asks=asks)
    return replace(worker.slot(), environment=environment)
