"""Keeps the router's process running, and knows which servers the pool has. Lives in the API process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp
from loguru import logger

import docfleet
from docfleet.addresses import address_id, canonical, usable_key
from docfleet.errors import Forbidden, InvalidOption, NotFound
from docfleet.vlm.changes import Change, Changes, changed
from docfleet.vlm.local import LocalServer, read_servers
from docfleet.vlm.planning import PoolPlan
from docfleet.vlm.records import Member

_MODULE = "docfleet.vlm.main"
_PROJECT = str(Path(docfleet.__file__).resolve().parent.parent)
#: What the process may know of our environment: where programs, libraries and certificates are.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "SSL_CERT_FILE", "SSL_CERT_DIR")
#: A process that lived shorter than this is started again only after a pause, which grows.
_SHORT_LIFE = 10.0
_LONGEST_PAUSE = 10.0
_LEAVE_SECONDS = 1.0
_ASK_SECONDS = 2.0


class Keeper:
    """For one event loop."""

    def __init__(self, plan: PoolPlan) -> None:
        self._plan = plan
        self._kept = None if plan.changes is None else Changes(plan.changes)
        #: In the order in which they were made; one process after the other keeps the pool of one server.
        self._changes = {} if self._kept is None else self._kept.read(plan.lasting)
        self._members = {member.url: member for member in changed(plan.members, self._changes)}
        #: Keys outlive their members: a drained server may return.
        self._keys = {member.url: member.key for member in plan.members}
        self._keys |= {url: change.key for url, change in self._changes.items() if change.key is not None}
        self._changing = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Start the router and keep it running from now on."""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ASK_SECONDS), trust_env=False)
        self._keeping = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """End the router. Requests under way are cut off."""
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping
        if self._session is not None:
            await self._session.close()

    async def state(self) -> dict[str, Any] | None:
        """Return `{"endpoints": [...], "waiting": n}` as the router tells it; None while it does not answer."""
        assert self._session is not None, "start comes first"
        try:
            async with self._session.get(f"{self._plan.gate.url}/status") as response:
                told: dict[str, Any] = await response.json()
                return told
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None

    def servers(self) -> list[LocalServer]:
        """Return those of the servers that this machine runs, as their launcher tells."""
        return [] if self._plan.local is None else read_servers(self._plan.local)

    async def add(self, url: str, key: str | None) -> str:
        """Add a server to the pool, or bring a drained one back. Return its id. Kept over a restart.

        Args:
            url: must be one that the settings allow.
            key: sent to it as bearer token; None: as before, or none.

        Raises:
            InvalidOption: it is no address, or the key cannot be sent.
            Forbidden: the settings do not allow it.
            StorageFull: it cannot be kept; nothing was changed. So with StorageUnavailable.
        """
        try:
            url = canonical(url)
        except ValueError as exc:
            raise InvalidOption(f"url {exc}, such as http://10.0.0.5:8001.") from None
        if url not in self._plan.allowed:
            raise Forbidden(
                "This server may not use that VLM server. Have it added to the server's setting allowed_server_urls."
            )
        if key is not None and not usable_key(key):
            raise InvalidOption("api_key must be printable ASCII without spaces.")
        async with self._changing:
            earlier = self._changes.get(url)
            await self._keep_change(url, Change(True, key if key is not None or earlier is None else earlier.key))
            self._keys[url] = self._keys.get(url, "") if key is None else key
            self._members[url] = Member(url=url, key=self._keys[url])
            await self._declare()
        return address_id(url)

    async def drain(self, endpoint_id: str) -> None:
        """Take a server out of the pool: it gets nothing more, and may finish what it has.

        Raises:
            NotFound: the pool has none of that id.
            StorageFull: it cannot be kept; nothing was changed. So with StorageUnavailable.
        """
        async with self._changing:
            for url in list(self._members):
                if address_id(url) == endpoint_id:
                    earlier = self._changes.get(url)
                    await self._keep_change(url, Change(False, None if earlier is None else earlier.key))
                    del self._members[url]
                    await self._declare()
                    return
        raise NotFound("The pool has no VLM server of that id; GET /vlm/endpoints lists them.")

    async def _keep_change(self, url: str, change: Change) -> None:
        changes = {other: made for other, made in self._changes.items() if other != url} | {url: change}
        if self._kept is not None and url in self._plan.lasting:
            lasting = {other: made for other, made in changes.items() if other in self._plan.lasting}
            await asyncio.to_thread(self._kept.write, lasting)
        self._changes = changes

    async def _declare(self) -> None:
        # A router that is not there now is told when it starts.
        if self._process is not None:
            await self._tell(self._process, {"members": _told(self._members.values())})

    async def _keep(self) -> None:
        pause = 0.0
        while True:
            started = time.monotonic()
            try:
                ended = f"ended with status {await self._live()}"
            except OSError as exc:
                ended = f"could not be started ({exc.strerror})"
            pause = 0.0 if time.monotonic() - started > _SHORT_LIFE else min(max(0.1, pause * 2), _LONGEST_PAUSE)
            logger.warning("the VLM router {}; it is started again in {:.1f} s", ended, pause)
            await asyncio.sleep(pause)

    async def _live(self) -> int:
        """Start a process. Return its status when it has ended."""
        process = await self._start()
        self._process = process
        try:
            await self._tell(process, self._configuration())
            return await process.wait()
        finally:
            self._process = None
            await asyncio.shield(_end(process))

    async def _start(self) -> asyncio.subprocess.Process:
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            _MODULE,
            stdin=asyncio.subprocess.PIPE,
            pass_fds=(self._plan.gate.listening.fileno(),),
            env=environment | {"PYTHONPATH": _PROJECT},
        )

    async def _tell(self, process: asyncio.subprocess.Process, told: dict[str, Any]) -> None:
        assert process.stdin is not None
        # It may have died a moment ago; then the next one is told.
        with contextlib.suppress(ConnectionError):
            process.stdin.write(json.dumps(told).encode() + b"\n")
            await process.stdin.drain()

    def _configuration(self) -> dict[str, Any]:
        plan = self._plan
        return {
            "socket": plan.gate.listening.fileno(),
            "token": plan.gate.token,
            "settings": asdict(plan.settings),
            "allowed": plan.allowed,
            "members": _told(self._members.values()),
            "log_level": plan.log_level,
        }


def _told(members: Iterable[Member]) -> list[dict[str, str]]:
    return [{"url": member.url, "key": member.key} for member in members]


async def _end(process: asyncio.subprocess.Process) -> None:
    """Close its input, which is its end; kill it if it stays."""
    assert process.stdin is not None
    process.stdin.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LEAVE_SECONDS):
            await process.wait()
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    await process.wait()
