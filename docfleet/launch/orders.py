"""What the launcher process is told: the servers to run, and how patient to be. Plain values; they travel as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

#: What stands in the folder of the servers' logs.
STATE_FILE = "servers.json"


@dataclass(frozen=True, kw_only=True)
class ServerOrder:
    """One server to run."""

    index: int
    #: "cuda:0", "npu:1", "mps", "cpu".
    device: str
    engine: str
    #: Address to listen on, and the one that this machine reaches it by.
    host: str
    port: int
    url: str
    command: tuple[str, ...]
    #: The whole environment of its processes.
    environment: Mapping[str, str]

    @property
    def log_name(self) -> str:
        """Name of its log file."""
        return f"server-{self.index}.log"


@dataclass(frozen=True, kw_only=True)
class LaunchOrders:
    """All servers."""

    servers: tuple[ServerOrder, ...]
    #: Logs and the state of the servers lie here.
    folder: Path
    #: Seconds that a server gets until it answers, fetching its model included.
    start_seconds: float
    #: Seconds without an answer after which a server that worked is taken to hang.
    silent_seconds: float = 120.0
    #: Seconds that servers get to end by themselves.
    leave_seconds: float = 2.0
    #: Bytes of a server's log; the older half is dropped.
    log_bytes: int = 16 * 1024 * 1024
    log_level: str = "info"

    @property
    def state_file(self) -> Path:
        """Where the launcher tells of the servers."""
        return self.folder / STATE_FILE

    def to_json(self) -> str:
        """Return one line that `from_json` understands."""
        return json.dumps(asdict(self) | {"folder": str(self.folder)})

    @classmethod
    def from_json(cls, text: str) -> LaunchOrders:
        """Rebuild the orders.

        Raises:
            ValueError: `to_json` did not write this.
        """
        told: dict[str, Any] = json.loads(text)
        servers = tuple(ServerOrder(**{**one, "command": tuple(one["command"])}) for one in told["servers"])
        return cls(**{**told, "servers": servers, "folder": Path(told["folder"])})
