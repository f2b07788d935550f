"""From the settings to the VLM servers that the server runs beside its workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from docfleet.devices.records import Machine
from docfleet.launch.engines import find_command, installed
from docfleet.launch.orders import LaunchOrders
from docfleet.launch.planning import Servers, Wish, free_ports, leave_room, plan_servers
from docfleet.settings import Settings
from docfleet.vlm.planning import OwnServers

_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What is to be started, and what others have to know of it."""

    servers: Servers
    orders: LaunchOrders

    @property
    def own(self) -> OwnServers:
        """Return what the pool has to know."""
        return OwnServers(
            urls=tuple(order.url for order in self.orders.servers),
            identity=f"local:{self.servers.engine.name}",
            state_file=self.orders.state_file,
        )

    def room(self, machine: Machine) -> Machine:
        """Return the machine as workers may plan with it."""
        return leave_room(machine, self.servers)


def plan_launch(
    settings: Settings,
    machine: Machine,
    folder: Path,
    environment: Mapping[str, str],
    *,
    host: str | None = None,
    ports: Callable[[int], Sequence[int]] | None = None,
) -> Launch | None:
    """Return what to start; None where the settings ask for no VLM server here. Starts nothing.

    Args:
        settings: those of this run.
        machine: what is in the machine.
        folder: for logs and state.
        environment: what the servers inherit, the source of models included.
        host: address to listen on, on a machine that is for them alone; None: loopback, and workers are here too.
        ports: finds so many ports; None: those that are free, which is tried by listening there for a moment.

    Raises:
        ConfigurationError: they cannot be run; the message says what can be done.
    """
    if settings.vlm_servers is None:
        return None
    command = find_command(settings.vlm_server_command)
    wish = Wish(
        number=settings.vlm_servers,
        engine=settings.vlm_server_engine,
        command=command,
        options=settings.vlm_server_args,
        memory=settings.vlm_server_memory,
        host=host or _LOOPBACK,
        alone=host is not None,
    )
    servers = plan_servers(
        machine,
        settings.devices,
        wish,
        here=partial(installed, command),
        ports=ports or free_ports(wish.host, settings.vlm_server_port),
        inherited=environment,
    )
    orders = LaunchOrders(
        servers=servers.orders,
        folder=folder,
        start_seconds=settings.vlm_server_start_seconds,
        log_level=settings.log_level,
    )
    return Launch(servers=servers, orders=orders)
