"""What the container allows: processor time and memory, from Linux control groups of version 1 or 2.

Limits nest: a group has at most what every group above it has, so all of them are read, from the process's own up to
the mount.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

#: Version 1 says "no limit" with a number close to the largest there is.
_NO_LIMIT = 1 << 60


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The narrowest of all groups; None where nothing limits."""

    #: Cores' worth of time.
    cores: float | None = None
    #: Seconds of processor time that were used so far of what `cores` limits.
    used: float | None = None
    #: Bytes that may be used.
    memory: int | None = None
    #: Bytes still to be had before the limit, file cache not counted as used.
    memory_available: int | None = None


def read(root: Path = Path("/")) -> Limits:
    """Return the limits on this process. Never raises; what cannot be read does not limit.

    Args:
        root: where `proc` and `sys` lie; another than "/" only to read the files of another machine.
    """
    cores: list[tuple[float, Path]] = []
    memory: list[int] = []
    available: list[int] = []
    for controller, folder in _groups(root):
        if controller in ("", "cpu"):
            cores += ((quota, folder) for quota in _cores(folder))
        if controller in ("", "memory"):
            for limit, left in _memory(folder):
                memory.append(limit)
                available.append(left)
    narrowest, group = min(cores, default=(None, None))
    return Limits(
        cores=narrowest,
        used=None if group is None else _used(group),
        memory=min(memory, default=None),
        memory_available=min(available, default=None),
    )


def _groups(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield (controller, folder) of the process's groups and all above them; the controller is "" in version 2."""
    mounts = {}
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        mounted, kind = before.split(), after.split()
        if len(mounted) < 5 or not kind:
            continue
        if kind[0] == "cgroup2":
            mounts[""] = (mounted[3], mounted[4])
        elif kind[0] == "cgroup":
            for controller in kind[-1].split(","):
                mounts[controller] = (mounted[3], mounted[4])
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            if controller in mounts and controller in ("", "cpu", "memory"):
                inside, place = mounts[controller]
                top = root / place.lstrip("/")
                # Without a namespace of its own a container sees its full path, but only its own group is mounted.
                try:
                    relative = PurePosixPath(path).relative_to(inside)
                except ValueError:
                    relative = PurePosixPath()
                steps = () if ".." in relative.parts else relative.parts
                for depth in range(len(steps), -1, -1):
                    yield controller, top.joinpath(*steps[:depth])


def _cores(folder: Path) -> Iterator[float]:
    # Two words in one file (version 2), or one word in each of two files (version 1).
    words = _words(folder / "cpu.max") or [
        *_words(folder / "cpu.cfs_quota_us"),
        *_words(folder / "cpu.cfs_period_us"),
    ]
    if len(words) != 2:
        return
    quota, period = words
    if quota.isdecimal() and period.isdecimal() and int(quota) > 0 and int(period) > 0:
        yield int(quota) / int(period)


def _used(folder: Path) -> float | None:
    microseconds = next((line.split()[1] for line in _lines(folder / "cpu.stat") if line.startswith("usage_usec ")), "")
    if microseconds.isdecimal():
        return int(microseconds) / 1e6
    nanoseconds = _number(folder / "cpuacct.usage")
    return None if nanoseconds is None else nanoseconds / 1e9


def _memory(folder: Path) -> Iterator[tuple[int, int]]:
    for name, usage, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.high", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit = _number(folder / name)
        if limit is not None and limit < _NO_LIMIT:
            used = _number(folder / usage) or 0
            # File cache is given back under pressure; without this a container that has read much looks full.
            reclaimable = next(
                (int(line.split()[1]) for line in _lines(folder / "memory.stat") if line.startswith(cache + " ")), 0
            )
            yield limit, max(0, limit - max(0, used - reclaimable))


def _number(path: Path) -> int | None:
    text = "".join(_words(path))
    return int(text) if text.isdecimal() else None


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
