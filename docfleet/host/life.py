"""What the API process runs from its start to its end: store, inspector, supervisor and doors."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from fastapi import FastAPI

from docfleet import logs
from docfleet.devices.gauges import Gauges
from docfleet.devices.records import Accelerator
from docfleet.devices.sampling import probes_for
from docfleet.engine.mineru.orders import FetchOrders
from docfleet.files import DataFolder
from docfleet.intake.accept import Intake
from docfleet.intake.inspector import Inspector
from docfleet.intake.receive import receive
from docfleet.intake.reuse import Reuse
from docfleet.metrics.traffic import Traffic
from docfleet.models.progress import read_status
from docfleet.process.memory import give_back, settle
from docfleet.records import WorkerSlot
from docfleet.settings import Settings
from docfleet.sharding.deadlines import Deadlines
from docfleet.store.admission import Limits
from docfleet.store.reuse import hand_on
from docfleet.store.sqlite import SqliteStore, open_store
from docfleet.supervisor.blame import Blame
from docfleet.supervisor.cancelled import Revoker
from docfleet.supervisor.fetcher import Fetcher
from docfleet.supervisor.leases import LeaseKeeper
from docfleet.supervisor.limits import Limits as LeaseLimits
from docfleet.supervisor.memory import Marks, MemoryWatch
from docfleet.supervisor.pages import PageKeeper
from docfleet.supervisor.progress import INTERVAL as PROGRESS_INTERVAL
from docfleet.supervisor.progress import ProgressLog
from docfleet.supervisor.sizes import keep_within
from docfleet.supervisor.tidying import Leftovers, clear_leftovers, retire_results
from docfleet.supervisor.watch import Chore, Watch, stop_all
from docfleet.vlm.keeper import Keeper as PoolKeeper
from docfleet.vlm.planning import PoolPlan
from docfleet.web.admission import OWN_PARAMETERS, Admission
from docfleet.web.counting import traffic_of
from docfleet.web.doors import Doors
from docfleet.web.feed import ProgressFeed
from docfleet.web.router import create_doors
from docfleet.web.waiting import JobWatch

_Handler = Callable[[int, FrameType | None], None]

#: Seconds between two looks at the leases: how long a dead worker's document waits for its second attempt.
_LEASE_INTERVAL = 0.5
#: Seconds between two looks at leases of cancelled jobs: with the worker's patience it makes less than 2 s.
_REVOKE_INTERVAL = 0.25
_FETCH_INTERVAL = 1.0
#: Looks that end before all is done go on soon.
_RETENTION_INTERVAL = 2.0
_SIZE_INTERVAL = 5.0
_LEFTOVERS_INTERVAL = 1.0
_POISON_INTERVAL = 60.0
_PAGES_INTERVAL = 5.0
_MEMORY_INTERVAL = 1.0
_QUIET_INTERVAL = 30.0
#: Seconds that a thread may keep the interpreter while another wants it.
_SWITCH_SECONDS = 0.0005
#: Seconds before the end of the grace time at which requests that still wait are told where their job is.
_LAST_WORD = 1.0


@dataclass(frozen=True)
class ApiLife:
    """Callable as a lifespan. Built in the main process, run in the API process: nothing is opened before that."""

    settings: Settings
    folder: DataFolder
    slots: tuple[WorkerSlot, ...]
    #: Shown in `/status`: version, devices, model source, warnings.
    facts: Mapping[str, Any]
    #: Slots of the processes that wait to take over.
    spares: tuple[WorkerSlot, ...] = ()
    #: Accelerators that are there, used or not.
    accelerators: tuple[Accelerator, ...] = ()
    #: When the main process began: an API process that is started again belongs to the same server.
    begun: float = field(default_factory=time.time)
    #: Whether the last server on this folder was killed, not stopped.
    killed: bool = False
    #: Weights to fetch beside the running server; None where nothing is to be fetched.
    fetch: FetchOrders | None = None
    #: The VLM servers; None where there are none.
    pool: PoolPlan | None = None

    @asynccontextmanager
    async def __call__(self, app: FastAPI) -> AsyncIterator[None]:
        """Open the doors, and close them in order."""
        logs.configure(self.settings.log_level, "api")
        # Dozens of threads read and write for a crowd of requests; the loop must not wait for each one's turn.
        sys.setswitchinterval(_SWITCH_SECONDS)
        async with AsyncExitStack() as ending:
            store = ending.enter_context(closing(open_store(self.folder.database)))
            leftovers = Leftovers(self.folder, store, clear_leftovers(self.folder, store))
            if not self.settings.poison_hours:
                store.forget(None)
            inspector = Inspector()
            await inspector.start()
            ending.push_async_callback(inspector.close)
            # A store of its own: it says once that something changed, to whoever asks first.
            feed = ProgressFeed(ending.enter_context(closing(open_store(self.folder.database))))
            watch = JobWatch(store)
            facts = dict(self.facts)
            vlm = None if self.pool is None else PoolKeeper(self.pool)
            if vlm is not None:
                await vlm.start()
                ending.push_async_callback(vlm.close)
            seconds = self.settings.sample_seconds
            gauges = Gauges(probes_for(self.accelerators, seconds), interval=seconds)
            ending.callback(gauges.stop)
            doors = self._doors(store, inspector, watch, feed, facts, gauges, vlm, traffic_of(app))
            ending.push_async_callback(doors.admission.write)

            def release() -> None:
                watch.release()
                feed.release()

            self._release_at_signal(release)
            app.include_router(create_doors(doors))
            chores = self._tidying(store, leftovers)
            if self.fetch is not None:
                fetcher = Fetcher(self.fetch.start, partial(show_fetching, facts, self.fetch.models_dir))
                ending.callback(fetcher.stop)
                chores.append(Chore("weights", fetcher.look, _FETCH_INTERVAL))
            chores.append(Chore("quiet", lambda: None if watch.waiting else give_back(), _QUIET_INTERVAL))
            # Two: whoever is to be killed must not wait until a thousand old results are removed.
            watches = [Watch(self._guarding(store, gauges)), Watch(chores, "tidying")]
            for one in watches:
                one.start()
            ending.push_async_callback(asyncio.to_thread, stop_all, watches)
            ending.callback(release)
            settle(answering=True)
            yield

    def _doors(
        self,
        store: SqliteStore,
        inspector: Inspector,
        watch: JobWatch,
        feed: ProgressFeed,
        facts: Mapping[str, Any],
        gauges: Gauges,
        vlm: PoolKeeper | None,
        traffic: Traffic,
    ) -> Doors:
        settings = self.settings
        limits = Limits(pages=settings.max_backlog_pages, jobs=settings.max_backlog_jobs)
        reserve = settings.min_free_disk_mb * 1024 * 1024
        allowed = () if self.pool is None else self.pool.allowed
        reuse = Reuse(store, self.folder) if settings.reuse_results else None
        return Doors(
            store=store,
            folder=self.folder,
            intake=Intake(store, self.folder, inspector, allowed_server_urls=allowed, reuse=reuse),
            receive=partial(receive, own_parameters=OWN_PARAMETERS, reserve=reserve),
            admission=Admission(store, limits, wait=settings.admission_wait),
            key_seconds=settings.idempotency_hours * 3600,
            feed=feed,
            watch=watch,
            body_limit=settings.max_body_mb * 1024 * 1024,
            wait_timeout=settings.wait_timeout,
            plan=self.slots,
            spares=self.spares,
            facts=facts,
            gauges=gauges,
            started_at=time.time(),
            begun=self.begun,
            stale_seconds=settings.stale_seconds,
            vlm=vlm,
            traffic=traffic,
            disk_reserve=reserve,
        )

    def _guarding(self, store: SqliteStore, gauges: Gauges) -> list[Chore]:
        """Return what must be in time: whatever kills a worker, or keeps it from taking up more than there is room for.

        Every look is short.
        """
        settings, megabyte = self.settings, 1024 * 1024
        keeper = LeaseKeeper(
            store,
            self.folder,
            LeaseLimits(
                max_attempts=settings.max_attempts,
                stale_seconds=settings.stale_seconds,
                deadlines=Deadlines.of(settings),
                memory_bytes=settings.worker_memory_mb * megabyte,
                remember_seconds=settings.poison_hours * 3600,
            ),
            Blame(self.begun),
            killed=self.killed,
        )
        marks = Marks(device=settings.rest_below_device_mb * megabyte, host=settings.rest_below_memory_mb * megabyte)
        memory = MemoryWatch(store, self.slots, gauges, marks)
        seconds = settings.sample_seconds
        return [
            Chore("leases", keeper.look, _LEASE_INTERVAL),
            Chore("cancelled", Revoker(store, self.folder).look, _REVOKE_INTERVAL),
            Chore("gauges", gauges.look, seconds),
            Chore("memory", memory.look, min(seconds, _MEMORY_INTERVAL)),
        ]

    def _tidying(self, store: SqliteStore, leftovers: Leftovers) -> list[Chore]:
        """Return what may take a while."""
        settings = self.settings
        room = int(settings.max_results_gb * 1e9)
        retention = settings.retention_hours * 3600
        pages = PageKeeper(
            self.folder.pages,
            store,
            limit=int(settings.page_cache_gb * 1e9) if settings.reuse_results else 0,
            reserve=settings.min_free_disk_mb * 1024 * 1024,
        )
        return [
            # Of workers that died between delivering and handing on.
            Chore("followers", lambda: hand_on(store, self.folder), _LEASE_INTERVAL),
            Chore("sizes", lambda: keep_within(self.folder, store, room), _SIZE_INTERVAL),
            Chore("pages", pages.look, _PAGES_INTERVAL),
            Chore("poison", store.forget_expired, _POISON_INTERVAL),
            Chore("progress", ProgressLog(store).look, PROGRESS_INTERVAL),
            Chore("retention", lambda: retire_results(self.folder, store, retention), _RETENTION_INTERVAL),
            Chore("leftovers", leftovers.look, _LEFTOVERS_INTERVAL),
        ]

    def _release_at_signal(self, release: Callable[[], None]) -> None:
        """Let waiting requests answer before the grace time is over; the host would cut them off at its end."""
        loop = asyncio.get_running_loop()
        pause = max(self.settings.grace_seconds - _LAST_WORD, 0)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _after(lambda: loop.call_later(pause, release), loop, signal.getsignal(number)))


def show_fetching(facts: dict[str, Any], models_dir: Path) -> None:
    """Put where the fetching of weights stands among the facts about the model source."""
    status = read_status(models_dir)
    if status is not None:
        facts["model_source"] = {**facts["model_source"], "fetching": status.to_json()}


def _after(first: Callable[[], object], loop: asyncio.AbstractEventLoop, then: object) -> _Handler:
    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(first)
        if callable(then):
            then(number, frame)

    return handle
