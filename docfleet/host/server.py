"""The LitServe server of the fleet: devices set by hand, one API process, workers restarted when they die.

Uses these semi-private parts of litserve 0.2.19, held by one contract test: `LitServer.devices`, `lifespan`,
`monitor_internal`, `uvicorn_graceful_timeout`, `verify_worker_status`, `_init_manager`, `_start_server`,
`inference_workers`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import litserve as ls
from fastapi import FastAPI
from starlette.formparsers import MultiPartParser

from docfleet.host.shutdown import Ending, end_stragglers, end_workers, watch_children
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
        MultiPartParser.spool_max_size = _SPOOL_BYTES

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Run the API process's own life inside LitServe's."""
        async with super().lifespan(app), self._api_life(app):
            yield

    def verify_worker_status(self) -> None:
        """Do not wait: the doors open at once and `/readyz` tells. LitServe would wait for ever if all crash."""

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
            end_stragglers()
        return self.ending.status

    def _init_manager(self, num_api_servers: int) -> Any:
        with self.ending.tying():
            return super()._init_manager(num_api_servers)

    def _start_server(self, *args: Any, **kwargs: Any) -> dict[int, Any]:
        with self.ending.tying():
            servers: dict[int, Any] = super()._start_server(*args, **kwargs)
        watch_children(servers[0], self.ending)
        return servers
