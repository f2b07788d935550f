"""One server a data folder: a second one would clear the first one's uploads away."""

from __future__ import annotations

import os
from pathlib import Path

from docfleet.errors import ConfigurationError
from docfleet.process.locks import lock_within

#: Seconds to wait for a server that is just ending; its children leave within a second of it.
_PATIENCE = 10.0


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
