"""What a server with these settings would run on this machine, told without starting one."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from docfleet.devices import Machine
from docfleet.engine.registry import check_names
from docfleet.errors import ConfigurationError
from docfleet.files import DataFolder
from docfleet.launch.fleet import Launch, plan_launch
from docfleet.planning.decision import Decision, decide
from docfleet.planning.pool import members_now
from docfleet.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Foresight:
    """What would be decided at the start."""

    decision: Decision
    #: Addresses of the VLM servers elsewhere that workers would ask.
    endpoints: tuple[str, ...] = ()
    #: The VLM servers that this machine would run itself; their ports are chosen at the start.
    launch: Launch | None = None


def foresee(
    settings: Settings, machine: Machine, folder: DataFolder, environment: Mapping[str, str], *, tier: str = "auto"
) -> Foresight:
    """Decide as at the start, and open, write, start and fetch nothing.

    Args:
        settings: those of the server.
        machine: as it was found.
        folder: its data folder, which need not exist.
        environment: what VLM servers of its own would inherit.
        tier: the tier that must fit.

    Raises:
        DocfleetError: the server would refuse to start, in the same words.
    """

    def ports(number: int) -> Sequence[int]:
        return range(settings.vlm_server_port, settings.vlm_server_port + number)

    launch = plan_launch(settings, machine, folder.vlm, environment, ports=ports)
    own = None if launch is None else launch.own
    members = members_now(settings, folder, own)
    return Foresight(
        decision=decide(settings, machine, servers=len(members), launch=launch, tier=tier),
        endpoints=tuple(member.url for member in members if own is None or member.url not in own.urls),
        launch=launch,
    )


def check_start(settings: Settings) -> DataFolder:
    """Return the data folder; look at what a server looks at before it looks at the machine.

    Raises:
        DocfleetError: the server would refuse to start, in the same words.
    """
    check_names(settings.engines)
    folder = DataFolder(settings.data_dir.resolve())
    reason = _unusable(folder.root)
    if reason:
        raise ConfigurationError(f"The data folder {folder.root} cannot be used: {os.strerror(reason)}.")
    return folder


def _unusable(root: Path) -> int:
    """Return the number of the error with which a folder could not be made there or written; 0: it could."""
    place = root
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        return errno.EEXIST if place == root else errno.ENOTDIR
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        return errno.EROFS
    return 0 if os.access(place, os.W_OK | os.X_OK) else errno.EACCES
