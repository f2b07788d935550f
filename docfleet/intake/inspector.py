"""Have documents looked at in processes of their own: what crashes or hangs a decoder never hurts the server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from loguru import logger

import docfleet
from docfleet.documents.inspection import Inspection
from docfleet.errors import BrokenDocument, HostileDocument, InternalError, NotReady, from_record

_MODULE = "docfleet.intake.inspector_main"
#: The project need not be installed: a process finds it where this one found it.
_PROJECT = str(Path(docfleet.__file__).resolve().parent.parent)
#: Seconds that a process may take to load.
_START_SECONDS = 30.0
#: Seconds that it may take to leave after it was told to.
_LEAVE_SECONDS = 1.0
#: What a process may know of our environment: where programs and libraries are, and nothing secret.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")


class _Died(Exception):
    """The process ended without an answer."""


class Inspector:
    """A few persistent processes that run `docfleet.documents.inspection.inspect`. For one event loop."""

    def __init__(self, *, processes: int = 2, timeout: float = 20.0, memory: int = 2 * 1024**3) -> None:
        """Prepare; nothing is started yet.

        Args:
            processes: how many documents are looked at at once.
            timeout: seconds that one may take.
            memory: bytes of address space that a process may use.
        """
        self._timeout = timeout
        self._children = [_Child(memory, timeout) for _ in range(processes)]
        # The one used last is asked first: its pages are in memory.
        self._idle: asyncio.LifoQueue[_Child] = asyncio.LifoQueue()
        for child in self._children:
            self._idle.put_nowait(child)
        self._closed = False

    async def start(self) -> None:
        """Start the processes, and so find out that they can be started.

        Raises:
            InternalError: they cannot.
        """
        try:
            await asyncio.gather(*(child.start() for child in self._children))
        except BaseException:
            await self.close()
            raise

    async def inspect(self, path: Path, filename: str) -> Inspection:
        """Look at a document.

        Raises:
            BrokenDocument: it is damaged, or crashed the process twice.
            HostileDocument: it is built to exhaust the reader, or took too long.
            DocfleetError: as `docfleet.documents.inspection.inspect`.
        """
        if self._closed:
            raise NotReady("The server is about to end. Send the document again in a moment.")
        child = await self._idle.get()
        try:
            answer = await self._ask(child, {"path": str(path), "filename": filename})
        finally:
            self._idle.put_nowait(child)
        if "unforeseen" in answer:
            logger.warning("a document broke its reader: {}", answer["unforeseen"])
        if "error" in answer:
            raise from_record(answer["error"])
        return Inspection(suffix=str(answer["suffix"]), pages=int(answer["pages"]))

    async def close(self) -> None:
        """End the processes."""
        self._closed = True
        await asyncio.gather(*(child.close() for child in self._children))

    async def _ask(self, child: _Child, request: dict[str, str]) -> dict[str, Any]:
        # A process may have been killed for no fault of this document: only the second death counts.
        for _ in range(2):
            try:
                return await child.ask(request)
            except _Died:
                logger.warning("the process that looks at documents died; it is started again")
            except TimeoutError:
                raise HostileDocument(
                    f"Looking at the file took longer than {self._timeout:g} s. Save it anew, or send it in parts."
                ) from None
            if self._closed:
                raise NotReady("The server is about to end. Send the document again in a moment.")
        raise BrokenDocument("The file crashes its reader: it is damaged. Save it anew and send it.")


class _Child:
    """One process; started when needed, killed when it does not answer."""

    def __init__(self, memory: int, timeout: float) -> None:
        self._arguments = (str(memory), str(timeout))
        self._timeout = timeout
        self._process: asyncio.subprocess.Process | None = None
        #: Ends of processes whose callers were cancelled and could not wait for them.
        self._endings: set[asyncio.Task[None]] = set()

    async def start(self) -> asyncio.subprocess.Process:
        """Return the running process."""
        if self._process is not None and self._process.returncode is None:
            return self._process
        if self._process is not None:
            await self._end(self._process)
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment["PYTHONPATH"] = _PROJECT
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            _MODULE,
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
        )
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self._line(process)
        except (_Died, TimeoutError) as exc:
            await self._end(process)
            raise InternalError(
                "The process that looks at documents does not start; the server's log says why."
            ) from exc
        except BaseException:
            self._abandon(process)
            raise
        return process

    async def ask(self, request: dict[str, str]) -> dict[str, Any]:
        """Return the answer.

        Raises:
            _Died: the process ended instead.
            TimeoutError: there was none in time; the process is gone.
        """
        process = await self.start()
        assert process.stdin is not None
        try:
            async with asyncio.timeout(self._timeout):
                process.stdin.write(json.dumps(request).encode() + b"\n")
                await process.stdin.drain()
                answer: dict[str, Any] = await self._line(process)
                return answer
        except (BrokenPipeError, ConnectionResetError):
            await self._end(process)
            raise _Died from None
        except (_Died, TimeoutError):
            await self._end(process)
            raise
        except BaseException:
            # Cancelled: the answer under way must not be taken for the next request's.
            self._abandon(process)
            raise

    async def close(self) -> None:
        """Tell the process to leave; kill it if it does not."""
        process = self._process
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LEAVE_SECONDS):
                    await process.wait()
            await self._end(process)
        await asyncio.gather(*self._endings)

    async def _line(self, process: asyncio.subprocess.Process) -> dict[str, Any]:
        assert process.stdout is not None
        line = await process.stdout.readline()
        if not line.endswith(b"\n"):
            raise _Died
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if self._process is process:
            self._process = None
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()
        # Its pipes are closed once the end of its output was seen; the loop may end right after this.
        assert process.stdout is not None
        # A request that still waits for its answer sees the end, and comes here too.
        with contextlib.suppress(RuntimeError):
            await process.stdout.read()

    def _abandon(self, process: asyncio.subprocess.Process) -> None:
        self._process = None
        ending = asyncio.ensure_future(self._end(process))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
