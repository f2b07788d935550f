"""Ask PyTorch for Intel's devices and print them as JSON: a program of its own, and the only one that imports torch.

It runs as a child process (`python -P xpu_torch.py`): loading torch takes seconds and much memory, and a driver that is
asked in a process stays in it. So it imports nothing of Docfleet's.
"""

from __future__ import annotations

import json
from typing import Any


def read() -> dict[str, Any]:
    """Return {"devices": [{"name", "memory_total", "memory_free"}]}, or {"failure": why}. Memory in bytes or None."""
    try:
        import torch
    except ImportError as exc:
        return {"failure": f"PyTorch cannot be loaded ({exc})"}
    api: Any = getattr(torch, "xpu", None)
    if api is None or not api.is_available():
        return {"failure": "PyTorch finds no Intel device that it can compute on; see Intel's guide for its driver"}
    return {"devices": [_device(api, index) for index in range(api.device_count())]}


def _device(api: Any, index: int) -> dict[str, Any]:
    properties = api.get_device_properties(index)
    total = getattr(properties, "total_memory", None)
    try:
        free, total = api.mem_get_info(index)
    except Exception:
        # Older versions cannot tell, and neither can some drivers.
        free = None
    return {"name": properties.name, "memory_total": total, "memory_free": free}


if __name__ == "__main__":
    print(json.dumps(read()))  # noqa: T201
