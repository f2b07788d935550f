"""Put a worker together inside its own process: environment first, then store, engines and heart."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field

from docfleet import logs
from docfleet.engine.fingerprint import fingerprint
from docfleet.engine.interface import EngineContext
from docfleet.engine.registry import build_engines
from docfleet.files import DataFolder, remove_tree
from docfleet.process.groups import lead_group
from docfleet.process.identity import identify
from docfleet.records import WorkerReport, WorkerSlot, WorkerState
from docfleet.sharding.deadlines import Deadlines
from docfleet.store.sqlite import open_store
from docfleet.worker.bench import Bench
from docfleet.worker.care import Care
from docfleet.worker.heart import Heart
from docfleet.worker.memory import settle
from docfleet.worker.recycling import Recycler, RecyclingLimits
from docfleet.worker.rounds import Rounds, load_with_patience


@dataclass(frozen=True, kw_only=True)
class WorkerPlan:
    """All that the workers need to know. Travels to each of them by pickle."""

    folder: DataFolder
    slots: tuple[WorkerSlot, ...]
    #: Engine names, as in the settings.
    engines: tuple[str, ...]
    model_source: str
    #: See `EngineContext`.
    vlm_server_url: str | None
    log_level: str
    deadlines: Deadlines
    #: Attempts at one page before it is given up.
    max_attempts: int
    recycling: RecyclingLimits = field(default_factory=RecyclingLimits)
    vlm_identity: tuple[str, ...] = ()
    vlm_router: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class AssembledWorker:
    """A worker whose engines are loaded."""

    bench: Bench
    heart: Heart
    rounds: Rounds


def assemble(plan: WorkerPlan, index: int) -> AssembledWorker:
    """Build the worker of one slot. Returns when its engines are loaded, however often that takes."""
    slot = plan.slots[index]
    os.environ.update(slot.environment)
    # Ctrl-C is for the main process, which ends the workers in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    lead_group()
    logs.configure(plan.log_level, f"worker-{index}")

    scratch = plan.folder.scratch(index)
    remove_tree(scratch)
    scratch.mkdir(parents=True)
    store = open_store(plan.folder.database)
    owner = identify()
    heart = Heart(
        store,
        WorkerReport(
            slot=index, identity=owner, device=slot.device, state=WorkerState.STARTING, started_at=time.time()
        ),
    )
    heart.start()

    engines = build_engines(plan.engines)
    context = EngineContext(
        device=slot.environment.get("MINERU_DEVICE_MODE", slot.device),
        threads=int(slot.environment.get("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))),
        model_source=plan.model_source,
        vlm_server_url=plan.vlm_server_url,
        vlm_identity=plan.vlm_identity,
        vlm_router=plan.vlm_router,
        scratch=scratch,
    )

    def load() -> None:
        for engine in engines:
            engine.load(context)
        heart.able(fingerprint(engines, context))
        settle()

    load_with_patience(load, heart)
    bench = Bench(plan.folder, engines)
    care = Care(claims=store, bench=bench, deadlines=plan.deadlines, max_attempts=plan.max_attempts)
    recycler = Recycler(plan.recycling, store, heart, owner=owner, slot=index)
    rounds = Rounds(claims=store, bench=bench, heart=heart, care=care, recycler=recycler, owner=owner, slot=index)
    return AssembledWorker(bench, heart, rounds)
