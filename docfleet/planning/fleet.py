"""The fleet: one record of all that was decided, handed to workers and API process."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

from loguru import logger

from docfleet import __version__
from docfleet.devices import Accelerator, Machine, Plan
from docfleet.devices.spares import spare_slots
from docfleet.engine.mineru.orders import BEST, FetchOrders
from docfleet.files import DataFolder
from docfleet.launch.fleet import Launch
from docfleet.models.backends import Backend, backends_for
from docfleet.models.records import ModelSource
from docfleet.options import Tier
from docfleet.planning.decision import decide
from docfleet.planning.weights import fetch_orders, partly_missing
from docfleet.planning.workers import equip, recycling_limits
from docfleet.settings import Settings
from docfleet.sharding.deadlines import Deadlines
from docfleet.vlm.planning import PoolPlan
from docfleet.worker.assembly import WorkerPlan


@dataclass(frozen=True)
class Fleet:
    """What the main process decided for all others."""

    workers: WorkerPlan
    #: For `/status`: version, devices, recommendations, model source, warnings.
    facts: dict[str, Any]
    #: What is there, used or not.
    accelerators: tuple[Accelerator, ...] = ()
    #: Weights to fetch while the server runs; None where no hub is used.
    fetch: FetchOrders | None = None
    #: The VLM servers; None where there are none.
    pool: PoolPlan | None = None
    #: Those of them that this machine is to run.
    launch: Launch | None = None
    #: Kinds of small models that the workers load.
    backends: tuple[Backend, ...] = ()


def assemble_fleet(
    settings: Settings,
    folder: DataFolder,
    *,
    source: ModelSource,
    machine: Machine,
    pool: PoolPlan | None = None,
    launch: Launch | None = None,
) -> Fleet:
    """Decide for all workers.

    Args:
        settings: what the user wants.
        folder: where everything is kept.
        source: where models come from.
        machine: as it was found.
        pool: the VLM servers, or None.
        launch: those of them that this machine runs itself, beside the workers.

    Raises:
        ConfigurationError: the settings ask for devices or numbers that this machine does not have.
    """
    decided = decide(settings, machine, servers=len(pool.members) if pool else 0, launch=launch)
    planned = decided.planned
    workers = _worker_plan(settings, folder, source, machine, pool, planned, decided.spares)
    backends = backends_for((slot.device for slot in workers.slots), machine.versions, os.environ)
    lacks = partly_missing(source, backends)
    facts = {
        "version": __version__,
        "devices": {"machine": machine.to_json(), "plan": planned.to_json()},
        "recommendations": decided.advice,
        "model_source": source.to_json(),
        "warnings": [*decided.warnings, *filter(None, [lacks])],
    }
    # Servers of our own fetch their model themselves, each engine its kind.
    best = BEST if launch is None else Tier.BASIC
    fetch = None if source.offline else fetch_orders(source, workers.slots, settings.log_level, best)
    return Fleet(workers, facts, machine.accelerators, fetch, pool, launch, backends)


def _worker_plan(
    settings: Settings,
    folder: DataFolder,
    source: ModelSource,
    machine: Machine,
    pool: PoolPlan | None,
    planned: Plan,
    spares: int,
) -> WorkerPlan:
    # One whose servers were all drained is as it was before the restart: documents wait until one is brought back.
    # Where the settings want none, workers look themselves whether one was added.
    pooled = pool is not None and pool.in_use
    slots = tuple(equip(worker, source, settings.log_level, asks=pooled) for worker in planned.workers)
    return WorkerPlan(
        folder=folder,
        slots=slots,
        engines=settings.engines,
        model_source=source.name.value,
        hubs_unreached=source.unreached,
        vlm_server_url=pool.gate.pool_url if pool and pooled else None,
        vlm_identity=pool.identity if pool else (),
        vlm_local=pool.local if pool else None,
        vlm_router=pool.gate.url if pool else None,
        log_level=settings.log_level,
        deadlines=Deadlines.of(settings),
        max_attempts=settings.max_attempts,
        share_pages=settings.reuse_results and settings.page_cache_gb > 0,
        recycling=recycling_limits(settings, machine.memory.total, len(slots) + spares),
        spares=spare_slots(slots, spares),
    )


def announce(settings: Settings, fleet: Fleet) -> None:
    """Say in the log what will run, and what the user should know."""
    for warning in fleet.facts["warnings"]:
        logger.warning("{}", warning)
    for limit in fleet.facts["devices"]["plan"]["limits"]:
        logger.info("{}", limit)
    counts = Counter(slot.device for slot in fleet.workers.slots)
    devices = ", ".join(f"{number} x {device}" for device, number in counts.items())
    logger.info("docfleet {}: workers {}, models from {}", __version__, devices, fleet.workers.model_source)
    logger.info("listening on http://{}:{} (API description at /docs)", settings.host, settings.port)
