"""From an upload to a job: options checked, document inspected, file in its place, entered in the store."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from loguru import logger

from docfleet.addresses import canonical_all, split_addresses
from docfleet.errors import Busy, DocfleetError, Forbidden, InvalidOption
from docfleet.files import DataFolder, new_job_id, remove_tree, sync_file, sync_folder
from docfleet.intake.inspector import Inspector
from docfleet.intake.names import clean_filename
from docfleet.intake.plan import plan_shards
from docfleet.intake.reuse import Reuse
from docfleet.intake.spool import Upload, full_disk_told
from docfleet.options import ParseOptions, parse_options
from docfleet.records import Document, Job, Lane, Stage
from docfleet.store.admission import Terms
from docfleet.store.interface import Jobs

T = TypeVar("T")


class AwaitsRoom(Protocol):
    """How long a request still waits for room."""

    async def wait(self, busy: Busy, pages: int) -> None:
        """Wait until so many pages may fit.

        Raises:
            Busy: the refusal itself, when the time is over.
        """
        ...


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
            allowed_server_urls: VLM servers that callers may name; addresses that can be used.
            reuse: finds stored results; None parses everything.
        """
        self._store = store
        self._folder = folder
        self._inspector = inspector
        self._reuse = reuse
        self._allowed = frozenset(canonical_all(allowed_server_urls))

    async def accept(
        self,
        upload: Upload,
        terms: Terms = Terms(),  # noqa: B008 (frozen)
        patience: AwaitsRoom | None = None,
    ) -> Job:
        """Make a job of the upload. Takes the file, whatever happens.

        It survives a power cut when this returns, unless it is answered from a stored result and nobody relies on
        finding it again (`Terms.remembered`).

        If the caller is cancelled before that, there is no job and no file.

        Args:
            upload: as it lies on disk. `lane` among its options wins over the terms'.
            terms: on which the job comes in; the fingerprint of its key is made here.
            patience: waits for room where the store has none; None: a refusal is final.

        Raises:
            InvalidOption: an option is unknown or unusable, a server_url no address.
            Forbidden: a VLM server that this server may not use.
            InvalidPageRange: the pages are not in the document.
            EmptyDocument, UnsupportedType, EncryptedDocument, BrokenDocument, HostileDocument: see `Inspector`.
            Busy: no room in the store's bounds, and patience is over.
            KeyReused: the key stands for another document or other options.
            StorageFull: no room on the disk.
        """
        try:
            given = dict(upload.options)
            lane = _lane(given.pop("lane", None), terms.lane)
            options = parse_options(given)
            self._check_server(options)
            terms = replace(terms, lane=lane, fingerprint=_fingerprint(upload, options))
            if (served := await self._serve_stored(upload, options, terms)) is not None:
                return served
            inspection = await self._inspector.inspect(upload.path, upload.filename)
            document = Document(
                filename=clean_filename(upload.filename),
                suffix=inspection.suffix,
                size=upload.size,
                sha256=upload.sha256,
                pages=inspection.pages,
            )
            return await self._enter(upload.path, document, options, terms, patience)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(remove_tree, upload.path))
            raise

    def _check_server(self, options: ParseOptions) -> None:
        if options.server_url is None:
            return
        try:
            named = set(canonical_all(split_addresses(options.server_url)))
        except ValueError as exc:
            raise InvalidOption(f"option 'server_url': {exc}.") from None
        if not named or not named <= self._allowed:
            raise Forbidden(
                "This server does not use that server_url. Leave it out, or have it added to the server's setting "
                "allowed_server_urls."
            )

    async def _serve_stored(self, upload: Upload, options: ParseOptions, terms: Terms) -> Job | None:
        if self._reuse is None or not options.cache:
            return None
        # Bytes that were parsed before were inspected before.
        job_id = new_job_id()
        try:
            return await self._finished(partial(self._reuse.serve, job_id, upload, options, terms), job_id)
        except Busy:
            await self._forget(job_id)
            raise

    async def _enter(
        self, path: Path, document: Document, options: ParseOptions, terms: Terms, patience: AwaitsRoom | None
    ) -> Job:
        job_id, shards = new_job_id(), plan_shards(document, options)

        def accept() -> Job:
            if self._reuse is None or not options.cache:
                return self._store.accept(job_id, document, options, shards, terms)
            return self._reuse.accept(job_id, document, options, shards, terms)

        await self._finished(partial(self._place, job_id, path, document), job_id, enters=False)
        # A crash from here on leaves a folder that the store does not know; it is removed at the next start.
        while True:
            try:
                job = await self._finished(accept, job_id)
            except Busy as busy:
                try:
                    if patience is None:
                        raise
                    await patience.wait(busy, sum(plan.pages for plan in shards if plan.stage is not Stage.DOCUMENT))
                except BaseException:
                    await self._forget(job_id)
                    raise
            else:
                if job.id != job_id:
                    await self._forget(job_id)
                return job

    def _place(self, job_id: str, path: Path, document: Document) -> None:
        source = self._folder.source(job_id, document.suffix)
        with full_disk_told():
            sync_file(path)
            source.parent.mkdir(mode=0o700)
            path.rename(source)
            sync_folder(source.parent)
            sync_folder(self._folder.jobs)

    async def _finished(self, step: Callable[[], T], job_id: str, *, enters: bool = True) -> T:
        """Do a step in a thread, which cannot be stopped: if the caller is cancelled or it fails, undo it.

        A refusal for want of room is no failure: the document stays in its place and may be entered later.
        """
        working = asyncio.ensure_future(asyncio.to_thread(step))
        try:
            return await asyncio.shield(working)
        except Busy:
            raise
        except BaseException:
            # Nobody has the id of a job that was made, or perhaps was: take it back.
            undo = asyncio.ensure_future(self._undo(working, job_id, entered=enters))
            with suppress(asyncio.CancelledError):
                await asyncio.shield(undo)
            raise

    async def _undo(self, working: asyncio.Future[Any], job_id: str, *, entered: bool) -> None:
        await asyncio.wait([working])
        try:
            if entered:
                # Also after a failure, which may have come when the row was written already.
                await asyncio.to_thread(self._store.remove, job_id)
        except DocfleetError as exc:
            # A row without its document would fail in a worker, and an Idempotency-Key may stand for it. Files without
            # a row are removed at the next start.
            logger.warning("job {} was refused and cannot be removed yet, so its files stay: {}", job_id, exc.message)
            return
        await self._forget(job_id)

    async def _forget(self, job_id: str) -> None:
        await asyncio.shield(asyncio.to_thread(remove_tree, self._folder.job(job_id)))


def _lane(given: object, default: Lane) -> Lane:
    if given is None or given == "":
        return default
    try:
        return Lane(str(given))
    except ValueError:
        raise InvalidOption(f"lane {given!r} is not known; use {' or '.join(Lane)}.") from None


def _fingerprint(upload: Upload, options: ParseOptions) -> str:
    told = json.dumps([upload.sha256, clean_filename(upload.filename), options.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()
