"""Weights come from a hub: slowly, in pieces, wrong, and in the end whole; once, however many ask. Real libraries."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from docfleet.engine.mineru.orders import FetchOrders
from docfleet.models.backends import TORCH_DISTRIBUTIONS, Backend, backends_for
from docfleet.models.progress import Arrivals, Fetching, read_status, write_status
from docfleet.models.weights import REPOSITORIES, missing_weights
from tests import tiny_models
from tests.integration.hub_house import closed_port
from tests.integration.weights_hub import REPOSITORY, WeightsHub, weights_hub
from tests.mineru_support import files_of
from tests.serving import wait_until

ROOT = Path(__file__).resolve().parents[2]
TORCH = Backend.TORCH.repository
SOURCES = ("huggingface", "modelscope")
LARGE = "MFR/pp_formulanet_plus_m/PP-FormulaNet_plus-M.onnx"
SMALL = "Layout/PP-DocLayoutV2/inference.yml"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[WeightsHub]:
    folder = tiny_models.make(tmp_path / "offered")
    # Hugging Face's library writes what came in pieces of 10 MiB.
    (folder / LARGE).write_bytes(os.urandom(1 << 20) * 24)
    (folder / "README.md").write_text("Nobody needs this.")
    with weights_hub(folder) as house:
        yield house


def orders(models: Path, hub: WeightsHub, *sources: str, **more: str) -> FetchOrders:
    environment = hub.environment(sources[0]) | {
        "MINERU_MODEL_BASE_DIR": str(models),
        "MINERU_HOME": str(models / "home"),
    }
    environment |= PATIENCE | more
    return FetchOrders(sources=sources, models_dir=models, tier="basic", environment=environment, pause=0.05)


def start(models: Path, hub: WeightsHub, *sources: str, **more: str) -> subprocess.Popen[str]:
    return orders(models, hub, *sources, **more).start()


PATIENCE = {"HF_HUB_DOWNLOAD_TIMEOUT": "5", "HF_HUB_OFFLINE": "0"}


def wait(process: subprocess.Popen[str]) -> int:
    with process:
        return process.wait(timeout=120)


def size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def is_whole(models: Path, hub: WeightsHub) -> None:
    fetched = {name: content for name, content in files_of(models / REPOSITORY).items() if ".mineru" not in name}
    offered = files_of(hub.folder)
    del offered["README.md"]
    assert fetched == offered
    assert missing_weights(models) == ""
    # Nothing is left over of the way here.
    assert not list((models / ".docfleet-fetch").glob(f"{REPOSITORY}/*"))


@pytest.mark.parametrize("source", SOURCES)
def test_a_transfer_that_breaks_off_goes_on_there_and_wrong_bytes_are_fetched_again(
    tmp_path: Path, hub: WeightsHub, source: str
) -> None:
    hub.break_at, hub.slow = 21 << 20, 0.001
    hub.faults = {LARGE: ["break", "corrupt"], SMALL: ["corrupt", "503"]}
    models = tmp_path / "models"
    arrivals = Arrivals(models)
    assert wait(start(models, hub, source)) == 0
    is_whole(models, hub)
    assert hub.resumed[LARGE] >= 10 << 20
    assert hub.transfers["README.md"] == 0
    assert not any(hub.faults.values())
    assert arrivals.any()
    status = read_status(models)
    assert status is not None
    assert status.state == "done"

    # What is here is not fetched again, and nobody is asked for it.
    before = hub.transfers.copy()
    assert wait(start(models, hub, source, HF_ENDPOINT=closed_port(), MODELSCOPE_ENDPOINT=closed_port())) == 0
    assert hub.transfers == before


@pytest.mark.parametrize(("source", "crowd"), [("huggingface", 8), ("modelscope", 2)])
def test_many_that_start_at_once_fetch_each_file_once_and_go_on_where_one_was_killed(
    tmp_path: Path, hub: WeightsHub, source: str, crowd: int
) -> None:
    models = tmp_path / "models"
    hub.hold_at = 21 << 20
    first = start(models, hub, source)
    staged = models / ".docfleet-fetch" / REPOSITORY
    wait_until(lambda: any(size(path) > 10 << 20 for path in staged.rglob("*")), seconds=60)
    assert not (models / REPOSITORY).exists()
    status = read_status(models)
    assert status is not None
    assert (status.state, status.repository) == ("fetching", REPOSITORY)
    assert "of 25 MB" in str(status)
    first.kill()
    first.wait()

    hub.transfers.clear()
    hub.go.set()
    processes = [start(models, hub, source) for _ in range(crowd)]
    assert [wait(process) for process in processes] == [0] * crowd
    is_whole(models, hub)
    assert set(hub.transfers.values()) == {1}
    assert hub.resumed[LARGE] >= 10 << 20


def test_files_that_lie_there_already_are_completed(tmp_path: Path, hub: WeightsHub) -> None:
    models = tmp_path / "models"
    shutil.copytree(hub.folder, models / REPOSITORY, ignore=shutil.ignore_patterns("README.md"))
    (models / REPOSITORY / LARGE).unlink()
    assert wait(start(models, hub, "modelscope")) == 0
    is_whole(models, hub)


def test_a_fetch_ends_when_whoever_started_it_is_gone(tmp_path: Path, hub: WeightsHub) -> None:
    hub.hold_at = 0
    process = start(tmp_path / "models", hub, "huggingface")
    wait_until(lambda: hub.transfers, seconds=60)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=20) == 1


def offer_torch(hub: WeightsHub, folder: Path) -> None:
    """Let the hub hold the other kind of small models, too."""
    for part in REPOSITORIES[TORCH]:
        path = folder / part if Path(part).suffix else folder / part / "model.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(3000))
    hub.folders[TORCH] = folder


def test_both_kinds_of_small_models_are_fetched_and_one_that_cannot_be_had_keeps_the_other_not_from_coming(
    tmp_path: Path, hub: WeightsHub
) -> None:
    models = tmp_path / "models"
    both = replace(orders(models, hub, "huggingface"), backends=("torch", "onnx"))
    assert wait(both.start()) == 1
    is_whole(models, hub)
    status = read_status(models)
    assert status is not None
    assert TORCH in status.error
    offer_torch(hub, tmp_path / "torch")
    assert wait(both.start()) == 0
    assert missing_weights(models, list(Backend)) == ""


def test_the_repositories_of_all_devices_are_those_that_mineru_loads_there(tmp_path: Path) -> None:
    # Nobody imports them: MinerU's rule looks whether they are there.
    for name in TORCH_DISTRIBUTIONS:
        (tmp_path / "packages" / name).mkdir(parents=True)
        (tmp_path / "packages" / name / "__init__.py").touch()
    program = (
        "import json, sys\nfrom docfleet.engine.mineru.prefetch import wanted_repositories\n"
        "cases = (['cpu'], ['cuda'], ['cuda', 'cpu'], ['cpu', 'npu', 'cuda'], ['mps'])\n"
        "print(json.dumps([[repo.name for repo in wanted_repositories('basic', case)] for case in cases]))\n"
    )

    def told(*more: str) -> list[list[str]]:
        path = os.pathsep.join([*more, str(ROOT)])
        base = {name: value for name, value in os.environ.items() if not name.startswith("MINERU_")}
        environment = base | {"PYTHONPATH": path, "MINERU_HOME": str(tmp_path)}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        names: list[list[str]] = json.loads(done.stdout)
        return names

    def by_our_rule(installed: Sequence[str]) -> list[list[str]]:
        cases = (["cpu"], ["cuda:0"], ["cuda:1", "cpu"], ["cpu", "npu:0", "cuda:0"], ["mps"])
        return [[backend.repository for backend in backends_for(case, installed, {})] for case in cases]

    with_torch = told(str(tmp_path / "packages"))
    assert with_torch == [[REPOSITORY], [TORCH], [TORCH, REPOSITORY], [REPOSITORY, TORCH], [TORCH]]
    assert [sorted(names) for names in with_torch] == by_our_rule(TORCH_DISTRIBUTIONS)
    shutil.rmtree(tmp_path / "packages" / "torch")
    if importlib.util.find_spec("torch") is None:
        assert told(str(tmp_path / "packages")) == by_our_rule(TORCH_DISTRIBUTIONS[1:])


def test_the_command_fetches_for_an_offline_machine_or_says_why_not(tmp_path: Path, hub: WeightsHub) -> None:
    def prefetch(*more: str, **environment: str) -> subprocess.CompletedProcess[str]:
        base = {name: value for name, value in os.environ.items() if not name.startswith(("MINERU_", "HF_"))}
        folders = ("--data-dir", str(tmp_path / "data"), "--models-dir", str(tmp_path / "models"))
        return subprocess.run(
            [sys.executable, "server.py", "--prefetch", "--tier", "basic", *folders, *more],
            cwd=ROOT,
            env=base | PATIENCE | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    hub.faults = {SMALL: ["corrupt"] * 3}
    failed = prefetch(**hub.environment("huggingface"))
    assert failed.returncode == 1
    assert f"{SMALL} cannot be fetched (ValueError: its checksum is wrong)" in failed.stderr
    assert not (tmp_path / "models" / REPOSITORY).exists()
    # Not set at all: the hub is found by asking.
    done = prefetch(**hub.environment("auto"))
    assert done.returncode == 0, done.stderr
    is_whole(tmp_path / "models", hub)
    assert "weights for workers on the CPU or without PyTorch are in" in done.stderr
    assert prefetch(MINERU_MODEL_SOURCE="local").returncode == 0
    other = prefetch("--prefetch-backend", "torch", MINERU_MODEL_SOURCE="local")
    assert other.returncode == 1
    assert f"lacks {TORCH}, which workers on accelerators with PyTorch load" in other.stderr
    offer_torch(hub, tmp_path / "torch")
    other = prefetch("--prefetch-backend", "torch", **hub.environment("huggingface"))
    assert other.returncode == 0, other.stderr
    assert "weights for workers on accelerators with PyTorch are in" in other.stderr
    assert prefetch("--prefetch-backend", "both", MINERU_MODEL_SOURCE="local").returncode == 0
    (tmp_path / "models" / REPOSITORY / SMALL).unlink()
    refused = prefetch(MINERU_MODEL_SOURCE="local")
    assert refused.returncode == 1
    assert "nothing can be fetched" in refused.stderr
    assert SMALL in refused.stderr


def test_a_hub_that_answers_and_does_not_deliver_leads_to_the_next(tmp_path: Path, hub: WeightsHub) -> None:
    with weights_hub(tmp_path / "nothing") as empty:
        models = tmp_path / "models"
        assert wait(start(models, hub, "huggingface", "modelscope", HF_ENDPOINT=empty.url)) == 0
        is_whole(models, hub)


def test_an_arrival_that_was_not_told_because_of_a_kill_is_told_by_the_next(tmp_path: Path, hub: WeightsHub) -> None:
    models = tmp_path / "models"
    shutil.copytree(hub.folder, models / REPOSITORY)
    arrivals = Arrivals(models)
    write_status(models, Fetching(state="fetching", repository=REPOSITORY))
    assert wait(start(models, hub, "huggingface")) == 0
    assert arrivals.any()
    told = Arrivals(models)
    assert wait(start(models, hub, "huggingface")) == 0
    assert not told.any()


def test_whole_repositories_and_folders_get_the_marks_that_mineru_looks_for(tmp_path: Path, hub: WeightsHub) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom docfleet.models.fetching import Wanted, fetch\n"
        "from docfleet.models.records import Source\n"
        f"ids = {{Source.HUGGINGFACE: 'opendatalab/{REPOSITORY}'}}\n"
        "for name, paths in (('all', ()), ('some', ('OCR/paddleocr', 'Table/unet.onnx'))):\n"
        "    wanted = Wanted(name=name, ids=ids, paths=paths)\n"
        "    fetch(wanted, Source.HUGGINGFACE, Path(sys.argv[1]), lambda: False)\n"
    )
    environment = os.environ | hub.environment("huggingface") | PATIENCE
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, env=environment, check=True, timeout=120)
    offered = set(hub.files())
    assert set(files_of(tmp_path / "all")) == {*offered, ".mineru_complete"}
    some = {name for name in offered if name.startswith("OCR/") or name == "Table/unet.onnx"}
    assert set(files_of(tmp_path / "some")) == {*some, "OCR/paddleocr/.mineru_complete"}
