"""From an upload to a job: options checked, document inspected, file in its place, entered in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from docfleet.errors import Forbidden
from docfleet.files import DataFolder, new_job_id, remove_tree, sync_file, sync_folder
from docfleet.intake.inspector import Inspector
from docfleet.intake.names import clean_filename
from docfleet.intake.plan import plan_shards
from docfleet.intake.reuse import Reuse
from docfleet.intake.spool import Upload, full_disk_told
from docfleet.options import ParseOptions, parse_options
from docfleet.records import Document, Job, ShardPlan
from docfleet.store.interface import Jobs

#: A job, or None where there was nothing to make one of.
Entered = TypeVar("Entered", Job, Job | None)


class Intake:
    """Makes jobs of uploads."""

    def __init__(
        self,
        store: Jobs,
        folder: DataFolder,
        inspector: Inspector,
        *,
        allowed_server_urls: Collection[str] = (),
        reuse: Reuse | None = None,
    ) -> None:
        """Make an intake.

        Args:
            store: where jobs are entered.
            folder: where documents lie.
            inspector: looks at documents.
            allowed_server_urls: VLM servers that callers may name.
            reuse: finds stored results; None parses everything.
        """
        self._store = store
        self._folder = folder
        self._inspector = inspector
        self._reuse = reuse
        self._allowed = frozenset(url.rstrip("/") for url in allowed_server_urls)

    async def accept(self, upload: Upload) -> Job:
        """Make a job of the upload, which survives a power cut when this returns. Takes the file, whatever happens.

        If the caller is cancelled before that, there is no job and no file.

        Raises:
            InvalidOption: an option is unknown or unusable.
            Forbidden: a VLM server that this server may not use.
            InvalidPageRange: the pages are not in the document.
            EmptyDocument, UnsupportedType, EncryptedDocument, BrokenDocument, HostileDocument: see `Inspector`.
            StorageFull: no room on the disk.
        """
        try:
            options = parse_options(upload.options)
            self._check_server(options)
            if (served := await self._serve_stored(upload, options)) is not None:
                return served
            inspection = await self._inspector.inspect(upload.path, upload.filename)
            document = Document(
                filename=clean_filename(upload.filename),
                suffix=inspection.suffix,
                size=upload.size,
                sha256=upload.sha256,
                pages=inspection.pages,
            )
            shards = plan_shards(document, options)
            return await self._enter(lambda job_id: self._enter_durably(job_id, upload.path, document, options, shards))
        except BaseException:
            await asyncio.shield(asyncio.to_thread(remove_tree, upload.path))
            raise

    def _check_server(self, options: ParseOptions) -> None:
        if options.server_url is not None and options.server_url.rstrip("/") not in self._allowed:
            raise Forbidden(
                "This server does not use that server_url. Leave it out, or have it added to the server's setting "
                "allowed_server_urls."
            )

    async def _serve_stored(self, upload: Upload, options: ParseOptions) -> Job | None:
        reuse = self._reuse
        if reuse is None or not options.cache:
            return None
        # Bytes that were parsed before were inspected before.
        return await self._enter(lambda job_id: reuse.serve(job_id, upload, options))

    async def _enter(self, enter: Callable[[str], Entered]) -> Entered:
        job_id = new_job_id()
        entering = asyncio.ensure_future(asyncio.to_thread(enter, job_id))
        try:
            return await asyncio.shield(entering)
        except asyncio.CancelledError:
            # The thread cannot be stopped. If it made a job, nobody has its id: take it back.
            undo = asyncio.ensure_future(self._undo(entering, job_id))
            with suppress(asyncio.CancelledError):
                await asyncio.shield(undo)
            raise

    def _enter_durably(
        self, job_id: str, path: Path, document: Document, options: ParseOptions, shards: Sequence[ShardPlan]
    ) -> Job:
        source = self._folder.source(job_id, document.suffix)
        try:
            with full_disk_told():
                sync_file(path)
                source.parent.mkdir(mode=0o700)
                path.rename(source)
                sync_folder(source.parent)
                sync_folder(self._folder.jobs)
            # A crash before this leaves a folder that the store does not know; it is removed at the next start.
            if self._reuse is None or not options.cache:
                return self._store.accept(job_id, document, options, shards)
            return self._reuse.accept(job_id, document, options, shards)
        except BaseException:
            remove_tree(self._folder.job(job_id))
            raise

    async def _undo(self, entering: asyncio.Future[Entered], job_id: str) -> None:
        await asyncio.wait([entering])
        if entering.exception() is None and entering.result() is not None:
            await asyncio.to_thread(self._store.remove, job_id)
            await asyncio.to_thread(remove_tree, self._folder.job(job_id))
