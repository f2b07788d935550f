"""The machine as it was found, and the workers planned on it: frozen records that become JSON. Sizes are in bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from docfleet.records import WorkerSlot

GIB = 1024**3


class Kind(StrEnum):
    """A family of devices."""

    CUDA = "cuda"
    NPU = "npu"
    MPS = "mps"
    XPU = "xpu"
    CPU = "cpu"


class Fitness(StrEnum):
    """What the machine is good for."""

    #: An accelerator is in use.
    FIT = "fit"
    #: It works, slowly: no accelerator, or scarce memory.
    DEGRADED = "degraded"
    #: Not even one worker has room.
    UNFIT = "unfit"


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """A card, a slice of one (MIG) or a chip that this process may use."""

    kind: Kind
    #: Position among the visible ones of its kind, as CUDA and CANN themselves count: 1 is "cuda:1".
    index: int
    name: str
    #: Value of the visible-devices variable that shows a process this device alone; empty where there is none.
    pin: str = ""
    uuid: str = ""
    #: None where the device shares the machine's memory and does not say how much.
    memory_total: int | None = None
    memory_free: int | None = None
    #: Address on the PCI bus.
    bus: str = ""
    #: Cores close to it, as the kernel lists them ("0-31,64-95"); empty where that is not known or makes no difference.
    near_cpus: str = ""
    compute_capability: str = ""
    #: Processes that compute on it already; None where unknown.
    processes: int | None = None
    #: What is wrong with the device itself, with the remedy; empty if it is ready.
    blocked: str = ""
    #: Why nothing in this environment could compute on it, with the remedy; programs of another one may.
    lacks: str = ""

    @property
    def hindrance(self) -> str:
        """Why no worker could run on it as things are, with the remedy; empty if one could."""
        return self.blocked or self.lacks

    @property
    def device(self) -> str:
        """Name for people and settings: "cuda:1", "npu:0", "mps"."""
        return self.kind.value if self.kind is Kind.MPS else f"{self.kind.value}:{self.index}"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A device at one moment. None: it does not tell."""

    #: "cuda:1", "npu:0", "mps"; "cpu" stands for the cores and main memory.
    device: str
    #: Bytes.
    memory_total: int | None = None
    memory_free: int | None = None
    #: Percent.
    utilisation: float | None = None
    #: Degrees Celsius.
    temperature: float | None = None
    #: Watts.
    power: float | None = None
    #: Processes that compute on it, and bytes that each holds, by the numbers that the driver knows them by.
    holders: tuple[tuple[int, int | None], ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, without the processes."""
        used = None
        if self.memory_total is not None and self.memory_free is not None:
            used = self.memory_total - self.memory_free
        return {
            "memory_total": self.memory_total,
            "memory_free": self.memory_free,
            "memory_used": used,
            "utilisation": self.utilisation,
            "temperature": self.temperature,
            "power": self.power,
        }


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """Cores, and what narrows them."""

    #: Logical cores of the machine.
    logical: int
    #: Cores this process may be scheduled on; None where the system does not tell.
    affinity: int | None = None
    #: Which those are, as the kernel lists them ("0-3,8"); empty where the system does not tell.
    allowed: str = ""
    #: Cores' worth of time the container may spend; None without a limit.
    quota: float | None = None
    name: str = ""

    @property
    def cores(self) -> float:
        """Cores to plan with: the narrowest of the three."""
        return min(float(value) for value in (self.logical, self.affinity, self.quota) if value is not None)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Main memory, as far as this process may use it."""

    #: The container's limit where there is one, else all of the machine.
    total: int
    #: What can still be had without swapping or being killed.
    available: int
    #: The container's limit; None without one.
    limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One look for one kind of device."""

    kind: Kind
    found: int
    #: Why there are none, or what was left out; empty if there is nothing to say.
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """All that the plan depends on."""

    cpu: Cpu
    memory: Memory
    accelerators: tuple[Accelerator, ...] = ()
    probes: tuple[Probe, ...] = ()
    #: Variables set by the user that the plan would set otherwise.
    variables: Mapping[str, str] = field(default_factory=dict)
    #: What the user should know of how the machine was read, one sentence each.
    remarks: tuple[str, ...] = ()
    #: Versions of what is installed, by distribution, and of `nvidia-driver`; a missing one is not a key.
    versions: Mapping[str, str] = field(default_factory=dict)
    platform: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        value = asdict(self)
        value["cpu"]["cores"] = self.cpu.cores
        for entry, accelerator in zip(value["accelerators"], self.accelerators, strict=True):
            entry["device"] = accelerator.device
            # To readers it is one thing: what keeps workers off the device.
            del entry["lacks"]
            entry["blocked"] = accelerator.hindrance
        return value


@dataclass(frozen=True, kw_only=True)
class PlannedWorker:
    """One process of the plan."""

    index: int
    #: "cpu", "cuda:0", "npu:1", "mps".
    device: str
    #: Threads that native code may use.
    threads: int
    #: Child processes that turn PDF pages into images.
    render_processes: int
    #: Its share of the device's memory in whole GB; None on the CPU or where unknown.
    device_memory_gb: int | None
    #: Everything to set before anything heavy is imported; the user's own values are already in it.
    environment: dict[str, str]
    #: Cores that it is bound to, those near its card, as the kernel lists them; empty: to none.
    cpus: str = ""

    def slot(self) -> WorkerSlot:
        """Return what the supervisor fills with a process."""
        return WorkerSlot(index=self.index, device=self.device, environment=dict(self.environment), cpus=self.cpus)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The workers, and the reasons for them."""

    workers: tuple[PlannedWorker, ...]
    fitness: Fitness
    #: Why there are not more workers, one sentence each.
    limits: tuple[str, ...] = ()
    #: What the user should know, one sentence each.
    warnings: tuple[str, ...] = ()
    #: Set if documents are slow here because no accelerator is used.
    performance_warning: str | None = None
    #: Devices that were found and get no worker, with the reason.
    unused: Mapping[str, str] = field(default_factory=dict)

    @property
    def accelerated(self) -> bool:
        """Whether at least one worker has an accelerator that can be used."""
        return self.performance_warning is None

    def slots(self) -> tuple[WorkerSlot, ...]:
        """Return one slot for each worker."""
        return tuple(worker.slot() for worker in self.workers)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self) | {"accelerated": self.accelerated, "recommended_concurrency": len(self.workers)}
