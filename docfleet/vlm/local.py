"""VLM servers that this machine runs for itself, as their launcher tells of them: one small file, replaced whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from docfleet.records import ProcessIdentity


class LocalState(StrEnum):
    """Where such a server stands."""

    #: Its process is there, or about to be, and has said nothing.
    STARTING = "starting"
    #: It fetches or loads its model.
    LOADING = "loading"
    #: It answers.
    READY = "ready"
    #: It ended; it is started again in a moment.
    BACKING_OFF = "backing_off"
    #: It ended several times without ever answering; it is tried again now and then.
    FAILED = "failed"
    #: It ends, and so does the launcher.
    STOPPING = "stopping"


#: It will not answer soon.
_GIVEN_UP = (LocalState.BACKING_OFF, LocalState.FAILED)


@dataclass(frozen=True, kw_only=True)
class LocalServer:
    """One server, for `/status`."""

    index: int
    #: "cuda:0", "npu:1", "mps", "cpu".
    device: str
    #: vllm | lmdeploy | llama-cpp | mlx
    engine: str
    url: str
    port: int
    state: LocalState
    #: Why it is not ready, or what it says while it loads; empty otherwise.
    reason: str = ""
    #: Of the leader of its processes' group; None while there is none.
    process: ProcessIdentity | None = None
    #: How often it was started again.
    restarts: int = 0
    #: Seconds since the epoch; None: no process runs.
    started_at: float | None = None
    #: When it is started again, seconds since the epoch; None: it runs.
    retry_at: float | None = None
    #: Whether it has answered since the launcher began.
    served: bool = False
    #: Name of its log file in the folder of the file that tells this.
    log: str = ""


def write_servers(path: Path, servers: Sequence[LocalServer]) -> None:
    """Replace the file. Readers see the old one or the new one, whoever is killed.

    Raises:
        OSError: it cannot be written.
    """
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(json.dumps([asdict(server) for server in servers]), encoding="utf-8")
    fresh.replace(path)


def read_servers(path: Path) -> list[LocalServer]:
    """Return the servers, or none where there is no such file or somebody else wrote it."""
    try:
        return [_server(row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return []


def awaited(servers: Sequence[LocalServer]) -> str:
    """Return what the first documents should wait for: the server that comes first. Empty: nothing.

    Once one has answered, or all have failed to, those that come back are the router's business.
    """
    if not servers:
        return "the VLM servers are about to be started"
    if any(server.served for server in servers):
        return ""
    coming = [server for server in servers if server.state not in _GIVEN_UP]
    return "; ".join(f"VLM server {one.index} on {one.device} is {one.state}" for one in coming)


def _server(row: dict[str, Any]) -> LocalServer:
    process = row["process"] and ProcessIdentity(**row["process"])
    return LocalServer(**{**row, "state": LocalState(row["state"]), "process": process})
