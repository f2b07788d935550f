"""The LitServe server of the fleet: devices set by hand, API process and workers replaced when they die.

Uses these semi-private parts of litserve 0.2.19, held by one contract test: `LitServer.devices`, `lifespan`,
`monitor_internal`, `uvicorn_graceful_timeout`, `verify_worker_status`, `_init_manager`, `_start_server`,
`inference_workers`, `launch_single_inference_worker`, `workers_setup_status`, `_shutdown_event`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from multiprocessing.process import BaseProcess
from typing import Any

import litserve as ls
from fastapi import FastAPI
from litserve.utils import WorkerSetupStatus
from loguru import logger
from starlette.formparsers import MultiPartParser

from docfleet import __version__
from docfleet.host.exits import Exits
from docfleet.host.keeper import Keeper
from docfleet.host.shutdown import Ending, end_children
from docfleet.launch.companion import Companion
from docfleet.process.groups import kill_group
from docfleet.web.counting import install_counting
from docfleet.web.manual import install_manual
from docfleet.web.pacing import Pacing
from docfleet.web.problems import install_error_handlers

#: What runs in the API process from its start to its end.
ApiLife = Callable[[FastAPI], AbstractAsyncContextManager[None]]

#: Seconds after which a dead worker is noticed and started again.
_MONITOR_SECONDS = 0.25
#: Seconds after which spares are started even if not all workers are ready; they load after those all the same.
_SPARES_AFTER = 30.0
#: Starlette's own bound, which litserve lifts for the whole process when it is imported.
_SPOOL_BYTES = 1024 * 1024


class FleetServer(ls.LitServer):  # type: ignore[misc]
    """Hosts one worker process for each planned device, and spare ones."""

    def __init__(
        self,
        lit_api: ls.LitAPI,
        *,
        devices: Sequence[str],
        spares: Sequence[str] = (),
        api_life: ApiLife,
        grace_seconds: float,
        exits: Exits | None = None,
        companion: Companion | None = None,
    ) -> None:
        """Make the server; nothing is started.

        Args:
            lit_api: what each worker process runs.
            devices: one for each worker of the plan.
            spares: one for each spare process, which are started once the workers are ready.
            api_life: what the API process runs.
            grace_seconds: that requests get to end at shutdown.
            exits: told of each worker process that has ended; says when another may be started in its place.
            companion: a process that runs beside the workers.
        """
        # "cpu" keeps LitServe from looking for accelerators by importing torch in the main process.
        super().__init__(
            lit_api, accelerator="cpu", workers_per_device=1, timeout=False, restart_workers=True, track_requests=False
        )
        self.devices = [[device] for device in devices]
        self.monitor_internal = _MONITOR_SECONDS
        self.uvicorn_graceful_timeout = grace_seconds
        self.ending = Ending()
        self._api = lit_api
        self._api_life = api_life
        self._spares = [[device] for device in spares]
        self._exits = exits
        self._companion = companion
        self.app.title, self.app.version = "Docfleet", __version__
        install_manual(self.app)
        install_error_handlers(self.app)
        self.app.add_middleware(Pacing)
        install_counting(self.app)
        MultiPartParser.spool_max_size = _SPOOL_BYTES

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Run the API process's own life inside LitServe's."""
        async with super().lifespan(app), self._api_life(app):
            yield

    def verify_worker_status(self) -> None:
        """Do not wait: the doors open at once and `/readyz` tells. LitServe would wait for ever if all crash."""

    def serve(self, *, host: str, port: int, trusted_proxies: Sequence[str] = ()) -> int:
        """Run until a signal, or until the server cannot go on. Return the exit status.

        Args:
            host: address to listen on.
            port: port to listen on.
            trusted_proxies: addresses and networks whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
                Uvicorn by itself believes everybody on this machine, and whom FORWARDED_ALLOW_IPS names.
        """
        self.ending.install()
        try:
            if self._companion is not None:
                self._companion.look()
            self.run(
                host=host,
                port=port,
                num_api_servers=1,
                log_level="warning",
                generate_client_file=False,
                access_log=False,
                proxy_headers=bool(trusted_proxies),
                forwarded_allow_ips=",".join(trusted_proxies),
            )
        except KeyboardInterrupt:
            pass
        finally:
            if self._companion is not None:
                self._companion.stop()
            end_children([worker.pid for worker in getattr(self, "inference_workers", []) if worker.pid])
        return self.ending.status

    def launch_single_inference_worker(self, lit_api: ls.LitAPI, worker_id: int) -> BaseProcess:
        """Start a worker in the place of one that ended, whose children may still run; none while the server ends."""
        # There is one API, so the worker's number is its place in the list.
        gone: BaseProcess = self.inference_workers[worker_id]
        if gone.pid is not None:
            kill_group(gone.pid)
        if self.ending.has_begun() or not self._may_start(worker_id, gone):
            # LitServe's monitor finds the dead one in its place at its next look.
            return gone
        try:
            return self._launch(lit_api, worker_id)
        except (OSError, EOFError) as exc:
            if self.ending.has_begun():
                return gone
            # Killed before it had read what it is to do, or too many processes. An exception would end LitServe's
            # monitor, and no worker would ever be started again; the dead one in its place is tried at the next look.
            logger.warning("worker {} could not be started and is tried again: {}", worker_id, exc)
            return gone

    def _launch(self, lit_api: ls.LitAPI, worker_id: int) -> BaseProcess:
        started: BaseProcess = super().launch_single_inference_worker(lit_api, worker_id)
        return started

    def _may_start(self, number: int, gone: BaseProcess) -> bool:
        if self._exits is None:
            return True
        try:
            loaded = self._loaded(number)
        except (OSError, EOFError):
            # LitServe's manager, which keeps that, is gone, and with it the server. An exception would end the monitor.
            return False
        return self._exits.may_start(number, gone, loaded=loaded)

    def _loaded(self, number: int) -> bool:
        """Return whether the newest process of that number had its engines loaded, as LitServe noted."""
        key = f"{self._api.api_path.split('/')[-1]}_{number}"
        return bool(self.workers_setup_status.get(key) == WorkerSetupStatus.READY)

    def _launch_spares(self) -> None:
        """Start the spares once the workers are ready: loading must not take their time."""
        numbers = range(len(self.inference_workers))
        deadline = time.monotonic() + _SPARES_AFTER
        try:
            while time.monotonic() < deadline and not self._keeper.is_set():
                if all(self._loaded(number) for number in numbers):
                    break
                time.sleep(_MONITOR_SECONDS)
            for device in self._spares:
                if self._keeper.is_set():
                    return
                number = len(self.inference_workers)
                self.devices = [*self.devices, device]
                self.inference_workers.append(self._launch(self._api, number))
        except (OSError, EOFError) as exc:
            logger.warning("no spare worker could be started: {}", exc)

    def _init_manager(self, num_api_servers: int) -> Any:
        with self.ending.tying():
            manager = super()._init_manager(num_api_servers)
        self._keeper = self._shutdown_event = Keeper(self.ending, manager._process, self._companion)
        return manager

    def _start_server(self, *args: Any, **kwargs: Any) -> dict[int, Any]:
        servers: dict[int, Any] = {}

        def start() -> Any:
            # The same mapping each time: LitServe ends at last what stands in it.
            with self.ending.tying():
                servers.update(super(FleetServer, self)._start_server(*args, **kwargs))
            return servers[0]

        self._keeper.keep(start(), start)
        # Not before: no thread may run when the first API process is forked.
        if self._spares:
            threading.Thread(target=self._launch_spares, name="spares", daemon=True).start()
        return servers
