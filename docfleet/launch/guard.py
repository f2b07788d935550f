"""Stands between the launcher and one VLM server: leads the server's group, writes its log, ends it with the launcher.

    python -m docfleet.launch.guard LOG BYTES COMMAND...

The server is somebody else's program, which starts others (a shell, engine processes) and knows nothing of us. They
are all born into this process's group. When the launcher is gone, whatever ended it, the lifeline kills the group;
when this process is killed, the launcher does. Ends with the server's own status.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

from docfleet.process.groups import lead_group
from docfleet.process.lifeline import tie_to_parent

_BLOCK = 64 * 1024
#: Seconds that the last lines of a server get after its end; what it started may hold its output open for ever.
_LAST_LINES = 1.0
#: As a shell tells them: the program was not found, or cannot be run.
_NOT_FOUND, _NOT_RUN = 127, 126


def main(arguments: list[str]) -> int:
    """Run the command until it ends; return its status, or 128 and the number of the signal that ended it."""
    path, limit, *command = arguments
    lead_group()
    tie_to_parent()
    # The whole group is signalled: the server ends by it, and this process with the server. Handlers, as what is
    # ignored here would be ignored by the server too.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    log = BoundedLog(Path(path), int(limit))
    try:
        server = subprocess.Popen(  # noqa: S603 - the launcher's command
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except OSError as exc:
        log.write(f"{command[0]}: {exc.strerror}\n".encode())
        return _NOT_FOUND if isinstance(exc, FileNotFoundError) else _NOT_RUN
    assert server.stdout is not None
    pump = threading.Thread(target=_pump, args=(server.stdout.fileno(), log), name="log", daemon=True)
    pump.start()
    status = server.wait()
    pump.join(_LAST_LINES)
    return status if status >= 0 else 128 - status


def _pump(source: int, log: BoundedLog) -> None:
    while block := os.read(source, _BLOCK):
        log.write(block)


class BoundedLog:
    """A file that keeps the newest bytes: when half is full it becomes `<name>.1`, and a new one is begun."""

    def __init__(self, path: Path, limit: int) -> None:
        """Go on with the file at `path`; it and the older one hold `limit` bytes at most."""
        self._path = path
        self._half = max(1, limit // 2)
        self._file: IO[bytes] | None = None
        self._size = 0

    def write(self, block: bytes) -> None:
        """Append. A disk that is full costs lines of the log, not the server."""
        try:
            file = self._file or self._open()
            if self._size and self._size + len(block) > self._half:
                self._close()
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
                file = self._open()
            self._size += file.write(block[-self._half :])
        except OSError:
            self._close()

    def _open(self) -> IO[bytes]:
        self._file = self._path.open("ab", buffering=0)
        self._size = self._file.tell()
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None


if __name__ == "__main__":
    # At once: a thread may wait for ever for what the server left behind.
    os._exit(main(sys.argv[1:]))
