"""The launcher: all servers at once, in a process of its own.

    python -m docfleet.launch.launcher

Orders come as one line of JSON on standard input (`LaunchOrders`). It ends in order at SIGTERM, and at once when its
parent is gone; what it left behind then ends by itself (`guard`), or is ended by the next launcher of the folder.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Sequence

from loguru import logger

from docfleet import logs
from docfleet.errors import ConfigurationError
from docfleet.launch.leftovers import end_leftovers, only_one
from docfleet.launch.orders import LaunchOrders
from docfleet.launch.server import Server
from docfleet.process.lifeline import tie_to_parent
from docfleet.vlm.local import LocalServer, write_servers

Told = Callable[[Sequence[LocalServer]], None]


def main() -> int:
    """Run the servers until a signal."""
    # Ctrl-C reaches every process of a terminal; this one is ended by its parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tie_to_parent()
    orders = LaunchOrders.from_json(sys.stdin.readline())
    logs.configure(orders.log_level, "vlm-servers")
    try:
        with only_one(orders.folder):
            end_leftovers(orders.folder)
            asyncio.run(launch(orders, (signal.SIGTERM,)))
    except ConfigurationError as exc:
        logger.error("{}", exc.message)
        return 2
    return 0


async def launch(orders: LaunchOrders, signals: Sequence[signal.Signals], told: Told = lambda rows: None) -> None:
    """Keep the servers running until one of the signals; then end them.

    Args:
        orders: the servers.
        signals: end it.
        told: called with all rows whenever one changed.
    """
    ending = asyncio.Event()
    for number in signals:
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    servers: list[Server] = []

    def changed() -> None:
        rows = [server.row for server in servers]
        try:
            write_servers(orders.state_file, rows)
        except OSError as exc:
            # A full disk: the servers serve all the same.
            logger.warning("the state of the VLM servers cannot be written: {}", exc.strerror)
        told(rows)

    servers += [Server(order, orders, changed) for order in orders.servers]
    changed()
    keeping = [asyncio.create_task(server.keep()) for server in servers]
    stop = asyncio.create_task(ending.wait())
    try:
        await asyncio.wait([stop, *keeping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for server in servers:
            server.stopping()
        for task in (stop, *keeping):
            task.cancel()
        ended = await asyncio.gather(*keeping, return_exceptions=True)
        orders.state_file.unlink(missing_ok=True)
    for fault in ended:
        if isinstance(fault, Exception):
            raise fault


if __name__ == "__main__":
    sys.exit(main())
