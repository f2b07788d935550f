"""Where things lie in the data folder. Names are made here from ids, never from what callers say.

<data>/docfleet.db            the store
<data>/vlm-servers.json       VLM servers that were added or drained while the server ran, with their keys
<data>/incoming/<id>.part     uploads under way
<data>/jobs/<job>/source.pdf  the document as it came
<data>/jobs/<job>/work/       parts and results of attempts under way
<data>/jobs/<job>/result-<n>/ what attempt n delivered
<data>/pages/<document>/      finished pages of a document, for whoever reads it next (`docfleet.shelf`)
<data>/vlm/                   logs and state of VLM servers that run here (`docfleet.launch`)
<data>/scratch/<number>/      a worker process's scratch space
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

_JOB_ID = re.compile(r"[0-9a-f]{32}")
_SUFFIX = re.compile(r"[a-z0-9]{1,8}")


def new_job_id() -> str:
    """Return a fresh job id: 32 hexadecimal digits that cannot be guessed."""
    return uuid.uuid4().hex


def is_job_id(text: str) -> bool:
    """Return whether the text has the form of a job id, and so may become part of a path."""
    return _JOB_ID.fullmatch(text) is not None


@dataclass(frozen=True)
class DataFolder:
    """The data folder; plain paths, nothing is created before `create()`."""

    root: Path

    @property
    def database(self) -> Path:
        """The store's file."""
        return self.root / "docfleet.db"

    @property
    def vlm_changes(self) -> Path:
        """What was changed of the VLM pool while it worked; for the owner alone."""
        return self.root / "vlm-servers.json"

    @property
    def incoming(self) -> Path:
        """Uploads that are not yet a job."""
        return self.root / "incoming"

    @property
    def jobs(self) -> Path:
        """One folder for each job."""
        return self.root / "jobs"

    @property
    def pages(self) -> Path:
        """Finished pages that may serve other jobs, one folder for each document."""
        return self.root / "pages"

    @property
    def vlm(self) -> Path:
        """What the launcher of VLM servers keeps; made by itself."""
        return self.root / "vlm"

    def create(self) -> None:
        """Make the folders, readable by the owner alone."""
        new = not self.jobs.exists()
        for folder in (self.root, self.incoming, self.jobs, self.pages, self.root / "scratch"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if new:
            # Whatever is forced to the disk later lies in these.
            sync_folder(self.root)
            sync_folder(self.root.parent)

    def new_upload(self) -> Path:
        """Return a path for an upload under way; nothing exists there yet."""
        return self.incoming / f"{uuid.uuid4().hex}.part"

    def job(self, job_id: str) -> Path:
        """Return the job's folder.

        Raises:
            ValueError: `job_id` is not of the form that `new_job_id` makes.
        """
        if not is_job_id(job_id):
            raise ValueError(f"not a job id: {job_id!r}")
        return self.jobs / job_id

    def source(self, job_id: str, suffix: str) -> Path:
        """Return where the document itself lies. The suffix is ours, by content, never the caller's."""
        if _SUFFIX.fullmatch(suffix) is None:
            raise ValueError(f"not a suffix: {suffix!r}")
        return self.job(job_id) / f"source.{suffix}"

    def work(self, job_id: str) -> Path:
        """Return the folder of what is needed only until the result is there."""
        return self.job(job_id) / "work"

    def part(self, job_id: str, shard_id: int, attempt: int) -> Path:
        """Return the folder of what one attempt at a shard's page stage writes."""
        return self.work(job_id) / f"part-{shard_id}-{attempt}"

    def result(self, job_id: str, attempt: int) -> Path:
        """Return the folder of what one attempt at the document stage writes."""
        return self.job(job_id) / f"result-{attempt}"

    def scratch(self, number: int) -> Path:
        """Return the scratch folder of a worker process, by its number among LitServe's."""
        return self.root / "scratch" / str(number)

    def relative(self, path: Path) -> str:
        """Return the path as the store keeps it: relative, with forward slashes."""
        return path.relative_to(self.root).as_posix()

    def absolute(self, relative: str) -> Path:
        """Return the path of what the store keeps as `relative`."""
        return self.root / relative

    def is_closed_off(self, error: OSError) -> bool:
        """Return whether the error says that the disk below is read-only or gone; False where it names no path."""
        named = isinstance(error.filename, str) and Path(error.filename).is_relative_to(self.root)
        return named and error.errno in (errno.EROFS, errno.ESTALE)


def is_full(error: OSError) -> bool:
    """Return whether the disk, or the user's share of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def remove_tree(path: Path) -> None:
    """Remove a file or folder with all it holds; fine if it is gone already."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Force a file's bytes to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


#: A folder's entries are forced to the disk the same way (POSIX: renames are durable only after this).
sync_folder = sync_file


def sync_tree(folder: Path, top: Path) -> None:
    """Force a folder with all it holds to the disk, and the folders that lead to it from `top`, `top` included."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in sorted(names):
            sync_file(Path(place, name))
        sync_folder(Path(place))
    while folder != top:
        folder = folder.parent
        sync_folder(folder)
