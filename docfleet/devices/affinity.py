"""Which cores are close to a card, and binding a worker to them.

On machines of several sockets (or several dies) memory that a far core has touched reaches the card the long way. The
kernel knows the near ones: `/sys/bus/pci/devices/<address>/local_cpulist`. A worker is only ever narrowed: to cores
that this process may use anyway.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_MOST_CORES = 65536


def parse_cpus(text: str) -> frozenset[int]:
    """Return the cores of a list as the kernel writes it ("0-3,8,10-11"); what is none is left out."""
    cores: set[int] = set()
    for part in text.strip().split(","):
        found = _RANGE.fullmatch(part.strip())
        if found:
            first, last = int(found[1]), int(found[2] or found[1])
            if last < _MOST_CORES:
                cores.update(range(first, last + 1))
    return frozenset(cores)


def format_cpus(cores: Iterable[int]) -> str:
    """Return the list as the kernel writes it."""
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and core == runs[-1][1] + 1:
            runs[-1][1] = core
        else:
            runs.append([core, core])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def near_cpus(bus: str, root: Path = Path("/")) -> str:
    """Return the cores close to the device at a PCI address, or an empty text where the kernel does not tell.

    Args:
        bus: as drivers tell it: "00000000:C1:00.0", "0000:c1:00.0".
        root: where `sys` lies.
    """
    found = re.fullmatch(r"([0-9a-f]{4,8}):([0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])", bus.strip().lower())
    if found is None:
        return ""
    folder = root / "sys/bus/pci/devices" / f"{found[1][-4:]}:{found[2]}"
    try:
        # -1: the machine has one memory for all, or firmware that says nothing; the list is then worth nothing.
        if int((folder / "numa_node").read_text(encoding="ascii")) < 0:
            return ""
        return format_cpus(parse_cpus((folder / "local_cpulist").read_text(encoding="ascii")))
    except (OSError, ValueError):
        return ""


def bind(cpus: str) -> None:
    """Let this process run on those of the cores that it may use already; on all of these if there are none.

    Threads and children that it starts later are bound alike. Does nothing where the system has no affinity.
    """
    wanted = parse_cpus(cpus)
    if wanted and hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            near = wanted & os.sched_getaffinity(0)
            if near:
                os.sched_setaffinity(0, near)
