"""Looking at devices again and again, without ever waiting for one: a driver may hang, and the caller has other chores.

A *probe* has programs run beside this process and picks up what they have said. One that fails, hangs or talks
nonsense is ended and started again later; its devices have no readings meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import psutil

from docfleet.devices import cgroup, cuda, host, npu
from docfleet.devices.records import Accelerator, Kind, Reading

#: Seconds until a program that failed is started again, doubled each time up to the second number.
_PAUSE, _LONGEST_PAUSE = 10.0, 300.0
#: Intervals without a word after which a program counts as hanging; never fewer seconds than the second number.
_PATIENCE, _LEAST_PATIENCE = 4, 15.0
#: Bytes of one answer: sixteen cards need some 10 kB.
_LONGEST = 1 << 20


class Probe(Protocol):
    """Looks at some devices."""

    #: Why there are no readings; empty while there are.
    failure: str

    def take(self) -> list[Reading]:
        """Return what was found since the last call; empty: nothing new. Does not wait, and never raises."""
        ...

    def stop(self) -> None:
        """End what runs beside this process."""
        ...


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to run, and how to read what it prints."""

    command: Sequence[str]
    #: Whether it prints a line each time and goes on; else it is run anew for each answer, which is all it prints.
    goes_on: bool
    #: Seconds between two answers.
    interval: float
    #: Raises ValueError (or another fault of the answer's shape) where it cannot be read.
    read: Callable[[str], list[Reading]]


class ProgramProbe:
    """Has a program look."""

    def __init__(self, program: Program, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Make it; the program is started by the first `take`."""
        self.failure = ""
        self._program = program
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._heard = b""
        self._heard_at = 0.0
        self._due = 0.0
        self._pause = _PAUSE

    def take(self) -> list[Reading]:
        """Return the newest answer, if there is one."""
        try:
            return self._take()
        except Exception as exc:  # whatever a driver's program comes up with must not end the caller's chores
            self._give_up(f"{type(exc).__name__}: {exc}" if not isinstance(exc, _Failed) else str(exc))
            return []

    def stop(self) -> None:
        """Kill the program with all that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        # One that sits inside the kernel (a lost driver) may never end.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        if process.stdout is not None:
            process.stdout.close()

    def _take(self) -> list[Reading]:
        now = self._clock()
        if self._process is None:
            if now >= self._due:
                self._start(now)
            return []
        answer = self._listen(self._process, now)
        if answer is None:
            if now - self._heard_at > max(_PATIENCE * self._program.interval, _LEAST_PATIENCE):
                raise _Failed(f"{self._program.command[0]} gave no answer for {now - self._heard_at:.0f} s")
            return []
        found = self._program.read(answer)
        self.failure, self._pause = "", _PAUSE
        return found

    def _start(self, now: float) -> None:
        self._heard, self._heard_at = b"", now
        # A session of its own: killing it takes along whatever the program started.
        process = subprocess.Popen(  # noqa: S603 - the command is ours, never a caller's
            list(self._program.command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert process.stdout is not None, "a pipe was asked for"
        os.set_blocking(process.stdout.fileno(), False)
        self._process = process

    def _listen(self, process: subprocess.Popen[bytes], now: float) -> str | None:
        assert process.stdout is not None, "a pipe was asked for"
        # Before reading: what it wrote before its end is then read for certain.
        status = process.poll()
        # None: nothing there yet.
        while piece := process.stdout.read():
            self._heard += piece
            if len(self._heard) > _LONGEST:
                raise _Failed(f"{self._program.command[0]} talks without an end")
        if self._program.goes_on:
            *lines, self._heard = self._heard.split(b"\n")
            if lines:
                self._heard_at = now
                return lines[-1].decode(errors="replace")
            if status is not None:
                raise _Failed(f"{self._program.command[0]} ended with status {status}")
            return None
        if status is None:
            return None
        if status != 0:
            raise _Failed(f"{self._program.command[0]} ended with status {status}")
        process.stdout.close()
        self._process, self._due = None, now + self._program.interval
        return self._heard.decode(errors="replace")

    def _give_up(self, failure: str) -> None:
        self.failure = f"{failure}; asked again in {self._pause:.0f} s"
        self.stop()
        self._due = self._clock() + self._pause
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)


class _Failed(Exception):
    """The program cannot be used as it is."""


class HostProbe:
    """Cores and main memory, as far as this process may use them."""

    failure = ""

    def __init__(self, limits: Callable[[], cgroup.Limits] = cgroup.read) -> None:
        """Make it; `limits` tells what the container allows."""
        self._limits = limits
        #: Moment and processor time used, of the last look.
        self._before: tuple[float, float] | None = None

    def take(self) -> list[Reading]:
        """Return them; this is always new."""
        limits = self._limits()
        memory, load = host.memory(limits), self._load(limits)
        return [
            Reading(device=Kind.CPU.value, memory_total=memory.total, memory_free=memory.available, utilisation=load)
        ]

    def _load(self, limits: cgroup.Limits) -> float:
        """Return the percentage in use since the last look of the cores that this process may use."""
        each = psutil.cpu_percent(None, percpu=True)
        allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(len(each)))
        if limits.cores is not None and limits.used is not None:
            now, before = (time.monotonic(), limits.used), self._before
            self._before = now
            if before is None:
                return 0.0
            room = max(1e-3, now[0] - before[0]) * min(limits.cores, len(allowed))
            return round(max(0.0, min(100.0, 100 * (now[1] - before[1]) / room)), 1)
        # Where cores are switched off, the place in the list is not the number.
        mine = [each[core] for core in allowed] if max(allowed) < len(each) else each
        return round(sum(mine) / len(mine), 1)

    def stop(self) -> None:
        """Nothing runs."""


def probes_for(devices: Sequence[Accelerator], interval: float) -> list[Probe]:
    """Return what looks at these devices and at the host every `interval` seconds. Nothing is started yet."""
    found: list[Probe] = [HostProbe()]
    cards = [device for device in devices if device.kind is Kind.CUDA]
    chips = [device for device in devices if device.kind is Kind.NPU]
    if cards:
        command = (*cuda.COMMAND, f"{interval:g}")
        program = Program(
            command=command, goes_on=True, interval=interval, read=lambda line: cuda.readings(line, cards)
        )
        found.append(ProgramProbe(program))
    if chips:
        program = Program(
            command=("npu-smi", "info"), goes_on=False, interval=interval, read=lambda text: npu.readings(text, chips)
        )
        found.append(ProgramProbe(program))
    return found
