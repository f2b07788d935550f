"""The LitServe server of the fleet: devices set by hand, API process and workers replaced when they die.

Uses these semi-private parts of litserve 0.2.19, held by one contract test: `LitServer.devices`, `lifespan`,
`monitor_internal`, `uvicorn_graceful_timeout`, `verify_worker_status`, `_init_manager`, `_start_server`,
`inference_workers`, `launch_single_inference_worker`, `_shutdown_event`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import litserve as ls
from fastapi import FastAPI
from loguru import logger
from starlette.formparsers import MultiPartParser

from docfleet.host.keeper import Keeper
from docfleet.host.shutdown import Ending, end_children
from docfleet.process.groups import kill_group
from docfleet.web.pacing import Pacing
from docfleet.web.problems import install_error_handlers

#: What runs in the API process from its start to its end.
ApiLife = Callable[[FastAPI], AbstractAsyncContextManager[None]]

#: Seconds after which a dead worker is noticed and started again.
_MONITOR_SECONDS = 0.25
#: Starlette's own bound, which litserve lifts for the whole process when it is imported.
_SPOOL_BYTES = 1024 * 1024


class FleetServer(ls.LitServer):  # type: ignore[misc]
    """Hosts one worker process for each planned device."""

    def __init__(self, lit_api: ls.LitAPI, *, devices: Sequence[str], api_life: ApiLife, grace_seconds: float) -> None:
        # "cpu" keeps LitServe from looking for accelerators by importing torch in the main process.
        super().__init__(
            lit_api, accelerator="cpu", workers_per_device=1, timeout=False, restart_workers=True, track_requests=False
        )
        self.devices = [[device] for device in devices]
        self.monitor_internal = _MONITOR_SECONDS
        self.uvicorn_graceful_timeout = grace_seconds
        self.ending = Ending()
        self._api_life = api_life
        install_error_handlers(self.app)
        self.app.add_middleware(Pacing)
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
            end_children([worker.pid for worker in getattr(self, "inference_workers", []) if worker.pid])
        return self.ending.status

    def launch_single_inference_worker(self, lit_api: ls.LitAPI, worker_id: int) -> Any:
        """Start a worker in the place of one that ended, whose children may still run."""
        # There is one API, so the worker's number is its place in the list.
        gone = self.inference_workers[worker_id]
        if gone.pid is not None:
            kill_group(gone.pid)
        try:
            return super().launch_single_inference_worker(lit_api, worker_id)
        except OSError as exc:
            # Killed before it had read what it is to do, or too many processes. An exception would end LitServe's
            # monitor, and no worker would ever be started again; the dead one in its place is tried at the next look.
            logger.warning("worker {} could not be started and is tried again: {}", worker_id, exc)
            return gone

    def _init_manager(self, num_api_servers: int) -> Any:
        with self.ending.tying():
            manager = super()._init_manager(num_api_servers)
        self._keeper = self._shutdown_event = Keeper(self.ending, manager._process)
        return manager

    def _start_server(self, *args: Any, **kwargs: Any) -> dict[int, Any]:
        servers: dict[int, Any] = {}

        def start() -> Any:
            # The same mapping each time: LitServe ends at last what stands in it.
            with self.ending.tying():
                servers.update(super(FleetServer, self)._start_server(*args, **kwargs))
            return servers[0]

        self._keeper.keep(start(), start)
        return servers
