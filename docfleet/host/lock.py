"""One server a data folder: a second one would clear the first one's uploads away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from docfleet.errors import ConfigurationError
from docfleet.process.locks import lock_within

#: Seconds to wait for a server that is just ending; its children leave within a second of it.
_PATIENCE = 10.0
#: What the lock says while a server runs; nothing else after it has stopped in order.
_RUNNING = b"running\n"


def hold_folder(root: Path) -> int:
    """Lock the folder for the life of this process and its forked children. Return the descriptor to keep open.

    Raises:
        ConfigurationError: another server holds it, or it cannot be written.
    """
    try:
        descriptor = os.open(root / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as exc:
        raise ConfigurationError(f"The data folder {root} cannot be written: {exc.strerror}.") from None
    if not lock_within(descriptor, _PATIENCE):
        os.close(descriptor)
        raise ConfigurationError(
            f"Another server uses the data folder {root}. Stop it, or give this one its own with --data-dir."
        )
    return descriptor


def was_killed(descriptor: int) -> bool:
    """Return whether the last server that held the folder was killed: it did not say that it stopped."""
    return os.pread(descriptor, len(_RUNNING), 0) == _RUNNING


@contextmanager
def one_life(descriptor: int) -> Iterator[None]:
    """Say in the lock that a server runs, and in the end that it stopped. One that is killed cannot say so.

    A full disk keeps no server from running: its end is taken for an ordered one then.
    """
    with suppress(OSError):
        os.pwrite(descriptor, _RUNNING, 0)
    try:
        yield
    finally:
        say_stopped(descriptor)


def say_stopped(descriptor: int) -> None:
    """Say in the lock that this server stops in order."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
