"""What a worker needs, tier by tier: the one table that counts of workers, warnings and expectations come from.

Measured: main memory and seconds a page of flash and auto (embedded recognition of a scan) on one CPU core. All else
is an estimate, from the size of the weights and MinerU's published requirements, and is told as one (`measured`).
"""

from __future__ import annotations

from dataclasses import dataclass

from docfleet.devices.records import GIB, Accelerator
from docfleet.options import Tier

#: Main memory of all of the server but its workers, with room for its peaks.
SERVER_BYTES = int(0.5 * GIB)
#: Main memory of one worker on an accelerator: PyTorch and its libraries, weights on their way to the device.
ACCELERATOR_WORKER_BYTES = 3 * GIB


@dataclass(frozen=True, kw_only=True)
class Need:
    """Of one worker at one tier."""

    #: Main memory in bytes of a worker on the CPU at its peak, render children included.
    cpu_bytes: int
    #: Memory of the device, in whole GB, below which the tier is likely not to fit; 0: it uses none.
    device_gb: int
    #: Seconds that a page takes on one core, and on an accelerator.
    cpu_seconds: float
    device_seconds: float
    #: Whether the figures for the CPU were measured.
    measured: bool = False


#: Tier auto stands for the best that can run: on the CPU embedded recognition, on a device the weights of basic.
NEEDS = {
    Tier.FLASH: Need(cpu_bytes=int(0.35 * GIB), device_gb=0, cpu_seconds=0.15, device_seconds=0.15, measured=True),
    Tier.AUTO: Need(cpu_bytes=int(0.9 * GIB), device_gb=4, cpu_seconds=5.0, device_seconds=0.5, measured=True),
    Tier.BASIC: Need(cpu_bytes=int(2.5 * GIB), device_gb=4, cpu_seconds=10.5, device_seconds=0.5),
    Tier.STANDARD: Need(cpu_bytes=5 * GIB, device_gb=8, cpu_seconds=60.0, device_seconds=1.0),
    Tier.ADVANCED: Need(cpu_bytes=5 * GIB, device_gb=8, cpu_seconds=90.0, device_seconds=2.0),
}

#: Of a device's free memory this share may be planned with: drivers, fragments and other programs take the rest.
MARGIN = 0.8
#: Workers on one device, at most, where their number is found by itself: more keep no device busier.
MOST_AUTO = 4


def worker_bytes(target: Accelerator | None, tier: Tier) -> int:
    """Return the main memory in bytes that a worker on `target` (None: the CPU) needs."""
    if target is None or tier is Tier.FLASH:
        return NEEDS[tier].cpu_bytes
    return ACCELERATOR_WORKER_BYTES


def fitting(device: Accelerator, tier: Tier) -> int:
    """Return how often the tier's need fits into the free memory of the device with margin: 1 to `MOST_AUTO`.

    Where the device does not tell its memory, once.
    """
    held = holds(device, tier)
    return 1 if held is None else min(MOST_AUTO, held)


def holds(device: Accelerator, tier: Tier) -> int | None:
    """Return how many workers of the tier the free memory of the device holds with margin: 1 at least.

    None: nobody can tell, because the device does not tell its memory, or the tier uses none.
    """
    free = free_bytes(device)
    need = NEEDS[tier].device_gb * GIB
    return None if free is None or not need else max(1, int(free * MARGIN / need))


def free_bytes(device: Accelerator) -> int | None:
    """Return the free memory of the device, all of it where only that is known; None where nothing is."""
    return device.memory_free if device.memory_free is not None else device.memory_total
