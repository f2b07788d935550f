"""Which of its two kinds of small models MinerU loads on a device: its own rule, told without importing it. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from enum import StrEnum

#: MinerU's variable for it: auto | onnx | torch.
BACKEND_VARIABLE = "MINERU_MODEL_SMALL_BACKEND"
#: Distributions that the PyTorch models need, all of them (mineru 4.0.12, `mineru.model.runtime.device`).
TORCH_DISTRIBUTIONS = ("torch", "torchvision", "transformers", "accelerate", "safetensors")


class Backend(StrEnum):
    """What runs the small models; each has a repository of weights of its own."""

    ONNX = "onnx"
    TORCH = "torch"

    @property
    def repository(self) -> str:
        """Name of the folder of its weights."""
        return f"MinerU-4_models_{self.value}"

    @property
    def workers(self) -> str:
        """For people: which workers load it."""
        return "on accelerators with PyTorch" if self is Backend.TORCH else "on the CPU or without PyTorch"


def backend_for(device: str, installed: Container[str], chosen: str = "") -> Backend:
    """Return what a worker loads.

    Args:
        device: the worker's: "cpu", "cuda:0", "mps".
        installed: distributions that are here, such as `Machine.versions`.
        chosen: value of `BACKEND_VARIABLE`. One that means nothing counts as auto: workers say what is wrong with it.
    """
    if chosen in (Backend.ONNX.value, Backend.TORCH.value):
        return Backend(chosen)
    complete = all(name in installed for name in TORCH_DISTRIBUTIONS)
    return Backend.TORCH if complete and kind_of(device) != "cpu" else Backend.ONNX


def backends_for(devices: Iterable[str], installed: Container[str], environ: Mapping[str, str]) -> tuple[Backend, ...]:
    """Return what the workers on these devices load together, each kind once, ONNX first."""
    chosen = environ.get(BACKEND_VARIABLE, "")
    needed = {backend_for(device, installed, chosen) for device in devices}
    return tuple(backend for backend in Backend if backend in needed)


def kind_of(device: str) -> str:
    """Return the family of a device: "cuda" of "cuda:1"."""
    return device.partition(":")[0]
