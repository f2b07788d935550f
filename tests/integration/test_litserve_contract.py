"""What `docfleet.host` takes for granted of LitServe. A new version of it must pass this first."""

from __future__ import annotations

import inspect
from importlib.metadata import version
from pathlib import Path

import litserve as ls
from litserve.loops.base import LitLoop
from litserve.loops.loops import inference_worker
from starlette.formparsers import MultiPartParser

from docfleet.files import DataFolder
from docfleet.host.server import FleetServer
from docfleet.options import Tier
from docfleet.sharding.deadlines import Deadlines
from docfleet.worker.assembly import WorkerPlan
from server import MinerUAPI


def fleet(folder: DataFolder) -> FleetServer:
    plan = WorkerPlan(
        folder=folder,
        slots=(),
        engines=(),
        model_source="local",
        vlm_server_url=None,
        log_level="info",
        deadlines=Deadlines(60, dict.fromkeys(Tier, 20)),
        max_attempts=3,
    )
    return FleetServer(MinerUAPI(plan), devices=["npu:0", "npu:1", "cpu"], api_life=None, grace_seconds=3)  # type: ignore[arg-type]


def test_the_version_is_the_one_that_was_measured() -> None:
    assert version("litserve") == "0.2.19"


def test_devices_set_by_hand_give_one_worker_each(tmp_path: Path) -> None:
    server = fleet(DataFolder(tmp_path))
    assert server._inference_workers_config_for_api("/predict") == [["npu:0"], ["npu:1"], ["cpu"]]
    assert (server.restart_workers, server.timeout, server.monitor_internal) == (True, False, 0.25)


def test_the_doors_own_predict_and_litserve_owns_health(tmp_path: Path) -> None:
    server = fleet(DataFolder(tmp_path))
    paths = {getattr(route, "path", None) for route in server.app.routes}
    assert "/predict" not in paths
    assert "/health" in paths


def test_the_bound_that_litserve_lifts_from_form_parsing_is_back(tmp_path: Path) -> None:
    fleet(DataFolder(tmp_path))
    assert MultiPartParser.spool_max_size == 1024 * 1024


def test_the_loop_is_called_with_what_ours_expects() -> None:
    parameters = list(inspect.signature(LitLoop.__call__).parameters)
    assert parameters[:4] == ["self", "lit_api", "device", "worker_id"]
    source = inspect.getsource(inference_worker)
    assert source.index("LITSERVE_WORKER_ID") < source.index("lit_api.setup(device)") < source.index("loop(\n")


def test_the_parts_that_are_overridden_exist() -> None:
    for name in (
        "lifespan",
        "verify_worker_status",
        "_init_manager",
        "_start_server",
        "launch_single_inference_worker",
    ):
        assert callable(getattr(ls.LitServer, name)), name
    run, monitor = inspect.getsource(ls.LitServer.run), inspect.getsource(ls.LitServer._start_worker_monitoring)
    assert "self.inference_workers" in run
    assert "self._shutdown_event.wait()" in run
    # Processes that are added later are watched too, and started again by their number.
    assert "enumerate(self.inference_workers)" in monitor
    assert "self.launch_single_inference_worker(" in monitor
    assert list(inspect.signature(ls.LitServer.launch_single_inference_worker).parameters)[1:] == [
        "lit_api",
        "worker_id",
    ]
    assert "self.workers_setup_status[f" in inspect.getsource(ls.LitServer.launch_single_inference_worker)
    assert "self.verify_worker_status()" in inspect.getsource(ls.LitServer.run)
    assert "self._init_manager(" in inspect.getsource(ls.LitServer.run)
    assert "self._start_server(" in inspect.getsource(ls.LitServer.run)
    assert "self.uvicorn_graceful_timeout" in inspect.getsource(ls.LitServer._perform_graceful_shutdown)
    assert "self._shutdown_event.wait()" in inspect.getsource(ls.LitServer.run)
    assert "self._shutdown_event.is_set()" in inspect.getsource(ls.LitServer._start_worker_monitoring)
    assert "self.launch_single_inference_worker(" in inspect.getsource(ls.LitServer._start_worker_monitoring)
    # A restarted API process gets the same sockets, and the end of the server finds it in the same mapping.
    assert "uvicorn_workers.items()" in inspect.getsource(ls.LitServer._perform_graceful_shutdown)
