"""Which weights a fleet needs, of workers on cards and on the CPU, and for whom a folder of them is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from docfleet.devices import Accelerator, Cpu, Kind, Machine, Memory
from docfleet.devices.records import GIB
from docfleet.files import DataFolder
from docfleet.models.backends import TORCH_DISTRIBUTIONS, Backend, backend_for, backends_for
from docfleet.models.records import ModelSource, Source
from docfleet.models.weights import missing_weights
from docfleet.planning import Fleet, assemble_fleet, lacking
from docfleet.settings import resolve
from tests.weights_folder import fill

WITH_TORCH = dict.fromkeys((*TORCH_DISTRIBUTIONS, "mineru"), "1.0")
ONNX, TORCH = Backend.ONNX, Backend.TORCH


@pytest.fixture(autouse=True)
def _nobodys_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINERU_MODEL_SMALL_BACKEND", raising=False)


def fleet(tmp_path: Path, devices: str, name: Source, versions: dict[str, str] = WITH_TORCH) -> Fleet:
    cards = tuple(
        Accelerator(kind=Kind.CUDA, index=index, name="card", memory_total=24 * GIB, memory_free=24 * GIB)
        for index in range(2)
    )
    machine = Machine(
        cpu=Cpu(logical=16, affinity=16, allowed="0-15"),
        memory=Memory(total=64 * GIB, available=60 * GIB),
        accelerators=cards,
        versions=versions,
    )
    source = ModelSource(name=name, reason="a test", models_dir=tmp_path / "models", home=tmp_path / "home")
    settings = resolve({"devices": devices}, {}).settings
    return assemble_fleet(settings, DataFolder(tmp_path), source=source, machine=machine)


@pytest.mark.parametrize(
    ("devices", "families", "backends"),
    [
        ("cuda:0,cpu", ("cuda", "cpu"), (ONNX, TORCH)),
        ("cpu,cuda:1", ("cuda", "cpu"), (ONNX, TORCH)),
        ("cuda:0,cuda:1", ("cuda",), (TORCH,)),
        ("cpu", ("cpu",), (ONNX,)),
    ],
)
def test_what_all_workers_need_together_is_ordered_at_once(
    tmp_path: Path, devices: str, families: tuple[str, ...], backends: tuple[Backend, ...]
) -> None:
    planned = fleet(tmp_path, devices, Source.HUGGINGFACE)
    assert planned.fetch is not None
    assert planned.fetch.devices == families
    assert planned.fetch.backends == ()
    assert planned.backends == backends
    assert fleet(tmp_path, devices, Source.HUGGINGFACE, {"torch": "2.8", "mineru": "4.0"}).backends == (ONNX,)


def test_a_kind_of_models_that_was_chosen_is_everybodys() -> None:
    assert backend_for("cpu", {}, "torch") is TORCH
    assert backends_for(["cuda:0", "cpu"], WITH_TORCH, {"MINERU_MODEL_SMALL_BACKEND": "onnx"}) == (ONNX,)
    assert backends_for(["cuda:0", "cpu"], WITH_TORCH, {"MINERU_MODEL_SMALL_BACKEND": "auto"}) == (ONNX, TORCH)


def test_a_folder_is_whole_for_those_workers_whose_kind_it_holds(tmp_path: Path) -> None:
    folder = tmp_path
    assert "holds no weights" in missing_weights(folder, [ONNX, TORCH])
    fill(folder, ONNX.repository)
    assert missing_weights(folder) == missing_weights(folder, [ONNX]) == ""
    for backends in ([TORCH], [ONNX, TORCH]):
        assert missing_weights(folder, backends) == (
            f"{folder} lacks MinerU-4_models_torch, which workers on accelerators with PyTorch load"
        )
    source = {"models_dir": str(folder), "reason": "it is offline"}
    assert lacking(source, "basic", [ONNX]) == ""
    assert "nothing can be fetched: it is offline. " in lacking(source, "basic", [TORCH])
    fill(folder, TORCH.repository)
    assert missing_weights(folder, [ONNX, TORCH]) == lacking(source, "auto", [ONNX, TORCH]) == ""
    (folder / TORCH.repository / "Table/unet.onnx").unlink()
    (folder / ONNX.repository / "Table/unet.onnx").unlink()
    assert missing_weights(folder, [ONNX, TORCH]).count("lacks 1 of") == 2


def test_an_offline_fleet_says_whose_weights_are_not_in_its_folder(tmp_path: Path) -> None:
    fill(tmp_path / "models", ONNX.repository)

    def said(devices: str) -> list[str]:
        told = fleet(tmp_path, devices, Source.LOCAL).facts["warnings"]
        return [warning for warning in told if "tier basic" in warning]

    assert said("cpu") == []
    (warning,) = said("cuda:0,cpu")
    assert "lacks MinerU-4_models_torch" in warning
    assert "--prefetch-backend both" in warning
    assert "or set MINERU_MODEL_SMALL_BACKEND=onnx" in warning
    assert "--prefetch-backend torch" in said("cuda")[0]
    fill(tmp_path / "models", TORCH.repository)
    assert said("cuda:0,cpu") == []
