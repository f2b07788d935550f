"""Fetch a repository of weights: once for all processes of the machine, checked, in its place only when whole.

    lock -> ask what there is -> each file into <models>/.docfleet-fetch/<name>, resumed, size and digest checked
         -> moved to <models>/<name>

Whoever is killed at any line leaves the lock free and the files that came; the next one goes on there. What lies under
<models>/<name> was checked, so nobody ever loads half a file.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from loguru import logger

from docfleet.errors import DocfleetError, StorageFull, TierUnavailable
from docfleet.models.progress import FOLDER, Fetching, mark_arrival, write_status
from docfleet.models.records import Source
from docfleet.models.remote import Remote, RemoteFile, look_up
from docfleet.models.weights import COMPLETE_MARKER

#: Tries at one file or at the list of files. The libraries try a few times themselves within each.
_TRIES = 3
#: Seconds before the second try; doubled for each further one.
PAUSE = 1.0
#: Seconds between two looks at how much is here.
_LOOK = 1.0
#: Seconds between two lines in the log.
_LINE = 10.0
_T = TypeVar("_T")

#: Bytes of the disk that stay free.
_SPARE_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A repository that a tier needs."""

    #: Name of its folder.
    name: str
    #: Its name on each hub that has it.
    ids: Mapping[Source, str]
    #: Files and folders needed of it; empty for all.
    paths: tuple[str, ...]

    def needs(self, path: str) -> bool:
        """Return whether a file of the repository is needed."""
        return not self.paths or any(path == wanted or path.startswith(f"{wanted}/") for wanted in self.paths)


def fetch(
    wanted: Wanted, source: Source, models_dir: Path, is_here: Callable[[], bool], *, pause: float = PAUSE
) -> bool:
    """Bring the repository to the disk, or wait until another process has. Return whether this one did.

    Args:
        wanted: what to fetch.
        source: a hub that can be reached.
        models_dir: folder that will hold it, as `<models_dir>/<wanted.name>`.
        is_here: whether it is there already; asked again once this process has the lock.
        pause: seconds before a second try.

    Raises:
        TierUnavailable: the hub does not have it, does not answer, or keeps sending something else.
        StorageFull: it does not fit onto the disk.
    """
    if is_here():
        return False
    if source not in wanted.ids:
        raise TierUnavailable(
            f"{wanted.name} is not offered by {source.value}; set MINERU_MODEL_SOURCE to another hub."
        )
    with _alone(models_dir, wanted.name):
        if is_here():
            return False
        staging = models_dir / FOLDER / wanted.name
        remote = _trying(partial(look_up, source, wanted.ids[source]), f"the list of {wanted.name}", pause)
        files = [file for file in remote.files if wanted.needs(file.path)]
        if not files:
            raise TierUnavailable(f"{source.value} holds no files of {wanted.name}.")
        total = sum(file.size for file in files)
        _require_room(models_dir, total - _bytes_in(staging))
        logger.info("fetching {} from {}: {} files, {:.0f} MB", wanted.name, source.value, len(files), total / 1e6)
        with _telling(models_dir, wanted.name, staging, total):
            for file in files:
                _trying(partial(_bring, remote, file, staging), file.path, pause)
        _publish(wanted, staging, models_dir)
        logger.info("{} is here and checked", wanted.name)
        return True


def _bring(remote: Remote, file: RemoteFile, staging: Path) -> None:
    path = staging / file.path
    if path.is_file() and not file.fault(path):
        return
    path.unlink(missing_ok=True)
    remote.download(file, staging)
    fault = file.fault(path)
    if fault:
        path.unlink()
        raise ValueError(fault)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # Else a power cut could leave the name and not the bytes.
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _publish(wanted: Wanted, staging: Path, models_dir: Path) -> None:
    """Move the checked files to their place; what an older visit left of them there is replaced, one by one."""
    # What the libraries note for themselves.
    for name in (".cache", "._____temp"):
        shutil.rmtree(staging / name, ignore_errors=True)
    for folder in [staging / path for path in wanted.paths] or [staging]:
        if folder.is_dir():
            (folder / COMPLETE_MARKER).touch()
    target = models_dir / wanted.name
    try:
        staging.rename(target)
    except OSError:
        # Something is there already. Markers last: they say that the rest is whole.
        for path in sorted(staging.rglob("*"), key=lambda path: path.name == COMPLETE_MARKER):
            if path.is_file():
                place = target / path.relative_to(staging)
                place.parent.mkdir(parents=True, exist_ok=True)
                path.replace(place)
        shutil.rmtree(staging, ignore_errors=True)
    mark_arrival(models_dir)


def _trying(attempt: Callable[[], _T], what: str, pause: float) -> _T:
    for number in range(1, _TRIES + 1):
        try:
            return attempt()
        except DocfleetError:
            raise
        except Exception as exc:
            told = " ".join(f"{type(exc).__name__}: {exc}".split())[:300]
            if number == _TRIES:
                raise TierUnavailable(
                    f"{what} cannot be fetched ({told}). Check the network and the hub's address, or set "
                    "MINERU_MODEL_SOURCE to another hub; what came already is kept."
                ) from exc
            logger.warning("{} did not come: {}; try {} of {} follows", what, told, number + 1, _TRIES)
            time.sleep(pause * 2 ** (number - 1))
    raise AssertionError("the last try returns or raises")


@contextmanager
def _alone(models_dir: Path, name: str) -> Iterator[None]:
    """Hold the lock of one repository. The system frees it when the process ends, however it ends."""
    folder = models_dir / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as exc:
        raise TierUnavailable(
            f"Weights cannot be written to {models_dir} ({exc.strerror}); see --models-dir."
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("another process fetches {}; waiting for it", name)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _telling(models_dir: Path, name: str, staging: Path, total: int) -> Iterator[None]:
    """Write down every second how much is here, and log it now and then."""
    over = threading.Event()

    def tell() -> None:
        said = time.monotonic()
        while True:
            done = min(_bytes_in(staging), total)
            write_status(models_dir, Fetching(state="fetching", repository=name, done_bytes=done, total_bytes=total))
            if time.monotonic() - said >= _LINE:
                said = time.monotonic()
                logger.info("{}: {:.0f} of {:.0f} MB", name, done / 1e6, total / 1e6)
            if over.wait(_LOOK):
                return

    teller = threading.Thread(target=tell, name="progress", daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


def _bytes_in(folder: Path) -> int:
    """Return the bytes of all files, unfinished ones too."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(place) / name).stat().st_size
            except OSError:
                # Renamed since.
                continue
    return total


def _require_room(models_dir: Path, wanted: int) -> None:
    free = shutil.disk_usage(models_dir).free
    if wanted > free - _SPARE_BYTES:
        raise StorageFull(
            f"The weights need {wanted / 1e6:.0f} MB more and {models_dir} has {free / 1e6:.0f} MB free; "
            "free some room or name another folder with --models-dir."
        )
