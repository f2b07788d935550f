"""The server: `python server.py`. Settings, model source, device plan, start, signals.

Light to import: worker processes and their render children import this module again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import litserve as ls
from loguru import logger

from docfleet import logs
from docfleet.commandline import parse_command_line
from docfleet.errors import ConfigurationError, DocfleetError
from docfleet.files import DataFolder
from docfleet.host.claim_loop import ClaimLoop, DoorSpec
from docfleet.process.files import raise_open_files
from docfleet.process.lifeline import tie_to_parent
from docfleet.records import Claim
from docfleet.settings import Settings
from docfleet.worker.assembly import AssembledWorker, WorkerPlan, assemble
from docfleet.worker.bench import Outcome, Work
from docfleet.worker.rounds import Rounds

if TYPE_CHECKING:
    from docfleet.planning import Fleet

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
            return prefetch(resolved.settings, wish.tier, wish.backend)
        return run(resolved.settings)
    except DocfleetError as exc:
        print(f"server.py: {exc.message}", file=sys.stderr)
        return 2


def run(settings: Settings) -> int:
    """Assemble the server from its settings and serve until a signal."""
    # Not at the top of the module: the workers' render children import it too, and need none of this.
    from docfleet.engine.registry import check_names
    from docfleet.host.address import check_address
    from docfleet.host.exits import Exits, begin_run
    from docfleet.host.life import ApiLife
    from docfleet.host.lock import hold_folder, one_life, say_stopped, was_killed
    from docfleet.host.server import FleetServer
    from docfleet.launch.companion import Companion
    from docfleet.launch.leftovers import end_last_run
    from docfleet.planning import announce

    raise_open_files()
    check_names(settings.engines)
    folder = open_folder(settings.data_dir)
    lock = hold_folder(folder.root)
    killed = was_killed(lock)
    # After the folder is free: until then the processes of a server that was killed may still hold the port.
    check_address(settings.host, settings.port)
    begin_run(folder.database)
    end_last_run(folder.vlm, wanted=settings.vlm_servers is not None)
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
            killed=killed,
        ),
        grace_seconds=settings.grace_seconds,
        exits=Exits(folder.database, (*workers.slots, *workers.spares)),
        companion=None if fleet.launch is None else Companion(fleet.launch.orders),
    )
    server.ending.when_ordered(partial(say_stopped, lock))
    with one_life(lock):
        return server.serve(host=settings.host, port=settings.port, trusted_proxies=settings.trusted_proxies)


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
    from device_utils import detect
    from docfleet.launch.fleet import plan_launch
    from docfleet.planning import assemble_fleet, take_pool

    source = resolve_model_source(os.environ, home=folder.root / "mineru", models_dir=settings.models_dir)
    machine = detect()
    launch = plan_launch(settings, machine, folder.vlm, os.environ | source.environment())
    pool = take_pool(settings, folder, None if launch is None else launch.own)
    return assemble_fleet(settings, folder, source=source, machine=machine, pool=pool, launch=launch)


def prefetch(settings: Settings, tier: str, backend: str = "auto") -> int:
    """Fetch the weights of a tier and return the exit status: 0 if all are here, 1 if not.

    Args:
        settings: of the server that they are for.
        tier: a tier, or auto: the best that can run here.
        backend: onnx | torch | both, for workers elsewhere; auto: what the workers of this machine load.
    """
    from docfleet.models.backends import Backend
    from docfleet.planning import fetch_weights, lacking

    # Whatever shall read the VLM here: nothing is started.
    fleet = plan_fleet(settings.model_copy(update={"vlm_servers": None}), open_folder(settings.data_dir))
    named = {"auto": fleet.backends, "both": tuple(Backend)}
    backends = named[backend] if backend in named else (Backend(backend),)
    if fleet.fetch is not None:
        return 0 if fetch_weights(fleet.fetch, tier, backends, named=backend != "auto") else 1
    lack = lacking(fleet.facts["model_source"], tier, backends)
    if lack:
        print(f"server.py: {lack}", file=sys.stderr)
    return 1 if lack else 0


if __name__ == "__main__":
    sys.exit(main())
