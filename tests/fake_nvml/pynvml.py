"""Stands in for nvidia-ml-py where its folder is first on PYTHONPATH: cards as the file FAKE_NVML describes them, now.

The file is JSON, read at each question: {"cards": [{"total": MiB, "free": MiB, ...}], "fault": "hang"}.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

NVML_ERROR_LIBRARY_NOT_FOUND, NVML_ERROR_DRIVER_NOT_LOADED, NVML_TEMPERATURE_GPU = 12, 9, 0
MIB = 1024**2


class NVMLError(Exception):
    value = 999


class NVMLLibraryMismatchError(Exception):
    pass


def _state() -> dict[str, Any]:
    state: dict[str, Any] = json.loads(Path(os.environ["FAKE_NVML"]).read_text(encoding="utf-8"))
    fault = state.get("fault")
    if fault == "hang":
        time.sleep(600)
    if fault == "die":
        os._exit(5)
    if fault == "lost":
        raise NVMLError("GPU is lost")
    return state


def nvmlInit() -> None:
    _state()


def nvmlShutdown() -> None:
    pass


def nvmlSystemGetDriverVersion() -> str:
    return "570.1"


def nvmlDeviceGetCount() -> int:
    return len(_state()["cards"])


def nvmlDeviceGetHandleByIndex(index: int) -> dict[str, Any]:
    return {**_state()["cards"][index], "index": index}


def nvmlDeviceGetUUID(card: dict[str, Any]) -> str:
    return f"GPU-{card['index']}"


def nvmlDeviceGetName(card: dict[str, Any]) -> str:
    return str(card.get("name", "NVIDIA Fake"))


def nvmlDeviceGetMemoryInfo(card: dict[str, Any]) -> Any:
    return SimpleNamespace(total=card["total"] * MIB, free=card["free"] * MIB)


def nvmlDeviceGetPciInfo(card: dict[str, Any]) -> Any:
    return SimpleNamespace(busId=f"00000000:0{card['index']}:00.0")


def nvmlDeviceGetCudaComputeCapability(card: dict[str, Any]) -> tuple[int, int]:
    return (9, 0)


def nvmlDeviceGetMigMode(card: dict[str, Any]) -> tuple[int, int]:
    return (0, 0)


def nvmlDeviceGetMaxMigDeviceCount(card: dict[str, Any]) -> int:
    return 0


def nvmlDeviceGetMigDeviceHandleByIndex(card: dict[str, Any], place: int) -> Any:
    raise NVMLError("none")


def nvmlDeviceGetComputeRunningProcesses(card: dict[str, Any]) -> list[Any]:
    held = card.get("holders", [])
    return [SimpleNamespace(pid=pid, usedGpuMemory=None if size is None else size * MIB) for pid, size in held]


def nvmlDeviceGetUtilizationRates(card: dict[str, Any]) -> Any:
    return SimpleNamespace(gpu=card.get("load", 0))


def nvmlDeviceGetTemperature(card: dict[str, Any], sensor: int) -> int:
    if "temperature" not in card:
        raise NVMLError("not supported")
    return int(card["temperature"])


def nvmlDeviceGetPowerUsage(card: dict[str, Any]) -> int:
    return int(card.get("watts", 50) * 1000)
