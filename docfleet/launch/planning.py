"""Which VLM servers to run: devices, engine, share of memory, ports, command and environment of each.

Pure but for `free_ports`, which asks the system.
"""

from __future__ import annotations

import shlex
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from docfleet.devices.capacity import threads
from docfleet.devices.environment import DEVICE_MEMORY, MANAGED, Share, environment
from docfleet.devices.records import Accelerator, Kind, Machine
from docfleet.devices.selection import select
from docfleet.errors import ConfigurationError
from docfleet.launch.engines import AUTO, Engine, choose_engine
from docfleet.launch.orders import ServerOrder

#: A number, or one for each accelerator.
Number = int | Literal["auto"]

#: Share of a device's memory that its servers take where workers are on it too, and where nobody else is.
SHARED, ALONE = 0.5, 0.85
#: Keys that servers would ask requests for; the router knows none for servers of our own.
_KEYS = ("VLLM_API_KEY", "LLAMA_API_KEY")
#: Ports that are tried, from the first one on.
_PORTS = 1000
_CPU = Kind.CPU.value


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What was asked for."""

    number: Number
    engine: str = AUTO
    command: Path
    #: Further options for the engine, as a shell would read them.
    options: str = ""
    #: Share of a device's memory for all its servers; None: decided by who else is on it.
    memory: float | None = None
    host: str = "127.0.0.1"
    #: Whether the devices are for these servers alone.
    alone: bool = False


@dataclass(frozen=True, kw_only=True)
class Servers:
    """The decision."""

    orders: tuple[ServerOrder, ...]
    engine: Engine
    #: Share of each accelerator's memory that its servers take together, where the engine can be told.
    taken: Mapping[str, float]
    #: What the user should know, one sentence each.
    remarks: tuple[str, ...]


def plan_servers(
    machine: Machine,
    devices: str,
    wish: Wish,
    *,
    here: Callable[[], frozenset[str] | None],
    ports: Callable[[int], Sequence[int]],
    inherited: Mapping[str, str],
) -> Servers:
    """Plan the servers.

    Args:
        machine: what is in the machine.
        devices: the setting of that name.
        wish: what was asked for.
        here: tells which engines are installed; None: nobody can tell.
        ports: finds so many free ports.
        inherited: environment that the servers have besides.

    Raises:
        ConfigurationError: they cannot be run; the message says what can be done.
    """
    places = _places(machine, devices, wish.number)
    engine = choose_engine(wish.engine, [_kind(place) for place in places], here())
    options = _options(wish.options, engine)
    on_device = Counter(_device(place) for place in places)
    share = (ALONE if wish.alone else SHARED) if wish.memory is None else wish.memory
    told = bool(engine.memory_option) and not _has(options, engine.memory_option)
    orders = []
    for index, (place, port) in enumerate(zip(places, ports(len(places)), strict=True)):
        memory = [engine.memory_option, f"{share / on_device[_device(place)]:.3g}"] if told else []
        where = [engine.host_option, wish.host, engine.port_option, str(port)]
        # A llama.cpp that was built for cards would look for some.
        layers = ["--n-gpu-layers", "0"] if place is None and engine.name == "llama-cpp" else []
        orders.append(
            ServerOrder(
                index=index,
                device=_device(place),
                engine=engine.name,
                host=wish.host,
                port=port,
                url=_url(wish.host, port),
                command=(str(wish.command), "--engine", engine.name, *where, *memory, *layers, *options),
                environment=_environment(machine, place, engine, len(places), inherited),
            )
        )
    taken = {name: share for name in on_device if name != _CPU} if told else {}
    return Servers(orders=tuple(orders), engine=engine, taken=taken, remarks=_remarks(on_device, engine, taken, wish))


def leave_room(machine: Machine, taken: Mapping[str, float]) -> Machine:
    """Return the machine as the workers may plan with it: without the memory that VLM servers take."""

    def less(device: Accelerator) -> Accelerator:
        share = taken.get(device.device, 0.0)
        if not share or device.memory_total is None:
            return device
        bytes_taken = int(device.memory_total * share)
        free = device.memory_free
        return replace(
            device,
            memory_total=device.memory_total - bytes_taken,
            memory_free=None if free is None else max(0, free - bytes_taken),
        )

    return replace(machine, accelerators=tuple(less(device) for device in machine.accelerators))


def free_ports(host: str, first: int) -> Callable[[int], Sequence[int]]:
    """Return what finds ports that nobody listens on, from `first` on: the same ones as long as they stay free."""

    def find(number: int) -> Sequence[int]:
        found: list[int] = []
        for port in range(first, min(first + _PORTS, 65536)):
            if len(found) < number and is_free(host, port):
                found.append(port)
        if len(found) < number:
            raise ConfigurationError(
                f"vlm_server_port: of ports {first} and up only {len(found)} are free; {number} are needed. "
                "Give another first port."
            )
        return found

    return find


def is_free(host: str, port: int) -> bool:
    """Return whether a server could listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        # As servers do: connections of the last one that linger are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _places(machine: Machine, devices: str, number: Number) -> list[Accelerator | None]:
    selection = select(machine, devices)
    accelerators = [target for target in selection.targets if target is not None]
    if number == "auto":
        if not accelerators:
            reasons = [f"{name}: {why}." for name, why in selection.unused.items()] or [
                f"{probe.kind}: {probe.reason}." for probe in machine.probes if probe.reason
            ]
            raise ConfigurationError(
                f"vlm_servers=auto starts one VLM server on each accelerator, and none is used with devices={devices}. "
                f"{' '.join(reasons)} Put that right, or give a number: so many then run on the CPU, with llama.cpp."
            )
        return list(accelerators)
    targets: Sequence[Accelerator | None] = accelerators or [None]
    return [targets[turn % len(targets)] for turn in range(number)]


