"""Run a short program under a deadline, so that a driver that hangs never hangs the server.

A child process is the one thing that can be ended from outside whatever it waits for; and it leaves no thread and no
driver handle behind in a process that will fork.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

#: Seconds to wait for a killed child; one that sits inside the kernel (a lost driver) may never end.
_REAP_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a program said."""

    output: str = ""
    #: Why there is no usable output, in one line; empty if there is.
    failure: str = ""


class Child:
    """A program under way; several may be started before the first is waited for."""

    def __init__(self, command: Sequence[str], timeout: float, *, message: str = "") -> None:
        """Start `command` (found on PATH or absolute), to be killed after `timeout` seconds. Never raises.

        `message` comes to it on standard input: what must not stand in the list of processes.
        """
        self._name = os.path.basename(command[0])  # noqa: PTH119 - a command line, not a path
        self._message = message
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._process: subprocess.Popen[str] | None = None
        self._failure = ""
        try:
            # A session of its own: killing it takes along whatever the program started.
            self._process = subprocess.Popen(  # noqa: S603 - the command is ours, never a caller's
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except FileNotFoundError:
            self._failure = f"{self._name} is not installed"
        except OSError as exc:
            self._failure = f"{self._name} cannot be started: {exc.strerror or exc}"

    def reply(self) -> Reply:
        """Wait for the program's end or the deadline. Never raises."""
        if self._process is None:
            return Reply(failure=self._failure)
        try:
            left = max(0.0, self._deadline - time.monotonic())
            output, errors = self._process.communicate(self._message, timeout=left)
        except subprocess.TimeoutExpired:
            self._kill(self._process)
            return Reply(failure=f"{self._name} gave no answer within {self._timeout:g} s")
        code = self._process.returncode
        if code == 0:
            return Reply(output=output)
        last = (errors.strip() or output.strip()).splitlines()[-1:]
        return Reply(
            output=output, failure=f"{self._name} ended with {_ending(code)}: {' '.join(last)[:200]}".rstrip(": ")
        )

    @staticmethod
    def _kill(process: subprocess.Popen[str]) -> None:
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        # Closing the pipes and reaping the child, as far as it lets itself be reaped.
        with contextlib.suppress(subprocess.TimeoutExpired, ValueError, OSError):
            process.communicate(timeout=_REAP_SECONDS)


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"status {code}"
