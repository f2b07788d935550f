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

from docfleet.aliases import CLIENT_VARIABLES
from docfleet.devices.capacity import threads
from docfleet.devices.environment import DEVICE_MEMORY, MANAGED, Share, environment
from docfleet.devices.needs import ACCELERATOR_WORKER_BYTES
from docfleet.devices.records import GIB, Accelerator, Kind, Machine
from docfleet.devices.selection import select
from docfleet.errors import ConfigurationError
from docfleet.launch.engines import AUTO, Engine, choose_engine
from docfleet.launch.orders import ServerOrder

#: A number, or one for each accelerator.
Number = int | Literal["auto"]

#: Share of a device's memory that its servers take where workers are on it too, and where nobody else is.
SHARED, ALONE = 0.5, 0.85
#: Keys that servers would ask requests for; the router has none for servers of its own machine.
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
    #: Share of each accelerator's memory that its servers take together.
    taken: Mapping[str, float]
    #: Bytes of main memory that they take together, an estimate.
    memory: int
    #: How things are divided, one sentence each.
    remarks: tuple[str, ...]
    #: What the user should know, one sentence each.
    warnings: tuple[str, ...]


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
    options = _options(wish, engine)
    if wish.memory is not None and not engine.memory_option:
        raise ConfigurationError(
            f"vlm_server_memory cannot be had with {engine.name}: it takes what model and context need. Leave it out."
        )
    on_device = Counter(places)
    taken = {place: _share(place, number, engine, wish) for place, number in on_device.items()}
    orders = []
    for index, (place, port) in enumerate(zip(places, ports(len(places)), strict=True)):
        where = [engine.host_option, wish.host, engine.port_option, str(port)]
        own = [engine.memory_option, f"{taken[place] / on_device[place]:.3g}"] if engine.memory_option else []
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
                command=(str(wish.command), "--engine", engine.name, *where, *own, *layers, *options),
                environment=_environment(machine, place, engine, len(places), inherited, alone=wish.alone),
            )
        )
    return Servers(
        orders=tuple(orders),
        engine=engine,
        taken={_device(place): share for place, share in taken.items() if place is not None},
        memory=sum(_memory(place, engine) for place in places),
        remarks=_remarks(on_device, taken, engine, wish),
        warnings=_warnings(machine, on_device, taken, engine),
    )


def leave_room(machine: Machine, servers: Servers) -> Machine:
    """Return the machine as the workers may plan with it: without the memory that VLM servers take."""

    def less(device: Accelerator) -> Accelerator:
        share = servers.taken.get(device.device, 0.0)
        if not share or device.memory_total is None:
            return device
        bytes_taken = int(device.memory_total * share)
        free = device.memory_free
        return replace(
            device,
            memory_total=device.memory_total - bytes_taken,
            memory_free=None if free is None else max(0, free - bytes_taken),
        )

    memory = replace(machine.memory, available=max(0, machine.memory.available - servers.memory))
    return replace(machine, memory=memory, accelerators=tuple(less(device) for device in machine.accelerators))


def free_ports(host: str, first: int) -> Callable[[int], Sequence[int]]:
    """Return what finds ports that nobody listens on, from `first` on: the same ones as long as they stay free."""

    def find(number: int) -> Sequence[int]:
        if not is_free(host, 0):
            raise ConfigurationError(
                f"Nothing can listen on {host}: it is not an address of this machine. Give one that is with the option "
                "--host of python -m docfleet.launch, or 0.0.0.0 for every interface."
            )
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
    # The engine may have an environment of its own: what this one lacks keeps workers off a device, not servers.
    able = tuple(replace(device, lacks="") for device in machine.accelerators)
    selection = select(replace(machine, accelerators=able), devices)
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


