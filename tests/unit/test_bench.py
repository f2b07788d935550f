"""A claim becomes work: who reads it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from docfleet.engine.interface import EngineContext
from docfleet.errors import ReaderUnavailable, TierUnavailable
from docfleet.files import DataFolder, new_job_id
from docfleet.options import ParseOptions, Tier
from docfleet.records import Claim, Document, ProcessIdentity, Stage
from docfleet.shelf.folder import Shelves
from docfleet.worker.bench import Bench
from tests.engines import FaultyEngine

CLAIM = Claim(
    shard_id=1,
    attempt=1,
    owner=ProcessIdentity(pid=1, started=1),
    stage=Stage.PAGES,
    first_page=0,
    last_page=1,
    job_id=new_job_id(),
    document=Document(filename="a.pdf", suffix="pdf", size=1, sha256="00", pages=4),
    options=ParseOptions(),
)


class Better(FaultyEngine):
    """Preferred wherever it is loaded."""

    name: ClassVar[str] = "better"

    def missing(self, tier: Tier, suffix: str, options: ParseOptions) -> str | None:
        return None if tier is Tier.BASIC else "only basic."


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    folder = DataFolder(tmp_path)
    return Bench(folder, [Better(), FaultyEngine()], Shelves(folder, "engines"))


def test_a_document_that_was_not_cut_is_read_by_the_best_there_is(bench: Bench) -> None:
    assert bench.decode(CLAIM).choice.reader == "better/basic"


@pytest.mark.parametrize("stage", [Stage.PAGES, Stage.DOCUMENT])
def test_one_that_was_cut_is_read_by_who_cut_it_and_its_pages_lie_on_that_shelf(bench: Bench, stage: Stage) -> None:
    work = bench.decode(replace(CLAIM, stage=stage, reader="faulty/flash"))
    assert work.choice.reader == "faulty/flash"
    assert work.shelf.made_by != bench.decode(CLAIM).shelf.made_by


def test_a_probe_says_when_its_pages_are_read_and_counts_windows_as_the_document_does(
    bench: Bench, tmp_path: Path
) -> None:
    options = ParseOptions(start_page_id=1)
    claim = replace(CLAIM, stage=Stage.PROBE, reader="faulty/flash", first_page=2, last_page=3, options=options)
    work = bench.decode(claim)
    assert (work.request.counted_from, work.request.options.start_page_id) == (1, 2)
    work.choice.engine.load(
        EngineContext(device="cpu", threads=1, model_source="local", vlm_server_url=None, scratch=tmp_path)
    )
    made: list[set[str]] = []

    def joining() -> None:
        (part,) = tmp_path.rglob("lines.json")
        made.append({path.name for path in part.parent.iterdir()})

    bench.perform(replace(work, joining=joining), lambda pages: None)
    assert made == [{"engine", "worker", "lines.json"}], "read, and not joined yet"


def test_who_cannot_go_on_with_a_document_says_so(bench: Bench) -> None:
    with pytest.raises(ReaderUnavailable, match="gone is not here"):
        bench.decode(replace(CLAIM, reader="gone/basic"))
    with pytest.raises(TierUnavailable, match="only flash"):
        bench.decode(replace(CLAIM, reader="faulty/basic"))
