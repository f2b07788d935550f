"""Stored results instead of work: the same bytes, the same effective options, an engine that would do the same again.

A worker announces a fingerprint of its engines once they are loaded, and the store keeps with each result which one
made it. A stored result serves while some worker of today has that fingerprint. Before any worker of this run is
loaded nothing stored is served: an upgrade may have changed what they make.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from hashlib import sha256
from typing import Protocol

from loguru import logger

from docfleet.errors import NotFound
from docfleet.files import DataFolder, remove_tree
from docfleet.intake.names import clean_filename
from docfleet.intake.spool import Upload, full_disk_told
from docfleet.options import Format, ParseOptions
from docfleet.process.identity import is_alive
from docfleet.records import Document, Job, ShardPlan
from docfleet.store.admission import Terms
from docfleet.store.interface import Jobs
from docfleet.store.reuse import Reusing, hand_on, link_result

#: Formats that show the document's name in their text.
_TITLED = frozenset({Format.HTML, Format.LATEX})
#: Options that do not change the result as such, or stand in the key in another form.
_NOT_IN_KEY = frozenset({"backend", "tier", "start_page_id", "end_page_id", "formats", "cache"})


class ReuseStore(Jobs, Reusing, Protocol):
    """What is asked of a store."""


class Reuse:
    """Finds stored results. Blocks on the disk; threads may share it."""

    def __init__(self, store: ReuseStore, folder: DataFolder) -> None:
        self._store = store
        self._folder = folder
        #: By slot: a worker that died or is loading will be what it was, unless it says otherwise.
        self._engines: dict[int, str] = {}

    def serve(self, job_id: str, upload: Upload, options: ParseOptions, terms: Terms) -> Job | None:
        """Make a job that is completed at once with a stored result; None where there is none.

        It survives a power cut if the terms say that it is `remembered`.
        Takes the upload's file if it does, or if the key in `terms` stands for a job, which is then returned. Where it
        raises, the job may be entered, and its folder is there: the caller removes both, the row first.

        Raises:
            InvalidPageRange: the pages are not in the document.
            KeyReused: the key stands for another document or other options.
        """
        engines = self.engines()
        document = self._known(upload, engines) if engines else None
        if document is None:
            return None
        source = self._store.reusable(reuse_key(document, options), engines)
        if source is None or source.output is None:
            return None
        served = None
        try:
            files: Sequence[str] = (source.report or {}).get("files", ())
            with full_disk_told():
                target = self._folder.result(job_id, 1)
                output = link_result(self._folder, source.output, files, target, durable=terms.remembered)
            # A crash before this leaves a folder that the store does not know; it is removed at the next start.
            served = self._store.serve(job_id, document.filename, options, source, output, terms)
        except NotFound as exc:
            logger.warning("job {} serves nobody any more: {}", source.id, exc.message)
            self._store.forget_result(source.id)
        if served is not None:
            remove_tree(upload.path)
        if served is None or served.id != job_id:
            remove_tree(self._folder.job(job_id))
        return served

    def accept(
        self, job_id: str, document: Document, options: ParseOptions, shards: Sequence[ShardPlan], terms: Terms
    ) -> Job:
        """Enter a job, which waits for the result of an identical one that is under way, if there is one."""
        key = reuse_key(document, options)
        job = self._store.accept(job_id, document, options, shards, terms, reuse_key=key, engines=self.engines())
        # The result may have come since it was looked for. Whatever fails here is no reason to refuse this document: it
        # is entered, and the others' results are no business of its caller. The supervisor tries again.
        with logger.catch(message="a result could not be handed on yet"):
            if hand_on(self._store, self._folder):
                return self._store.job(job.id) or job
        return job

    def engines(self) -> Collection[str]:
        """Return the fingerprints of this run's workers."""
        for worker in self._store.workers():
            if worker.engines and is_alive(worker.identity):
                self._engines[worker.slot] = worker.engines
        return frozenset(self._engines.values())

    def _known(self, upload: Upload, engines: Collection[str]) -> Document | None:
        name = clean_filename(upload.filename)
        for document in self._store.known_documents(upload.sha256, engines):
            # The name's ending chooses between kinds of text: the same bytes may be html or csv.
            if _ending(document.filename) == _ending(name):
                return Document(
                    filename=name,
                    suffix=document.suffix,
                    size=document.size,
                    sha256=document.sha256,
                    pages=document.pages,
                )
        return None


def reuse_key(document: Document, options: ParseOptions) -> str:
    """Return what two jobs have in common if, and only if, the result of one is right for the other.

    Raises:
        InvalidPageRange: the pages are not in the document.
    """
    effective = options.model_dump(mode="json", exclude=set(_NOT_IN_KEY))
    effective |= {
        "sha256": document.sha256,
        "suffix": document.suffix,
        "pages": options.page_range(document.pages),
        # What has no pages is read whole, and a range that was named then gets a warning that others must not see.
        "range_named": document.pages == 1 and options.end_page_id is not None,
        "tier": options.wanted_tier,
        "formats": sorted(options.formats),
        "title": document.filename if _TITLED.intersection(options.formats) else None,
    }
    return sha256(json.dumps(effective, sort_keys=True).encode()).hexdigest()


def _ending(filename: str) -> str:
    return filename.rpartition(".")[2].lower() if "." in filename else ""
