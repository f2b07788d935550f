"""How many workers, on what, and why: what a start and a look ahead (`device_utils.py`) decide alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from docfleet.devices import Machine, Plan
from docfleet.devices.advice import recommendations
from docfleet.devices.spares import count_spares
from docfleet.launch.fleet import Launch
from docfleet.planning.workers import plan_workers
from docfleet.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The workers, and what is to be said of them."""

    planned: Plan
    #: `docfleet.devices.advice.recommendations`.
    advice: dict[str, Any]
    #: Processes that wait to take over.
    spares: int
    #: Of workers and VLM servers, one sentence each.
    warnings: tuple[str, ...]


def decide(
    settings: Settings, machine: Machine, *, servers: int, launch: Launch | None, tier: str = "auto"
) -> Decision:
    """Decide; touches nothing.

    Args:
        settings: what the user wants.
        machine: as it was found.
        servers: VLM servers in the pool.
        launch: those of them that this machine runs itself, beside the workers.
        tier: the tier that must fit.

    Raises:
        ConfigurationError: the settings ask for devices or numbers that this machine does not have.
    """
    room = machine if launch is None else launch.room(machine)
    planned = plan_workers(room, settings, servers=servers, tier=tier)
    unwished = settings.model_copy(update={"workers": None, "workers_per_device": None, "max_workers": None})
    recommended = plan_workers(room, unwished, servers=servers, tier=tier)
    advice = recommendations(machine, planned, recommended, vlm_servers=servers)
    spares, reason = count_spares(machine, planned.workers, settings.spares)
    remarks, warnings = ((), ()) if launch is None else (launch.servers.remarks, launch.servers.warnings)
    return Decision(
        planned=replace(planned, limits=(*planned.limits, reason, *remarks)),
        advice=advice,
        spares=spares,
        warnings=(*planned.warnings, *filter(None, [planned.performance_warning]), *warnings),
    )
