"""`GET /api/gpu-status`: what the machine computes with, how loaded it is, and how much work it should be given."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from docfleet.devices.gauges import KEPT_SECONDS, Sample
from docfleet.devices.records import Kind
from docfleet.web.answers import json_of
from docfleet.web.device_schemas import (
    Concurrency,
    ConcurrencyView,
    DeviceView,
    DiskView,
    GpuAnswer,
    GpuStatus,
    Recommendations,
    SampleView,
)
from docfleet.web.doors import Doors
from docfleet.web.wishes import read_wish, wish_request

History = Annotated[
    float, Query(ge=0, le=KEPT_SECONDS, allow_inf_nan=False, description="seconds of the past to tell of, too")
]


class GpuDoor:
    """Puts together what was found at the start, what is measured, and what it means."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors

    async def show(self, history: History = 0) -> Response:
        """Return the devices as they are now and what to make of them; with `history` how they were, oldest first."""
        past = await run_sync(self._past, history) if history else None
        cap = await run_sync(self._doors.store.max_concurrent)
        disk = await run_sync(free_disk, self._doors)
        machine = _found(self._doors, "machine")
        status = GpuStatus(
            accelerated=bool(_found(self._doors, "plan").get("accelerated", False)),
            devices=devices(self._doors),
            not_found={probe["kind"]: probe["reason"] for probe in machine.get("probes", ()) if probe.get("reason")},
            failures=[] if self._doors.gauges is None else self._doors.gauges.failures(),
            versions=machine.get("versions", {}),
            model_source=self._doors.facts.get("model_source"),
            free_disk=disk,
        )
        return json_of(GpuAnswer(gpu_status=status, recommendations=recommendations(self._doors, cap), history=past))

    def _past(self, seconds: float) -> list[SampleView]:
        gauges = self._doors.gauges
        kept = {} if gauges is None else gauges.history(seconds)
        return [_sample(one) for device in sorted(kept) for one in kept[device]]


class ConcurrencyDoor:
    """`/api/max-concurrent`."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors

    async def show(self) -> Response:
        """Return the cap in force."""
        return json_of(self._view(await run_sync(self._doors.store.max_concurrent)))

    async def change(self, request: Request) -> Response:
        """Set the cap. What is being read is finished first; the server keeps it over a restart."""
        wish = await read_wish(request, Concurrency, like='{"max_concurrent": 2}, or null for no cap')
        await run_sync(self._doors.store.set_max_concurrent, wish.max_concurrent)
        return json_of(self._view(wish.max_concurrent))

    def _view(self, cap: int | None) -> ConcurrencyView:
        return ConcurrencyView(max_concurrent=cap, workers=len(self._doors.plan))


def devices(doors: Doors) -> list[DeviceView]:
    """Return every device that was found and the host's cores, each with its last reading and its workers."""
    machine = _found(doors, "machine")
    memory = machine.get("memory", {})
    cores = {
        "device": Kind.CPU.value,
        "name": machine.get("cpu", {}).get("name", ""),
        "memory_total": memory.get("total"),
        "memory_free": memory.get("available"),
    }
    unused = _found(doors, "plan").get("unused", {})
    return [_device(doors, one, unused.get(one["device"], "")) for one in (*machine.get("accelerators", ()), cores)]


def free_disk(doors: Doors) -> DiskView:
    """Return what is free where the data folder lies. Asks the disk, which may take its time."""
    root = doors.folder.root
    try:
        free = shutil.disk_usage(root).free
    except OSError:
        free = None
    return DiskView(folder=str(root), bytes=free, reserve=doors.disk_reserve)


def recommendations(doors: Doors, cap: int | None) -> Recommendations:
    """Return what the plan means, and the cap on what is done at once."""
    advice = doors.facts.get("recommendations")
    if not isinstance(advice, dict):
        advice = {"max_concurrent": len(doors.plan), "workers": len(doors.plan), "performance_warning": False}
    return Recommendations.model_validate({**advice, "in_force": cap})


def _found(doors: Doors, part: str) -> Mapping[str, Any]:
    """Return what was found out at the start: "machine" or "plan"."""
    found = doors.facts.get("devices")
    return found.get(part) or {} if isinstance(found, dict) else {}


def _device(doors: Doors, found: Mapping[str, Any], unused: str) -> DeviceView:
    device = found["device"]
    sample = None if doors.gauges is None else doors.gauges.latest(device)
    now = None if sample is None else _sample(sample)

    def newest(name: str) -> Any:
        told = None if now is None else getattr(now, name)
        return found.get(name) if told is None else told

    return DeviceView(
        device=device,
        name=found["name"],
        workers=[slot.index for slot in doors.plan if slot.device == device],
        blocked=found.get("blocked", ""),
        unused=unused,
        uuid=found.get("uuid", ""),
        compute_capability=found.get("compute_capability", ""),
        memory_total=newest("memory_total"),
        memory_free=newest("memory_free"),
        processes=newest("processes"),
        now=now,
    )


def _sample(sample: Sample) -> SampleView:
    holders = sample.reading.holders
    return SampleView.model_validate(sample.to_json() | {"processes": None if holders is None else len(holders)})


def cap_request() -> dict[str, Any]:
    """Return the body of a change of the cap for the API description."""
    return wish_request(Concurrency)
