"""What a hub holds of a repository, and its files one by one, through the hubs' own client libraries.

A download that broke off goes on where it was, also in another process. Hugging Face's library checks sizes only, so
digests are checked here for both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from docfleet.models.records import Source

_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file of a repository, as the hub describes it."""

    #: Relative, with forward slashes; never leaves the repository.
    path: str
    #: Bytes.
    size: int
    #: Hexadecimal digest of the bytes; None where the hub tells none.
    sha256: str | None = None
    #: Git's name for the content (SHA-1 over a header and the bytes), for small files on Hugging Face.
    blob: str | None = None

    def fault(self, path: Path) -> str:
        """Return what is wrong with the file on the disk, in one clause; empty if it is this file."""
        size = path.stat().st_size
        if size != self.size:
            return f"it has {size} bytes and should have {self.size}"
        wanted, digest = (self.sha256, hashlib.sha256()) if self.sha256 else (self.blob, hashlib.sha1())  # noqa: S324
        if wanted is None:
            return ""
        if wanted is not self.sha256:
            digest.update(b"blob %d\0" % size)
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
        return "" if digest.hexdigest() == wanted.lower() else "its checksum is wrong"


@dataclass(frozen=True)
class Remote:
    """A repository on a hub, at one revision."""

    #: Commit or branch: all files are of it.
    revision: str
    files: tuple[RemoteFile, ...]
    #: Bring one file into a folder, at its own path; goes on where an earlier call broke off.
    download: Callable[[RemoteFile, Path], None]


def look_up(source: Source, repository: str) -> Remote:
    """Ask the hub for the repository's files. The hub's address comes from the environment.

    Raises:
        Exception: whatever the library makes of a hub that does not answer as it should.
        ValueError: a name that would leave the folder.
    """
    remote = _hugging_face(repository) if source is Source.HUGGINGFACE else _modelscope(repository)
    for file in remote.files:
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts or "\\" in file.path:
            raise ValueError(f"the hub names a file {file.path!r}")
    return remote


def _hugging_face(repository: str) -> Remote:
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    found = HfApi().model_info(repository, files_metadata=True)
    revision = found.sha or "main"
    files = tuple(
        RemoteFile(
            path=file.rfilename,
            size=file.size or 0,
            sha256=file.lfs.sha256 if file.lfs else None,
            blob=None if file.lfs else file.blob_id,
        )
        for file in found.siblings or ()
    )

    def download(file: RemoteFile, folder: Path) -> None:
        # `hf_hub_download` begins anew in each process, and leaves what a killed one had for ever.
        path = folder / file.path
        part = path.with_name(f"{path.name}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as stream:
            if stream.tell() > file.size:
                stream.truncate(0)
            url = hf_hub_url(repository, file.path, revision=revision)
            http_get(url, stream, resume_size=stream.tell(), headers=build_hf_headers(), expected_size=file.size)
        part.replace(path)

    return Remote(revision, files, download)


def _modelscope(repository: str) -> Remote:
    from modelscope_hub import HubApi

    hub: Any = HubApi()
    files = tuple(
        RemoteFile(path=file.path, size=file.size, sha256=file.sha256 or None)
        for file in hub.list_repo_files(repository, "model")
        if not file.is_dir
    )

    def download(file: RemoteFile, folder: Path) -> None:
        hub.download_file(
            repository,
            "model",
            file.path,
            local_dir=folder,
            expected_sha256=file.sha256,
            file_size=file.size,
        )

    return Remote("master", files, download)
