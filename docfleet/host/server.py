"""The LitServe server of the fleet: devices set by hand, one API process, workers restarted when they die.

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
from starlette.formparsers import MultiPartParser

from docfleet.host.shutdown import Ending, end_workers, watch_children
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
        on_exit: Callable[[BaseProcess], None] = lambda process: None,
    ) -> None:
        """Make the server; nothing is started.

        Args:
            lit_api: what each worker process runs.
            devices: one for each worker of the plan.
            spares: one for each spare process, which are started once the workers are ready.
            api_life: what the API process runs.
            grace_seconds: that requests get to end at shutdown.
            on_exit: called with each worker process that has ended, before another is started in its place.
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
        self._on_exit = on_exit
        install_error_handlers(self.app)
        MultiPartParser.spool_max_size = _SPOOL_BYTES

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Run the API process's own life inside LitServe's."""
        async with super().lifespan(app), self._api_life(app):
            yield

    def verify_worker_status(self) -> None:
        """Do not wait: the doors open at once and `/readyz` tells. LitServe would wait for ever if all crash."""

    def launch_single_inference_worker(self, lit_api: ls.LitAPI, worker_id: int) -> BaseProcess:
        """Start the process of a number, again or (a spare) for the first time."""
        if worker_id < len(self.inference_workers):
            self._on_exit(self.inference_workers[worker_id])
        started: BaseProcess = super().launch_single_inference_worker(lit_api, worker_id)
        return started

    def _launch_spares(self) -> None:
        """Start the spares once the workers are ready: loading must not take their time."""
        keys = [f"{self._api.api_path.split('/')[-1]}_{number}" for number in range(len(self.inference_workers))]
        deadline = time.monotonic() + _SPARES_AFTER
        while not self._shutdown_event.wait(_MONITOR_SECONDS):
            ready = all(self.workers_setup_status.get(key) == WorkerSetupStatus.READY for key in keys)
            if ready or time.monotonic() > deadline:
                break
        for device in self._spares:
            if self._shutdown_event.is_set():
                return
            number = len(self.inference_workers)
            self.devices = [*self.devices, device]
            self.inference_workers.append(self.launch_single_inference_worker(self._api, number))

    def serve(self, *, host: str, port: int) -> int:
        """Run until a signal or until the API process ends. Return the exit status."""
        self.ending.install()
        try:
            self.run(
                host=host,
                port=port,
                num_api_servers=1,
                log_level="warning",
                generate_client_file=False,
                access_log=False,
            )
        except KeyboardInterrupt:
            pass
        finally:
            end_workers([worker.pid for worker in getattr(self, "inference_workers", []) if worker.pid])
        return self.ending.status

    def _init_manager(self, num_api_servers: int) -> Any:
        with self.ending.tying():
            return super()._init_manager(num_api_servers)

    def _start_server(self, *args: Any, **kwargs: Any) -> dict[int, Any]:
        with self.ending.tying():
            servers: dict[int, Any] = super()._start_server(*args, **kwargs)
        watch_children(servers[0], self.ending)
        # Not before: no thread may run when the API process is forked.
        if self._spares:
            threading.Thread(target=self._launch_spares, name="spares", daemon=True).start()
        return servers
