"""Records and short cuts for the tests of the store."""

from __future__ import annotations

from typing import Any, Protocol

from docfleet.errors import WorkerLost
from docfleet.files import new_job_id
from docfleet.options import ParseOptions
from docfleet.records import Claim, Document, Job, ProcessIdentity, ShardPlan, Stage
from docfleet.store.admission import Terms
from docfleet.store.claims import Claims
from docfleet.store.interface import Leases

ME = ProcessIdentity(pid=100, started=1)
OTHER = ProcessIdentity(pid=200, started=2)
DEFAULT = Terms()
LOST = WorkerLost("The worker died.").record()


class Store(Claims, Leases, Protocol):
    """All roles in one object."""

    def close(self) -> None: ...


def a_document(pages: int = 3, filename: str = "paper.pdf") -> Document:
    return Document(filename=filename, suffix="pdf", size=1234, sha256="ab" * 32, pages=pages)


def accept(store: Store, *plans: ShardPlan, pages: int = 3, terms: Terms = DEFAULT) -> Job:
    plans = plans or (ShardPlan(stage=Stage.WHOLE, first_page=0, last_page=pages - 1),)
    return store.accept(new_job_id(), a_document(pages), ParseOptions(), plans, terms)


def accept_cut(store: Store, *ranges: tuple[int, int], terms: Terms = DEFAULT) -> Job:
    """Accept a job of page shards over `ranges` and the document shard over all of them."""
    plans = [ShardPlan(stage=Stage.PAGES, first_page=first, last_page=last) for first, last in ranges]
    last = max(last for _, last in ranges)
    return accept(
        store, *plans, ShardPlan(stage=Stage.DOCUMENT, first_page=0, last_page=last), pages=last + 1, terms=terms
    )


def must_claim(store: Store, owner: ProcessIdentity = ME) -> Claim:
    claim = store.claim(owner, 0)
    assert claim is not None
    return claim


def report(pages: int, *failed: int, **extra: Any) -> dict[str, Any]:
    return {"tier": "flash", "pages": pages, "failed_pages": [{"page": p, "cause": "x"} for p in failed], **extra}


def job_of(store: Store, job: Job) -> Job:
    found = store.job(job.id)
    assert found is not None
    return found
