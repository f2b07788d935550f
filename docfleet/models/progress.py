"""What is known of weights that are being fetched: one small file beside them, read by whoever wants to tell.

<models>/.docfleet-fetch/status.json   where the fetching stands
<models>/.docfleet-fetch/arrived       replaced whenever a repository was put in its place
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FOLDER = ".docfleet-fetch"
_STATUS = "status.json"
_ARRIVED = "arrived"
#: Seconds of silence after which whoever fetched is taken for dead.
_SILENCE = 30.0


@dataclass(frozen=True, kw_only=True)
class Fetching:
    """Where the fetching stands."""

    #: fetching | failed | done.
    state: str
    #: Repository at hand.
    repository: str = ""
    done_bytes: int = 0
    total_bytes: int = 0
    #: Why it failed.
    error: str = ""
    updated_at: float = 0.0

    def __str__(self) -> str:
        """Return it for people, as a clause."""
        if self.state == "failed":
            return f"they could not be fetched ({self.error.rstrip('.')}); it is tried again"
        if self.state == "fetching" and time.time() - self.updated_at < _SILENCE:
            return f"they are being fetched: {self.done_bytes / 1e6:.0f} of {self.total_bytes / 1e6:.0f} MB are here"
        return "they are to be fetched"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def write_status(models_dir: Path, status: Fetching) -> None:
    """Replace what is told. A disk that is full does not stop the fetching."""
    text = json.dumps(asdict(status) | {"updated_at": time.time()})
    _replace(models_dir / FOLDER / _STATUS, text)


def read_status(models_dir: Path) -> Fetching | None:
    """Return where the fetching into this folder stands, or None if nothing was ever fetched here. Never raises."""
    try:
        return Fetching(**json.loads((models_dir / FOLDER / _STATUS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def mark_arrival(models_dir: Path) -> None:
    """Say that something new lies in the folder."""
    _replace(models_dir / FOLDER / _ARRIVED, str(time.time_ns()))


class Arrivals:
    """Tells whether weights have come into a folder since this was made. Made before they are looked for."""

    def __init__(self, models_dir: Path) -> None:
        self._path = models_dir / FOLDER / _ARRIVED
        self._seen = self._mark()

    def any(self) -> bool:
        """Return whether something came. One call of the system."""
        return self._mark() != self._seen

    def _mark(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns


def _replace(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except OSError:
        return
