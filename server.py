"""The server: `python server.py`. Settings, model source, device plan, start, signals.

Light to import: worker processes and their render children import this module again.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import litserve as ls
from loguru import logger

from docfleet import __version__, aliases, logs
from docfleet.devices import Accelerator, Machine, Plan, PlannedWorker
from docfleet.devices.advice import recommendations
from docfleet.devices.spares import count_spares, spare_slots
from docfleet.engine.mineru.environment import tuning
from docfleet.engine.mineru.orders import BEST, FetchOrders
from docfleet.errors import ConfigurationError, DocfleetError
from docfleet.files import DataFolder
from docfleet.host.claim_loop import ClaimLoop, DoorSpec
from docfleet.models.records import ModelSource
from docfleet.options import Tier
from docfleet.process.files import raise_open_files
from docfleet.process.lifeline import tie_to_parent
from docfleet.records import Claim, WorkerSlot
from docfleet.settings import Settings, parse_command_line
from docfleet.sharding.deadlines import Deadlines
from docfleet.vlm.planning import PoolPlan, plan_pool, workers_for
from docfleet.worker.assembly import AssembledWorker, WorkerPlan, assemble
from docfleet.worker.bench import Outcome, Work
from docfleet.worker.recycling import RecyclingLimits
from docfleet.worker.rounds import Rounds

if __name__ == "__mp_main__":
    # Every child that multiprocessing starts for us, or for a parser inside a worker, passes here.
    tie_to_parent()


class MinerUAPI(ls.LitAPI):  # type: ignore[misc]
    """What LitServe runs on each device: set up once, then decode, predict and encode for every claimed shard."""

    def __init__(self, plan: WorkerPlan) -> None:
        super().__init__(spec=DoorSpec(), loop=ClaimLoop())
        self._plan = plan
        self._worker: AssembledWorker | None = None

    def setup(self, device: str) -> None:
        """Set the device's environment and load the engines, once in each worker process."""
        self._worker = assemble(self._plan, int(os.environ["LITSERVE_WORKER_ID"]))

    def decode_request(self, request: Claim) -> Work:
        """Turn a claimed shard into a validated parse request with its engine and tier."""
        return self._assembled.bench.decode(request)

    def predict(self, work: Work) -> Outcome:
        """Parse one claimed shard."""
        return self._assembled.bench.perform(work, self._assembled.heart.pages_done)

    def encode_response(self, output: Outcome) -> dict[str, Any]:
        """Make the report that the store keeps and the doors answer from."""
        return self._assembled.bench.encode(output)

    @property
    def rounds(self) -> Rounds:
        """This worker's rounds, for the loop."""
        return self._assembled.rounds

    @property
    def _assembled(self) -> AssembledWorker:
        assert self._worker is not None, "setup comes first"
        return self._worker


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server. Return its exit status: 0 after a signal, 1 after a fault, 2 for settings that cannot be used."""
    try:
        resolved, wish = parse_command_line(argv)
        if wish.show_config:
            print(resolved.explain())
            return 0
        logs.configure(resolved.settings.log_level, "main")
        for warning in resolved.warnings():
            logger.warning("{}", warning)
        if wish.prefetch:
            return prefetch(resolved.settings, wish.tier)
        return run(resolved.settings)
    except DocfleetError as exc:
        print(f"server.py: {exc.message}", file=sys.stderr)
        return 2


def run(settings: Settings) -> int:
    """Assemble the server from its settings and serve until a signal."""
    # Not at the top of the module: the workers' render children import it too, and need none of this.
    from docfleet.engine.registry import check_names
    from docfleet.host.address import check_address
    from docfleet.host.exits import begin_run, tell_exit
    from docfleet.host.life import ApiLife
    from docfleet.host.lock import hold_folder
    from docfleet.host.server import FleetServer

    raise_open_files()
    check_names(settings.engines)
    folder = open_folder(settings.data_dir)
    hold_folder(folder.root)
    # After the folder is free: until then the processes of a server that was killed may still hold the port.
    check_address(settings.host, settings.port)
    begin_run(folder.database)
    fleet = plan_fleet(settings, folder)
    announce(settings, fleet)
    workers = fleet.workers
    server = FleetServer(
        MinerUAPI(workers),
        devices=[slot.device for slot in workers.slots],
        spares=[slot.device for slot in workers.spares],
        api_life=ApiLife(
            settings=settings,
            folder=folder,
            slots=workers.slots,
            spares=workers.spares,
            facts=fleet.facts,
            accelerators=fleet.accelerators,
            fetch=fleet.fetch,
            pool=fleet.pool,
        ),
        grace_seconds=settings.grace_seconds,
        on_exit=partial(tell_exit, folder.database),
    )
    return server.serve(host=settings.host, port=settings.port, trusted_proxies=settings.trusted_proxies)


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


def open_folder(path: Path) -> DataFolder:
    """Make the data folder.

    Raises:
        ConfigurationError: it cannot be made or written.
    """
    folder = DataFolder(path.resolve())
    try:
        folder.create()
    except OSError as exc:
        raise ConfigurationError(f"The data folder {folder.root} cannot be used: {exc.strerror}.") from None
    return folder


def plan_fleet(settings: Settings, folder: DataFolder) -> Fleet:
    """Look at the machine and for the models, once for all workers."""
    from _config_endpoint import resolve_model_source
    from device_utils import detect, plan

    source = resolve_model_source(os.environ, home=folder.root / "mineru", models_dir=settings.models_dir)
    pool = plan_pool(settings)
    if pool is not None:
        # The router has them now; workers and their children inherit what is left.
        for variable in ("DOCFLEET_VLM_API_KEYS", *aliases.CLIENT_VARIABLES):
            os.environ.pop(variable, None)
    machine = detect()
    planned = plan_workers(machine, settings, servers=len(pool.members) if pool else 0)
    advice = recommendations(machine, planned, plan(machine, devices=settings.devices))
    slots = tuple(equip(worker, source, settings.log_level) for worker in planned.workers)
    spares, reason = count_spares(machine, planned.workers, settings.spares)
    planned = replace(planned, limits=(*planned.limits, reason))
    workers = WorkerPlan(
        folder=folder,
        slots=slots,
        engines=settings.engines,
        model_source=source.name.value,
        vlm_server_url=pool.gate.pool_url if pool and pool.members else None,
        vlm_identity=(*(member.url for member in pool.members), settings.vlm_model) if pool and pool.members else (),
        vlm_router=pool.gate.url if pool else None,
        log_level=settings.log_level,
        deadlines=Deadlines.of(settings),
        max_attempts=settings.max_attempts,
        share_pages=settings.reuse_results and settings.page_cache_gb > 0,
        recycling=recycling_limits(settings, machine.memory.total, len(slots) + spares),
        spares=spare_slots(slots, spares),
    )
    facts = {
        "version": __version__,
        "devices": {"machine": machine.to_json(), "plan": planned.to_json()},
        "recommendations": advice,
        "model_source": source.to_json(),
        "warnings": [*planned.warnings, *filter(None, [planned.performance_warning])],
    }
    fetch = None if source.offline else fetch_orders(source, slots[0], settings.log_level)
    return Fleet(workers, facts, machine.accelerators, fetch, pool)


def fetch_orders(source: ModelSource, slot: WorkerSlot, log_level: str, tier: str = BEST) -> FetchOrders:
    """Return what to fetch; the device of a worker decides which weights it needs."""
    return FetchOrders(
        sources=tuple(hub.value for hub in source.hubs),
        models_dir=source.models_dir,
        tier=tier,
        log_level=log_level,
        environment=slot.environment,
    )


def prefetch(settings: Settings, tier: str) -> int:
    """Fetch the weights of a tier and return the exit status: 0 if all are here, 1 if not."""
    from _config_endpoint import missing_weights

    fleet = plan_fleet(settings, open_folder(settings.data_dir))
    if fleet.fetch is None:
        source = fleet.facts["model_source"]
        missing = missing_weights(Path(source["models_dir"]))
        if missing or tier not in (BEST, Tier.FLASH, Tier.BASIC):
            print(f"server.py: nothing can be fetched: {source['reason']}. {missing}", file=sys.stderr)
            return 1
        return 0
    with replace(fleet.fetch, tier=tier).start() as fetching:
        status = fetching.wait()
    logger.info("weights {} in {}", "are" if status == 0 else "are not all", fleet.fetch.models_dir)
    return 0 if status == 0 else 1


def plan_workers(machine: Machine, settings: Settings, *, servers: int) -> Plan:
    """Plan the workers for this machine, and for so many VLM servers."""
    from device_utils import plan

    planner = partial(plan, machine, devices=settings.devices, require_accelerator=settings.require_accelerator)
    planned = planner(
        workers=settings.workers,
        workers_per_device=settings.workers_per_device,
        overcommit=settings.overcommit_cpu,
    )
    more = workers_for(
        len(planned.workers),
        servers=servers,
        on_cpu=all(worker.device == "cpu" for worker in planned.workers),
        asked=settings.workers is not None or settings.workers_per_device is not None,
    )
    if more is None:
        return planned
    # They wait more than they compute; what bounds them is memory, which the small models beside the VLM take.
    widened = planner(workers=more, overcommit=True, tier="basic")
    if len(widened.workers) <= len(planned.workers):
        return planned
    told = f"CPU: {len(widened.workers)} workers for {servers} VLM servers; they wait more than they compute."
    return replace(widened, limits=(told,))


def recycling_limits(settings: Settings, memory: int, workers: int) -> RecyclingLimits:
    """Return how long workers live. By default a worker may fill its share of four fifths of the memory."""
    share = int(memory * 0.8 / max(workers, 1))
    return RecyclingLimits(
        documents=settings.recycle_documents,
        seconds=settings.recycle_hours * 3600,
        rss=share if settings.recycle_rss_mb is None else settings.recycle_rss_mb * 2**20,
    )


def equip(worker: PlannedWorker, source: ModelSource, log_level: str) -> WorkerSlot:
    """Return the slot with all that its worker sets before it imports anything heavy."""
    decided = worker.environment | source.environment()
    environment = decided | tuning(worker.device, os.environ | decided, log_level)
    return replace(worker.slot(), environment=environment)


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


if __name__ == "__main__":
    sys.exit(main())
