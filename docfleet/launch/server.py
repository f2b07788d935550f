"""The life of one VLM server: started, waited for, watched, started again later each time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
from loguru import logger

import docfleet
from docfleet.launch.orders import LaunchOrders, ServerOrder
from docfleet.launch.planning import is_free
from docfleet.process.groups import kill_group_of
from docfleet.process.identity import identify
from docfleet.vlm.local import LocalServer, LocalState

_GUARD = "docfleet.launch.guard"
_PROJECT = str(Path(docfleet.__file__).resolve().parent.parent)
#: Seconds between two looks at a server that loads, and at one that works.
_LOOK, _LOOK_WELL = 0.5, 3.0
#: Seconds that a look may take: a server may read dozens of pages meanwhile.
_ANSWER_SECONDS = 10.0
#: Seconds between two lines of the log while a server loads.
_LINE = 10.0
#: Seconds before the second start, doubled each time; it starts anew once a server has worked for so long.
_PAUSE, _LONGEST_PAUSE, _LONG_LIFE = 1.0, 60.0, 60.0
#: Starts in a row without an answer after which it counts as failed.
_MOST_STARTS = 5
#: Seconds for the port to become free, which the last process held.
_PORT_SECONDS = 5.0
#: It answers, and perhaps asks for a key: it is there.
_WELL = frozenset({200, 401, 403})
_TAIL_BYTES = 4096
_LONGEST_REASON = 300


class Ended(Exception):
    """The server is not there any more, or may as well not be."""


class Server:
    """For one event loop."""

    def __init__(self, order: ServerOrder, orders: LaunchOrders, changed: Callable[[], None]) -> None:
        """Nothing is started; `changed` is called whenever `row` is another."""
        self._order = order
        self._orders = orders
        self._changed = changed
        self._log = orders.folder / order.log_name
        self._process: asyncio.subprocess.Process | None = None
        self._failures = 0
        #: Bytes of the log before this process's.
        self._log_began = 0
        self.row = LocalServer(
            index=order.index,
            device=order.device,
            engine=order.engine,
            url=order.url,
            port=order.port,
            state=LocalState.STARTING,
            log=order.log_name,
        )

    async def keep(self) -> None:
        """Keep it running until cancelled; then end it."""
        timeout = aiohttp.ClientTimeout(total=min(_ANSWER_SECONDS, self._orders.silent_seconds))
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
            while True:
                began = time.monotonic()
                try:
                    await self._live(session)
                except Ended as ended:
                    reason = str(ended)
                except OSError as exc:
                    reason = f"it could not be started ({exc.strerror})"
                finally:
                    await asyncio.shield(self._end())
                if self.row.state is LocalState.READY and time.monotonic() - began > _LONG_LIFE:
                    self._failures = 0
                await self._pause(reason)

    async def _live(self, session: aiohttp.ClientSession) -> None:
        self._tell(state=LocalState.STARTING, reason="", retry_at=None)
        await self._await_port()
        await self._start()
        assert self._process is not None
        watching = asyncio.create_task(self._watch(session))
        ending = asyncio.create_task(self._process.wait())
        try:
            await asyncio.wait([watching, ending], return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            ending.cancel()
            with contextlib.suppress(asyncio.CancelledError, Ended):
                await watching
        if ending.done() and not ending.cancelled():
            raise Ended(f"it ended with {_told(ending.result())}: {self._last_line()}".rstrip(": "))
        watching.result()

    async def _watch(self, session: aiohttp.ClientSession) -> None:
        """Ask until it answers, then now and then whether it still does.

        Raises:
            Ended: it does not answer in time, or any more.
        """
        began = said = heard = time.monotonic()
        while True:
            status = await _ask(session, f"{self._order.url}/v1/models")
            now = time.monotonic()
            if status in _WELL:
                heard = now
                if self.row.state is not LocalState.READY:
                    logger.info("{} answers at {} after {:.0f} s", self._name, self._order.url, now - began)
                self._tell(state=LocalState.READY, reason="", served=True)
            elif self.row.state is LocalState.READY:
                silence = now - heard
                self._tell(reason=f"it has not answered for {silence:.0f} s")
                if silence > self._orders.silent_seconds:
                    raise Ended(f"it did not answer for {silence:.0f} s and was ended")
            else:
                last = self._last_line()
                if status is not None or last:
                    self._tell(state=LocalState.LOADING, reason=last)
                if now - began > self._orders.start_seconds:
                    raise Ended(f"it did not answer within {self._orders.start_seconds:g} s: {last}".rstrip(": "))
                if now - said > _LINE:
                    said = now
                    logger.info("{} loads for {:.0f} s: {}", self._name, now - began, last or "it has said nothing")
            await asyncio.sleep(_LOOK_WELL if self.row.state is LocalState.READY else _LOOK)

    async def _await_port(self) -> None:
        deadline = time.monotonic() + _PORT_SECONDS
        while not is_free(self._order.host, self._order.port):
            if time.monotonic() > deadline:
                raise Ended(f"another program listens on port {self._order.port}")
            await asyncio.sleep(0.1)

    async def _start(self) -> None:
        self._log_began = self._log.stat().st_size if self._log.exists() else 0
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            _GUARD,
            str(self._log),
            str(self._orders.log_bytes),
            *self._order.command,
            stdin=asyncio.subprocess.DEVNULL,
            cwd=_PROJECT,
            # The lifeline's end is in our own environment.
            env={**self._order.environment, **_lifeline()},
            process_group=0,
        )
        with contextlib.suppress(ProcessLookupError):
            self._tell(process=identify(self._process.pid), started_at=time.time())
        logger.info("{} is started on port {}, its log is {}", self._name, self._order.port, self._log)

    async def _pause(self, reason: str) -> None:
        self._failures += 1
        failed = self._failures >= _MOST_STARTS
        pause = min(_PAUSE * 2 ** min(self._failures - 1, 10), _LONGEST_PAUSE)
        logger.warning("{}: {}; it is started again in {:.0f} s", self._name, reason, pause)
        self._tell(
            state=LocalState.FAILED if failed else LocalState.BACKING_OFF,
            reason=reason,
            process=None,
            started_at=None,
            retry_at=time.time() + pause,
        )
        await asyncio.sleep(pause)
        self._tell(restarts=self.row.restarts + 1)

    async def _end(self) -> None:
        """Ask the whole group to end; kill what stays."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._orders.leave_seconds):
                    await process.wait()
        # Also where its leader ended by itself: what it started may be there still.
        if self.row.process is not None:
            kill_group_of(self.row.process)
        await process.wait()

    def stopping(self) -> None:
        """Tell that it ends."""
        self._tell(state=LocalState.STOPPING, reason="", retry_at=None)

    def _tell(self, **what: Any) -> None:
        row = replace(self.row, **what)
        if row != self.row:
            self.row = row
            self._changed()

    @property
    def _name(self) -> str:
        return f"VLM server {self._order.index} ({self._order.engine} on {self._order.device})"

    def _last_line(self) -> str:
        """Return the last line that this process wrote to its log."""
        try:
            with self._log.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                # It may have been begun anew since.
                log.seek(max(size - _TAIL_BYTES, self._log_began if size >= self._log_began else 0))
                # Progress bars write over their line.
                lines = log.read().decode(errors="replace").replace("\r", "\n").split("\n")
        except OSError:
            return ""
        last = next((line for line in reversed(lines) if line.strip()), "")
        return "".join(char for char in last if char.isprintable()).strip()[:_LONGEST_REASON]


def _told(status: int) -> str:
    # The guard tells the signal that ended the server as a shell does.
    signalled = status - 128 if status > 128 else -status
    return f"signal {signalled}" if signalled > 0 else f"status {status}"


def _lifeline() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name == "DOCFLEET_LIFELINE"}


async def _ask(session: aiohttp.ClientSession, url: str) -> int | None:
    """Return the status with which it answers, None if it does not."""
    try:
        async with session.get(url, allow_redirects=False) as response:
            return response.status
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None
