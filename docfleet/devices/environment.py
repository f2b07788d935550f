"""The environment of one worker: pinned to its device, with its share of memory and threads.

Pinning by the visible-devices variable is what holds: MinerU's table sessions, vLLM and llama.cpp take the first
device they see, whatever MINERU_DEVICE_MODE says. So a worker sees one device, and calls it number 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from docfleet.devices import cuda, npu, xpu
from docfleet.devices.records import Accelerator, Kind

DEVICE_MODE = "MINERU_DEVICE_MODE"
DEVICE_MEMORY = "MINERU_VIRTUAL_VRAM_SIZE"
#: Every numerical library has its own name for the same number.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MINERU_INTRA_OP_NUM_THREADS")
#: Recognition renders through MinerU, tier flash through its parsing library: two names, one pool each.
RENDER_PROCESSES = ("MINERU_PDF_RENDER_THREADS", "DOCVORTEX_PDF_RENDER_THREADS")

#: What the plan sets unless the user did.
MANAGED = (DEVICE_MODE, DEVICE_MEMORY, *THREADS, *RENDER_PROCESSES)


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one worker gets."""

    threads: int
    render_processes: int
    #: Whole GB of the device's memory; None on the CPU or where unknown.
    memory_gb: int | None


def user_number(variables: Mapping[str, str], name: str) -> int | None:
    """Return a positive number that the user set, or None if there is none or it is none."""
    # OpenMP takes a list, one number for each level of nesting; the first is ours.
    text = variables.get(name, "").split(",")[0].strip()
    return int(text) if text.isdecimal() and int(text) > 0 else None


def unusable(variables: Mapping[str, str]) -> list[str]:
    """Return a sentence for each of the user's values that is not used because it is no positive number."""
    return [
        f"{name}={variables[name]} is not a positive number; the planned value is used instead."
        for name in (DEVICE_MEMORY, *THREADS, *RENDER_PROCESSES)
        if name in variables and user_number(variables, name) is None
    ]


def environment(device: Accelerator | None, share: Share, variables: Mapping[str, str]) -> dict[str, str]:
    """Return all variables of a worker on `device` (None: the CPU), the user's own values among them."""
    planned = _pinned(device)
    if device is not None and share.memory_gb is not None:
        planned[DEVICE_MEMORY] = str(share.memory_gb)
    planned |= dict.fromkeys(THREADS, str(share.threads))
    planned |= dict.fromkeys(RENDER_PROCESSES, str(share.render_processes))
    for name in (DEVICE_MEMORY, *THREADS, *RENDER_PROCESSES):
        if user_number(variables, name) is not None:
            planned[name] = variables[name]
    return planned


def _pinned(device: Accelerator | None) -> dict[str, str]:
    if device is None:
        # Else tables would go to the first card all the same. -1 hides on every system; an empty text not on all.
        return {DEVICE_MODE: "cpu", cuda.VISIBLE: "-1"}
    if device.kind is Kind.CUDA:
        # Numbers mean the same cards to CUDA as to NVML only in bus order.
        return {DEVICE_MODE: "cuda:0", cuda.VISIBLE: device.pin, cuda.ORDER: cuda.BUS_ORDER}
    if device.kind is Kind.NPU:
        return {DEVICE_MODE: "npu:0", npu.VISIBLE: device.pin, cuda.VISIBLE: "-1"}
    if device.kind is Kind.XPU:
        if not device.pin:
            return {DEVICE_MODE: device.device, cuda.VISIBLE: "-1"}
        return {DEVICE_MODE: "xpu:0", xpu.VISIBLE: device.pin, cuda.VISIBLE: "-1"}
    return {DEVICE_MODE: "mps"}
