"""Where workers find the router: a listening socket that outlives it.

The main process opens the socket before it starts anything, so that workers can be told the address, and keeps it. A
router that dies leaves no refused connection behind: callers wait in the socket until the next one takes over.
"""

from __future__ import annotations

import secrets
import socket
from dataclasses import dataclass, field

from docfleet.addresses import WHOLE_POOL

#: Connections that wait in the socket: every worker's at once.
BACKLOG = 1024


@dataclass(frozen=True)
class Gate:
    """The socket, and the word that opens it."""

    listening: socket.socket = field(repr=False)
    token: str = field(repr=False)

    @property
    def url(self) -> str:
        """What servers' segments are put behind."""
        return f"http://127.0.0.1:{self.listening.getsockname()[1]}/{self.token}"

    @property
    def pool_url(self) -> str:
        """The pool as if it were one VLM server."""
        return f"{self.url}/{WHOLE_POOL}"


def open_gate() -> Gate:
    """Listen on a free port of the loopback interface. Processes of other users of the machine do not know the word."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    return Gate(listening, secrets.token_urlsafe(24))
