"""Spare workers: how many, and for which slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from docfleet.devices.needs import SERVER_BYTES, worker_bytes
from docfleet.devices.records import GIB, Kind, Machine, PlannedWorker
from docfleet.options import Tier
from docfleet.records import WorkerSlot


def count_spares(machine: Machine, workers: Sequence[PlannedWorker], wanted: Literal["auto"] | int) -> tuple[int, str]:
    """Return how many spare workers there are, and why, in one sentence.

    A spare is a loaded worker that is given no work before another one is gone. On an accelerator it holds the models
    in the device's memory a second time, so there it has to be asked for.
    """
    if wanted != "auto":
        return wanted, f"Spares: {wanted}, as the setting spares says."
    if any(worker.device != Kind.CPU for worker in workers):
        return 0, "Spares: none, for each would hold the models in an accelerator's memory once more (setting spares)."
    room = machine.memory.available - SERVER_BYTES - (len(workers) + 1) * worker_bytes(None, Tier.AUTO)
    if room < 0:
        held = machine.memory.available / GIB
        return 0, f"Spares: none, for {held:.1f} GiB available do not hold {len(workers)} worker(s) and one more."
    return 1, "Spares: one loaded process waits to take over from a worker that dies or is replaced."


def spare_slots(slots: Sequence[WorkerSlot], count: int) -> tuple[WorkerSlot, ...]:
    """Return the slots of spares, numbered on from the plan's.

    A spare can serve slots of its own environment only, which cannot be changed once it is used: the kinds of
    environment take turns.
    """
    kinds: list[WorkerSlot] = []
    for slot in slots:
        if all(slot.environment != kind.environment for kind in kinds):
            kinds.append(slot)
    return tuple(
        WorkerSlot(index=len(slots) + number, device=kind.device, environment=dict(kind.environment), cpus=kind.cpus)
        for number, kind in ((number, kinds[number % len(kinds)]) for number in range(count))
    )
