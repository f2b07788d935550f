"""Read NVIDIA's cards through NVML and print them as JSON: a program of its own, and the only one that knows NVML.

It runs as a child process (`python -P nvml.py`; with a number of seconds it goes on, a line each time), because NVML
calls block for ever on a card that fell off the bus, and because nothing of the driver shall stay in a process that
forks. So it imports nothing of Docfleet's.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any


def read() -> dict[str, Any]:
    """Return {"driver", "cards": [...]}, or {"failure": why}. Memory in bytes; None for what a card does not tell."""
    try:
        import pynvml
    except ImportError:
        return {"failure": "nvidia-ml-py is not installed"}
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as exc:
        return {"failure": _why(pynvml, exc)}
    try:
        cards = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                cards.append(_card(pynvml, index, pynvml.nvmlDeviceGetHandleByIndex(index)))
            except pynvml.NVMLError as exc:
                cards.append({"index": index, "failure": str(exc)})
        return {"driver": _ask(pynvml, pynvml.nvmlSystemGetDriverVersion), "cards": cards}
    except pynvml.NVMLError as exc:
        return {"failure": str(exc)}
    finally:
        pynvml.nvmlShutdown()


def _why(nvml: Any, exc: Any) -> str:
    if exc.value == nvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        return "no NVIDIA driver is installed (its library libnvidia-ml is not here)"
    if exc.value == nvml.NVML_ERROR_DRIVER_NOT_LOADED:
        return "the NVIDIA driver is installed but not loaded (no card, or its kernel module is missing)"
    return f"the NVIDIA driver does not answer: {exc}"


def _card(nvml: Any, index: int, handle: Any) -> dict[str, Any]:
    capability = _ask(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    pci = _ask(nvml, nvml.nvmlDeviceGetPciInfo, handle)
    mode = _ask(nvml, nvml.nvmlDeviceGetMigMode, handle)
    processes = _ask(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle)
    sliced = bool(mode and mode[0])
    return {
        "index": index,
        **_part(nvml, handle),
        "compute_capability": ".".join(map(str, capability)) if capability else "",
        "bus": _text(pci.busId) if pci else "",
        "processes": None if processes is None else len(processes),
        "holders": _holders(processes),
        **_load(nvml, handle),
        "mig": sliced,
        "slices": _slices(nvml, handle) if sliced else [],
    }


def _slices(nvml: Any, handle: Any) -> list[dict[str, Any]]:
    found = []
    for place in range(_ask(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        # Places are numbered whether they are taken or not.
        part = _ask(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, place)
        if part is not None:
            found.append(_part(nvml, part))
    return found


def _part(nvml: Any, handle: Any) -> dict[str, Any]:
    memory = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    return {
        "uuid": _text(_ask(nvml, nvml.nvmlDeviceGetUUID, handle)),
        "name": _text(_ask(nvml, nvml.nvmlDeviceGetName, handle)),
        "memory_total": memory.total if memory else None,
        "memory_free": memory.free if memory else None,
    }


def _load(nvml: Any, handle: Any) -> dict[str, Any]:
    """Percent, degrees Celsius, watts."""
    rates = _ask(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    power = _ask(nvml, nvml.nvmlDeviceGetPowerUsage, handle)
    return {
        "utilisation": rates.gpu if rates else None,
        "temperature": _ask(nvml, nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
        "power": None if power is None else power / 1000,
    }


def _holders(processes: Any) -> list[list[int | None]] | None:
    """Return [process, bytes] for each that computes on the card, by the numbers that the driver knows them by."""
    if processes is None:
        return None
    return [[process.pid, process.usedGpuMemory] for process in processes]


def _ask(nvml: Any, question: Callable[..., Any], *arguments: Any) -> Any:
    """Return the answer, or None: cards, drivers and containers differ in what they tell."""
    try:
        return question(*arguments)
    except (nvml.NVMLError, nvml.NVMLLibraryMismatchError):
        # The second is what the binding makes of a question that an older driver does not know.
        return None


def _text(value: Any) -> str:
    # Older bindings return bytes.
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")


def main(arguments: list[str]) -> None:
    """Print what `read` finds; with an argument again and again, so many seconds apart, until nobody reads it."""
    print(json.dumps(read()), flush=True)  # noqa: T201
    while arguments:
        time.sleep(float(arguments[0]))
        print(json.dumps(read()), flush=True)  # noqa: T201


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BrokenPipeError:
        # The server is gone.
        sys.stderr.close()
        sys.exit(1)
