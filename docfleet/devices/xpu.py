"""Intel graphics devices: what PyTorch finds on them, within what ZE_AFFINITY_MASK leaves.

PyTorch is asked only where the kernel shows such a device and the installed version is made for it: loading it takes
seconds. Level Zero, Intel's driver, reads ZE_AFFINITY_MASK itself and counts what is left from 0
(https://oneapi-src.github.io/level-zero-spec/level-zero/latest/core/PROG.html, "Affinity Mask").
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from docfleet.devices.child import Child, Reply
from docfleet.devices.records import Accelerator, Kind

VISIBLE = "ZE_AFFINITY_MASK"
#: -P keeps this folder off the path, where its module names would hide others.
COMMAND = (sys.executable, "-P", str(Path(__file__).with_name("xpu_torch.py")))

_INTEL = "0x8086"
#: First byte of a PCI class: a display controller.
_DISPLAY = "0x03"


def start(timeout: float, versions: Mapping[str, str], root: Path = Path("/")) -> Child | str:
    """Start looking, or return why there is nothing to look for.

    Args:
        timeout: seconds.
        versions: of what is installed, by distribution.
        root: where `sys` lies.
    """
    if not _on_the_bus(root):
        return "no Intel graphics device is on this machine's bus"
    torch = versions.get("torch")
    if torch is None or "+xpu" not in torch:
        have = "PyTorch is not installed" if torch is None else f"the installed PyTorch ({torch}) is not made for it"
        return f"an Intel graphics device is here, but {have}; install torch from the index that Intel's guide names"
    return Child(COMMAND, timeout)


def read(reply: Reply, environ: Mapping[str, str]) -> tuple[list[Accelerator], str]:
    """Return the visible devices in Level Zero's order, and what is to be said about them (empty: nothing)."""
    if reply.failure:
        return [], f"asking PyTorch failed: {reply.failure}"
    try:
        facts = json.loads(reply.output.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return [], "asking PyTorch failed: its answer cannot be read"
    if "failure" in facts:
        return [], str(facts["failure"])
    devices, mask = facts["devices"], environ.get(VISIBLE, "").strip()
    entries = list(dict.fromkeys(entry.strip() for entry in mask.split(","))) if mask else []
    # What the mask names that is not there, or names as a whole and is shown in parts, makes them differ.
    known = not entries or len(entries) == len(devices)
    found = [
        Accelerator(
            kind=Kind.XPU,
            index=index,
            name=str(device["name"]),
            pin=(entries[index] if entries else str(index)) if known else "",
            memory_total=device["memory_total"],
            memory_free=device["memory_free"],
            blocked="" if known else f"{VISIBLE}={mask} shows {len(devices)} device(s); name each of them in it",
        )
        for index, device in enumerate(devices)
    ]
    return found, f"{VISIBLE}={mask} is set" if entries else ""


def _on_the_bus(root: Path) -> bool:
    for folder in sorted((root / "sys/bus/pci/devices").glob("*")):
        try:
            vendor = (folder / "vendor").read_text(encoding="ascii").strip()
            kind = (folder / "class").read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        if vendor == _INTEL and kind.startswith(_DISPLAY):
            return True
    return False
