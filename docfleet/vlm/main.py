"""The router's process. Started by `docfleet.vlm.keeper`; not for people.

Standard input: one JSON object a line. The first is the configuration, with the listening socket's number; each
later one tells the members of the pool anew. Keys come this way, so that no list of processes shows them. The process
ends at the end of its input, which is when its parent ends, whatever ended that.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from typing import Any

from aiohttp import web

from docfleet import logs
from docfleet.vlm.app import App
from docfleet.vlm.gate import BACKLOG
from docfleet.vlm.records import Member, PoolSettings
from docfleet.vlm.router import Router

#: Bytes of a request that are taken in before it has a server: what each one that waits may cost.
_READ_AHEAD = 16 * 1024
#: Bytes of a line: a thousand members with keys.
_LONGEST_LINE = 1024 * 1024


def main() -> None:
    """Serve until the end of the input."""
    # Ctrl-C reaches every process of a terminal; this one ends with its parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(serve())
    # A request that hangs must not hold the process.
    os._exit(0)


async def serve() -> None:
    """Read the configuration, then route."""
    lines = await _standard_input()
    first = json.loads(await lines.readline())
    logs.configure(first["log_level"], "vlm-router")
    router = Router(PoolSettings(**first["settings"]), first["allowed"])
    router.declare(_members(first))
    await router.start()
    runner = web.AppRunner(
        App(router, first["token"]).build(), handler_cancellation=True, access_log=None, read_bufsize=_READ_AHEAD
    )
    await runner.setup()
    listening = socket.socket(fileno=first["socket"])
    listening.setblocking(False)
    await web.SockSite(runner, listening, shutdown_timeout=0, backlog=BACKLOG).start()
    while line := await lines.readline():
        router.declare(_members(json.loads(line)))


def _members(told: dict[str, Any]) -> list[Member]:
    return [Member(url=member["url"], key=member["key"]) for member in told["members"]]


async def _standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=_LONGEST_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


if __name__ == "__main__":
    main()
