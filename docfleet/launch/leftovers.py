"""One launcher for a folder, and none of the last one's servers beside its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from docfleet.errors import ConfigurationError
from docfleet.launch.orders import STATE_FILE
from docfleet.process.groups import kill_group_of
from docfleet.process.locks import lock_within
from docfleet.vlm.local import read_servers

_LOCK = "launcher.lock"
#: Seconds that the launcher of a killed server gets to notice it.
_PATIENCE = 5.0


def end_leftovers(folder: Path) -> None:
    """Kill the servers of a launcher that was killed together with their guards. Hold the folder for this."""
    for server in read_servers(folder / STATE_FILE):
        if server.process is not None:
            kill_group_of(server.process)
    with contextlib.suppress(OSError):
        (folder / STATE_FILE).unlink(missing_ok=True)


def end_last_run(folder: Path, *, wanted: bool) -> None:
    """End what an earlier run left in the folder, before ports are looked for.

    Args:
        folder: of logs and state; it need not exist.
        wanted: whether a launcher of our own is to hold the folder.

    Raises:
        ConfigurationError: one is wanted, and another launcher holds it.
    """
    if not (folder / STATE_FILE).exists():
        return
    try:
        with only_one(folder):
            end_leftovers(folder)
    except ConfigurationError:
        # A launcher on its own that somebody put there keeps its servers.
        if wanted:
            raise


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder. The system lets it go when the process ends, however it ends.

    Raises:
        ConfigurationError: another launcher holds it, or it cannot be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as exc:
        raise ConfigurationError(f"The folder {folder} of the VLM servers cannot be used: {exc.strerror}.") from None
    try:
        if not lock_within(descriptor, _PATIENCE):
            raise ConfigurationError(
                f"Another launcher keeps its VLM servers in {folder}; stop it, or name another folder."
            )
        yield
    finally:
        os.close(descriptor)