def _options(wish: Wish, engine: Engine) -> list[str]:
    try:
        options = shlex.split(wish.options)
    except ValueError as exc:
        raise ConfigurationError(f"vlm_server_args cannot be read ({exc}); write it as on a command line.") from None
    ours = {
        "--engine": "vlm_server_engine",
        engine.port_option: "vlm_server_port",
        engine.host_option: "the option --host of python -m docfleet.launch",
        engine.memory_option: "vlm_server_memory",
    }
    for name, instead in ours.items():
        if name and any(option == name or option.startswith(f"{name}=") for option in options):
            raise ConfigurationError(f"vlm_server_args: {name} is set by the launcher; use {instead}.")
    # Beginnings of its name are enough for the engines, and so are underscores.
    if not wish.alone and any(option.replace("_", "-").startswith("--api-k") for option in options):
        raise ConfigurationError(
            "vlm_server_args: servers beside the workers listen on loopback and are asked without a key; leave it out. "
            "Servers that ask for one are run by python -m docfleet.launch and named, with it, by vlm_endpoints and "
            "vlm_api_keys."
        )
    return options


def _memory(place: Accelerator | None, engine: Engine) -> int:
    """Return the bytes of main memory that a server there takes."""
    return engine.needs_gb * GIB if place is None else ACCELERATOR_WORKER_BYTES


def _share(place: Accelerator | None, number: int, engine: Engine, wish: Wish) -> float:
    """Return the share of the device's memory that its servers take together."""
    if wish.memory is not None:
        return wish.memory
    needed = 0.0
    if place is not None and place.memory_total:
        needed = engine.needs_gb * GIB * number / place.memory_total
    if engine.memory_option:
        needed = max(needed, ALONE if wish.alone else SHARED)
    return min(needed, ALONE)


def _environment(
    machine: Machine,
    place: Accelerator | None,
    engine: Engine,
    number: int,
    inherited: Mapping[str, str],
    *,
    alone: bool,
) -> dict[str, str]:
    share = Share(threads=threads(machine.cpu.cores, number), render_processes=1, memory_gb=None)
    pinned = environment(place, share, machine.variables)
    # The engine is told its share; this one is the workers', and MinerU's command would count with it.
    pinned.pop(DEVICE_MEMORY, None)
    if engine.name == "llama-cpp":
        pinned.setdefault("LLAMA_ARG_THREADS", str(share.threads))
    if engine.name == "lmdeploy" and place is not None and place.kind is Kind.NPU:
        pinned["MINERU_LMDEPLOY_DEVICE"] = "ascend"
    dropped = (*MANAGED, *CLIENT_VARIABLES, *(() if alone else _KEYS))
    kept = {
        name: value for name, value in inherited.items() if name not in dropped and not name.startswith("DOCFLEET_")
    }
    return kept | {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1"} | pinned


def _remarks(
    on_device: Counter[Accelerator | None], taken: Mapping[Accelerator | None, float], engine: Engine, wish: Wish
) -> tuple[str, ...]:
    counts = ", ".join(f"{number} on {_device(place)}" for place, number in on_device.items())
    told = [f"VLM servers ({engine.name}): {counts}."]
    for place, share in taken.items():
        if place is None or wish.alone:
            continue
        if engine.memory_option:
            how = f"take {share:.0%} of {engine.memory_of}; vlm_server_memory sets another share"
        else:
            how = f"take about {engine.needs_gb} GB each, an estimate: model and context decide"
        told.append(f"{place.device}: its VLM servers {how}. Workers plan with the rest.")
    return tuple(told)


def _warnings(
    machine: Machine, on_device: Counter[Accelerator | None], taken: Mapping[Accelerator | None, float], engine: Engine
) -> tuple[str, ...]:
    told = []
    needed = sum(_memory(place, engine) * number for place, number in on_device.items())
    if needed > machine.memory.available:
        told.append(
            f"VLM servers want about {needed / GIB:.0f} GB of main memory, {machine.memory.available / GIB:.1f} GB are "
            "available. Run fewer of them (vlm_servers)."
        )
    for place, number in on_device.items():
        if place is None or not place.memory_total:
            continue
        each = place.memory_total * taken[place] / number / GIB
        if each < engine.needs_gb * 0.95:
            told.append(
                f"{place.device}: {each:.1f} GB for each VLM server is little; {engine.name} wants about "
                f"{engine.needs_gb} GB. Run fewer of them (vlm_servers)."
            )
    return tuple(told)


def _kind(place: Accelerator | None) -> str:
    return _CPU if place is None else place.kind.value


def _device(place: Accelerator | None) -> str:
    return _CPU if place is None else place.device


def _url(host: str, port: int) -> str:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - what stands for all addresses
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
