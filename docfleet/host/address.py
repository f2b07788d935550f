"""The address to listen on, tried before anything is started: later only the web server's own log would tell."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import closing

from docfleet.errors import ConfigurationError

_REMEDIES = {
    errno.EADDRINUSE: "another program listens there. Stop it, or choose another port with --port",
    errno.EADDRNOTAVAIL: "this machine has no such address. Choose another with --host",
    errno.EAFNOSUPPORT: "this machine has no such address. Choose another with --host",
}


def check_address(host: str, port: int) -> None:
    """Listen on the address for a moment, as the web server will.

    Args:
        host: number of the address.
        port: port to listen on.

    Raises:
        ConfigurationError: the address cannot be listened on; says why.
    """
    try:
        with closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            # With this option two sockets can be bound to an address; only one can listen.
            probe.listen(1)
    except OSError as exc:
        reason = _REMEDIES.get(exc.errno or 0, os.strerror(exc.errno or 0))
        raise ConfigurationError(f"The server cannot listen on {host}, port {port}: {reason}.") from None