def _options(text: str, engine: Engine) -> list[str]:
    try:
        options = shlex.split(text)
    except ValueError as exc:
        raise ConfigurationError(f"vlm_server_args cannot be read ({exc}); write it as on a command line.") from None
    for ours in ("--engine", engine.host_option, engine.port_option):
        if _has(options, ours):
            raise ConfigurationError(
                f"vlm_server_args: {ours} is the launcher's; use vlm_server_engine and vlm_server_port."
            )
    return options


def _has(options: Sequence[str], name: str) -> bool:
    return any(option == name or option.startswith(f"{name}=") for option in options)


def _environment(
    machine: Machine, place: Accelerator | None, engine: Engine, number: int, inherited: Mapping[str, str]
) -> dict[str, str]:
    share = Share(threads=threads(machine.cpu.cores, number), render_processes=1, memory_gb=None)
    pinned = environment(place, share, machine.variables)
    # The engine is told its share; this one is the workers', and MinerU's command would count with it.
    pinned.pop(DEVICE_MEMORY, None)
    if engine.name == "llama-cpp":
        pinned.setdefault("LLAMA_ARG_THREADS", str(share.threads))
    if engine.name == "lmdeploy" and place is not None and place.kind is Kind.NPU:
        pinned["MINERU_LMDEPLOY_DEVICE"] = "ascend"
    kept = {
        name: value
        for name, value in inherited.items()
        if name not in (*MANAGED, *_KEYS) and not name.startswith("DOCFLEET_")
    }
    return kept | {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1"} | pinned


def _remarks(on_device: Counter[str], engine: Engine, taken: Mapping[str, float], wish: Wish) -> tuple[str, ...]:
    counts = ", ".join(f"{number} on {device}" for device, number in on_device.items())
    told = [f"VLM servers ({engine.name}): {counts}."]
    if taken and not wish.alone:
        share = next(iter(taken.values()))
        told.append(
            f"VLM servers take {share:.0%} of {engine.memory_of}, workers plan with the rest of the device "
            "(vlm_server_memory sets another share)."
        )
    elif any(device != _CPU for device in on_device) and not wish.alone:
        told.append(
            f"VLM servers with {engine.name} take the memory that model and context need, whatever the workers on the "
            "same device hold; see vlm_server_args if it does not suffice."
        )
    return tuple(told)


def _kind(place: Accelerator | None) -> str:
    return _CPU if place is None else place.kind.value


def _device(place: Accelerator | None) -> str:
    return _CPU if place is None else place.device


def _url(host: str, port: int) -> str:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - what stands for all addresses
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
