"""The shapes of `GET /api/gpu-status`, parts of which stand in `/status` too."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from docfleet.web.shapes import Out as _Out
from docfleet.web.shapes import Text


class SampleView(_Out):
    """A device at one moment; null: it does not tell. Device cpu stands for the cores and main memory."""

    at: float = Field(description="seconds since 1970-01-01 UTC")
    device: str
    memory_total: int | None = Field(description="bytes")
    memory_free: int | None = Field(description="bytes")
    memory_used: int | None = Field(description="bytes")
    utilisation: float | None = Field(description="percent")
    temperature: float | None = Field(description="degrees Celsius")
    power: float | None = Field(description="watts")
    processes: int | None = Field(description="processes that compute on it")


class DeviceView(_Out):
    """Something that documents can be read with."""

    device: str
    name: Text
    workers: list[int] = Field(description="slots of the workers on it; none: it is not used")
    blocked: Text = Field(description="why nothing can run on it as things are; empty if something can")
    unused: Text = Field(description="why it has no worker; empty if it has one")
    uuid: Text = Field(description="the driver's name for it; empty where there is none")
    compute_capability: str = Field(description="of an NVIDIA card; else empty")
    memory_total: int | None = Field(description="bytes; null: it shares the machine's and does not say how much")
    memory_free: int | None = Field(description="bytes; while `now` is null, as it was at the start")
    processes: int | None = Field(description="that compute on it, told as memory_free is; null: it does not tell")
    now: SampleView | None = Field(description="its last reading; null while there is none")


class DiskView(_Out):
    """The disk that everything is kept on."""

    folder: Text = Field(description="the data folder")
    bytes: int | None = Field(description="bytes free; null: the disk does not tell")
    reserve: int = Field(description="bytes left free: with less, documents are refused")


class GpuStatus(_Out):
    """What the machine computes with."""

    accelerated: bool = Field(description="whether a worker has an accelerator; else the CPU does it all")
    devices: list[DeviceView]
    not_found: dict[str, Text] = Field(description="kinds of devices with something to say about them, and what")
    failures: list[Text] = Field(description="why devices have no readings")
    versions: dict[str, Text] = Field(description="of what is installed, by distribution")
    model_source: Any = Field(description="where models come from, as in /status")
    free_disk: DiskView


class Expectation(_Out):
    """Seconds that a page takes."""

    one_worker: float
    all_workers: float = Field(description="with many documents at work")
    measured: bool = Field(description="false: an estimate")


class Recommendations(_Out):
    """What the devices mean for whoever uses the server."""

    max_concurrent: int = Field(description="documents or shards at once that the machine carries")
    workers: int = Field(description="workers that there are")
    in_force: int | None = Field(description="cap that was set at /api/max-concurrent; null: the workers are the limit")
    performance_warning: bool = Field(description="true: no accelerator is used")
    message: Text | None = Field(default=None, description="the warning in words, with the reason")
    fitness: str = Field(default="fit", description="fit, degraded (it works slowly) or unfit")
    seconds_per_page: dict[str, Expectation] = Field(default={}, description="by tier, what can be expected")
    limits: list[Text] = Field(default=[], description="why there are not more workers")
    warnings: list[Text] = Field(default=[])


class Concurrency(_Out):
    """What is wanted."""

    max_concurrent: int | None = Field(
        ge=0,
        le=512,
        strict=True,
        description="pieces of work that all workers hold at once, at most; null: one each; 0: nothing new is taken up",
    )


class ConcurrencyView(_Out):
    """How much is done at once."""

    max_concurrent: int | None = Field(description="the cap; null: there is none")
    workers: int = Field(description="workers that there are; each holds one piece of work")


class GpuAnswer(_Out):
    """Devices, and what to make of them."""

    success: Literal[True] = True
    gpu_status: GpuStatus
    recommendations: Recommendations
    history: list[SampleView] | None = Field(default=None, description="by device, oldest first; null: not asked for")
