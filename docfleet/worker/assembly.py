"""Put a worker together inside its own process: environment first, then store, engines and heart."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

from docfleet import logs
from docfleet.devices.affinity import bind
from docfleet.engine.choice import why_not
from docfleet.engine.fingerprint import fingerprint
from docfleet.engine.interface import Engine, EngineContext
from docfleet.engine.registry import build_engines
from docfleet.files import DataFolder, remove_tree
from docfleet.models.progress import Arrivals
from docfleet.models.records import Source
from docfleet.options import Tier
from docfleet.process.groups import lead_group
from docfleet.process.identity import identify
from docfleet.process.memory import settle
from docfleet.records import WorkerSlot, WorkerState
from docfleet.sharding.deadlines import Deadlines
from docfleet.shelf.folder import Shelves
from docfleet.store.sqlite import open_store
from docfleet.worker.awaiting import await_servers
from docfleet.worker.bench import Bench
from docfleet.worker.care import Care
from docfleet.worker.courtesy import Courtesy
from docfleet.worker.frugality import Frugality
from docfleet.worker.heart import Heart
from docfleet.worker.recycling import Recycler, RecyclingLimits, Shortage
from docfleet.worker.resting import Rest
from docfleet.worker.rounds import Rounds, load_with_patience
from docfleet.worker.seat import Seat


@dataclass(frozen=True, kw_only=True)
class WorkerPlan:
    """All that the workers need to know. Travels to each of them by pickle."""

    folder: DataFolder
    slots: tuple[WorkerSlot, ...]
    #: Engine names, as in the settings.
    engines: tuple[str, ...]
    model_source: str
    #: Whether that is so because no hub answered at the start.
    hubs_unreached: bool = False
    #: See `EngineContext`.
    vlm_server_url: str | None
    log_level: str
    deadlines: Deadlines
    #: Attempts at one page before it is given up.
    max_attempts: int
    #: Whether finished pages of a document may serve other jobs.
    share_pages: bool = True
    recycling: RecyclingLimits = field(default_factory=RecyclingLimits)
    #: Slots beyond the plan, for processes that wait with their engines loaded. Numbered on from the plan's.
    spares: tuple[WorkerSlot, ...] = ()
    vlm_identity: tuple[str, ...] = ()
    vlm_router: str | None = field(default=None, repr=False)
    #: Where the launcher tells of VLM servers on this machine; None: there is none.
    vlm_local: Path | None = None


@dataclass(frozen=True)
class AssembledWorker:
    """A worker whose engines are loaded."""

    bench: Bench
    heart: Heart
    rounds: Rounds


def assemble(plan: WorkerPlan, number: int) -> AssembledWorker:
    """Build the worker of one process. Returns when its engines are loaded, however often that takes.

    Args:
        plan: the slots there are.
        number: of this process, among those that LitServe started; it says nothing of the slot.
    """
    # Ctrl-C is for the main process, which ends the workers in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    lead_group()
    logs.configure(plan.log_level, f"worker-{number}")

    store = open_store(plan.folder.database)
    owner = identify()
    seat = Seat(store, plan.slots, plan.spares, owner)
    heart = Heart(store, seat.enter(number))
    slot = seat.slot(heart.report.slot)
    os.environ.update(slot.environment)
    bind(slot.cpus)
    heart.start()
    seat.before_loading(heart)

    scratch = plan.folder.scratch(number)
    remove_tree(scratch)
    scratch.mkdir(parents=True)
    arrivals = Arrivals(Path(os.environ.get("MINERU_MODEL_BASE_DIR", scratch)))
    shortage = Shortage()
    engines = _loaded_engines(plan, _context(plan, slot, scratch, shortage), seat, heart)
    shelves = Shelves(plan.folder, heart.report.engines, shared=plan.share_pages)
    bench = Bench(plan.folder, engines, shelves, Courtesy(store))
    care = Care(
        claims=store,
        bench=bench,
        deadlines=plan.deadlines,
        max_attempts=plan.max_attempts,
        slot=lambda: heart.report.slot,
    )
    recycler = Recycler(plan.recycling, store, heart, seat, owner=owner, arrived=arrivals.any, short=shortage.due)
    rounds = Rounds(
        claims=store,
        bench=bench,
        heart=heart,
        care=care,
        recycler=recycler,
        seat=seat,
        rest=Rest(store, heart),
        frugality=Frugality(heart.takes),
        owner=owner,
    )
    return AssembledWorker(bench, heart, rounds)


def _context(plan: WorkerPlan, slot: WorkerSlot, scratch: Path, shortage: Shortage) -> EngineContext:
    return EngineContext(
        device=slot.environment.get("MINERU_DEVICE_MODE", slot.device),
        threads=int(slot.environment.get("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))),
        model_source=plan.model_source,
        hubs_unreached=plan.hubs_unreached,
        vlm_server_url=plan.vlm_server_url,
        vlm_identity=plan.vlm_identity,
        vlm_router=plan.vlm_router,
        scratch=scratch,
        try_later=shortage.note,
    )


def _loaded_engines(plan: WorkerPlan, context: EngineContext, seat: Seat, heart: Heart) -> list[Engine]:
    engines = build_engines(plan.engines)

    def load() -> None:
        for engine in engines:
            engine.load(context)
        heart.able(fingerprint(engines, context))
        settle()
        if plan.vlm_local is not None:
            await_servers(plan.vlm_local, lambda told: heart.tell(WorkerState.LOADING, told))

    loaded = WorkerState.READY if seat.serves(heart) else WorkerState.SPARE
    load_with_patience(load, heart, loaded)
    if plan.model_source != Source.EMBEDDED or plan.hubs_unreached:
        # Somebody meant to have models: without them documents are read all the same, and `/status` says why.
        heart.tell(loaded, why_not(engines, Tier.BASIC))
    return engines
