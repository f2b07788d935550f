"""Results that serve other jobs: what is asked of a store for it, and how a result gets into another job's folder.

Every job has its files in its own folder; those of a result that serves several are hard links to one another. So
any of the jobs may be removed, by anyone, in any order, and the others keep theirs: the file system counts.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from loguru import logger

from docfleet.errors import NotFound
from docfleet.files import DataFolder, remove_tree, sync_folder
from docfleet.options import ParseOptions
from docfleet.records import Document, Job, ProcessIdentity
from docfleet.store.admission import Terms

#: Followers served at a time, so that each is short.
_BATCH = 50


@dataclass(frozen=True, kw_only=True)
class Follower:
    """A job that waits for the result of another, which is there now."""

    id: str
    leader: str
    #: The leader's result folder, relative to the data folder, and the files that its report names.
    output: str
    files: tuple[str, ...]


class Following(Protocol):
    """Serving those who wait for another job's result."""

    def followers_due(self, limit: int) -> list[Follower]:
        """Return followers whose leader has delivered."""
        ...

    def finish_followers(self, outputs: Iterable[tuple[Follower, str]]) -> set[str]:
        """End followers with their leader's report, durably, in one transaction.

        Args:
            outputs: followers, each with its own result folder, relative to the data folder.

        Returns:
            Ids of those that ended so; the others were cancelled or removed meanwhile, or their leader was.
        """
        ...

    def forget_result(self, job_id: str) -> None:
        """Serve nobody with an ended job's result any more; its oldest follower is parsed for all of them."""
        ...


class Reusing(Following, Protocol):
    """The intake's side."""

    def known_documents(self, sha256: str, engines: Collection[str]) -> list[Document]:
        """Return what is known of documents of these bytes that workers like these have parsed."""
        ...

    def reusable(self, key: str, engines: Collection[str]) -> Job | None:
        """Return the newest job with that key whose result any of the engines made."""
        ...

    def serve(
        self, job_id: str, filename: str, options: ParseOptions, source: Job, output: str, terms: Terms = ...
    ) -> Job | None:
        """Enter a job that is completed at once with the result of another. None: the other is gone.

        It is on the disk when this returns if the terms say that it is `remembered`.

        Bounds do not count, for there is no work; where the key in `terms` stands for a job, that one is returned.

        Raises:
            KeyReused: the key was sent before with something else; nothing was entered.
            Busy: nothing was entered.
            StorageFull, StorageUnavailable: it may be entered: `remove` it before its files go.
        """
        ...


class Shelved(Protocol):
    """Whose finished pages are kept for others."""

    def shared_documents(self, digests: Collection[str]) -> set[str]:
        """Return those SHA-256 digests of which there is a job that shares what is made of it with others."""
        ...


class Recycling(Protocol):
    """One worker at a time leaves to be replaced."""

    def may_recycle(self, owner: ProcessIdentity, slot: int, reason: str = "other") -> bool:
        """Take the turn. False while the last one's replacement is not ready; a turn is over after ten minutes.

        Args:
            owner: who asks.
            slot: which it serves.
            reason: one of few words, for the counts.
        """
        ...


class Sizes(Protocol):
    """What ended jobs weigh."""

    def unmeasured(self, limit: int) -> list[str]:
        """Return ids of ended jobs whose size is not known."""
        ...

    def record_sizes(self, sizes: Iterable[tuple[str, int]]) -> None:
        """Record measured sizes in bytes."""
        ...

    def stored_bytes(self) -> int:
        """Return what all measured jobs weigh together; linked files count once."""
        ...

    def oldest_ended(self, limit: int) -> list[tuple[str, int]]:
        """Return ids and bytes of ended jobs that hold files, those that ended first first."""
        ...


def hand_on(store: Following, folder: DataFolder) -> int:
    """Serve every follower whose leader has delivered. Any process may, at any time; return how many were served.

    Killed in between, the links lie in folders of jobs that wait still, and are made anew.
    """
    served = 0
    while due := store.followers_due(_BATCH):
        linked = [(one, output) for one in due if (output := _linked(store, folder, one)) is not None]
        ended = store.finish_followers(linked)
        for one, output in linked:
            if one.id in ended:
                remove_source(folder, one.id)
            else:
                # Another process was faster, or the follower was removed: then nobody else will clear its folder.
                remove_tree(folder.absolute(output))
                with suppress(OSError):
                    folder.job(one.id).rmdir()
        served += len(ended)
        if len(due) < _BATCH or not ended:
            break
    return served


def link_result(folder: DataFolder, output: str, files: Sequence[str], target: Path, *, durable: bool = True) -> str:
    """Link a result into `target`, a new folder in another job's. Return it relative to the data folder.

    Args:
        folder: the data folder.
        output: the result's folder, relative to it.
        files: names that must be there.
        target: where the links go.
        durable: whether the links must be on the disk when this returns.

    Raises:
        NotFound: a file of the result is gone.
        OSError: there is no room.
    """
    source = folder.absolute(output)
    target.mkdir(mode=0o700, parents=True)
    try:
        folders = _link_tree(source, target)
        missing = [name for name in files if not (target / name).is_file()]
    except FileNotFoundError as exc:
        missing, folders = [str(exc.filename)], []
    except BaseException:
        remove_tree(target)
        raise
    if missing:
        remove_tree(target)
        raise NotFound(f"{len(missing)} files of the result in {output} are gone.")
    if durable:
        for made in (*folders, target.parent, folder.jobs):
            sync_folder(made)
    return folder.relative(target)


def remove_source(folder: DataFolder, job_id: str) -> None:
    """Remove the document of a job that was served with another's result: nobody will read it."""
    for source in folder.job(job_id).glob("source.*"):
        remove_tree(source)


def _linked(store: Following, folder: DataFolder, one: Follower) -> str | None:
    try:
        # A name of its own for each try: several processes may be at it.
        return link_result(folder, one.output, one.files, folder.result(one.id, secrets.randbits(48)))
    except FileNotFoundError:
        # Its folder went while it was forced to the disk: another process was faster, or it was removed.
        return None
    except NotFound as exc:
        source = folder.absolute(one.output)
        if one.files and all((source / name).is_file() for name in one.files):
            # Nor is this the leader's fault.
            return None
        logger.warning("job {} cannot have the result of {}: {}", one.id, one.leader, exc.message)
        store.forget_result(one.leader)
    return None


def _link_tree(source: Path, target: Path) -> list[Path]:
    """Link every file below `source`; copy where the file system cannot link. Return the folders made."""
    made = [target]
    for place, folders, files in os.walk(source, onerror=_raise):
        there = target / Path(place).relative_to(source)
        for name in folders:
            (there / name).mkdir(mode=0o700)
            made.append(there / name)
        for name in files:
            _link(Path(place, name), there / name)
    return made


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except FileNotFoundError:
        raise
    except (OSError, NotImplementedError):
        # No links here, or too many of this one already: where a copy fails too, it says why.
        shutil.copy2(source, target, follow_symlinks=False)


def _raise(error: OSError) -> None:
    raise error
