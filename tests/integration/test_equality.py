"""Whatever its shape, a document read in shards by several processes gives the bytes that it gives uncut.

The full set, at more shard sizes and with both engines: `python -m benchmarks equality`.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from docfleet.options import ParseOptions
from tests.conftest import DOCUMENTS
from tests.equality import FORMATS, Case, Files, cuts, direct, for_workers, in_shards, of_size, pool, whole
from tests.equality_set import SET, make

MODEL = "tests.reading_engine:ReadingEngine"
REAL = sorted(path.name for path in DOCUMENTS.glob("*.pdf")) or ["none"]


@pytest.fixture(scope="module")
def workers() -> Iterator[ProcessPoolExecutor]:
    with pool() as executor:
        yield executor


def read_whole_cut_and_directly(workers: ProcessPoolExecutor, case: Case, work: Path) -> Files:
    """Compare the three ways and return the files."""
    uncut = whole(workers, case, work / "whole")
    found = cuts(workers, case)
    assert found is not None
    own = None if any(found.costs) else direct(workers, case.source)
    first, last = case.options.page_range(case.pages)
    ranges = of_size(found, first, last, 1)
    assert len(ranges) == last - first + 1
    expected = uncut.result()
    assert in_shards(workers, case, ranges, found.decisions, work / "cut") == expected
    if own is not None:
        told = own.result()
        assert {file: expected[file] for file in told} == told
    return expected


@pytest.mark.parametrize("name", [name for name, made in SET.items() if not made.long])
def test_a_document_read_page_by_page_by_several_processes_equals_the_uncut_one_and_mineru_itself(
    name: str, workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    files = read_whole_cut_and_directly(workers, Case(make(name, tmp_path)), tmp_path)
    assert len(files["document.md"]) > 100


def test_the_shards_that_the_server_cuts_for_its_workers_give_the_bytes_of_the_uncut_document(
    workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    case = Case(make("digital_and_scanned", tmp_path), options=ParseOptions(formats=FORMATS, start_page_id=1))
    uncut = whole(workers, case, tmp_path / "whole")
    found = cuts(workers, case)
    assert found is not None
    ranges = for_workers(found, 1, 2)
    assert ranges[0][0] == 1
    assert len(ranges) > 1
    assert in_shards(workers, case, ranges, found.decisions, tmp_path / "cut") == uncut.result()


@pytest.mark.parametrize("name", ["running_lines", "long_paragraphs", "empty_pages", "book"])
def test_an_engine_cut_at_windows_whose_document_stage_needs_all_pages_gives_the_same_at_every_size(
    name: str, workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    case = Case(make(name, tmp_path), engine=MODEL)
    expected = whole(workers, case, tmp_path / "whole").result()
    found = cuts(workers, case)
    assert found is not None
    sizes = [of_size(found, 0, case.pages - 1, size) for size in (1, 3)]
    sizes += [for_workers(found, 0, number) for number in (2, 4, 8)]
    for number, ranges in enumerate(sizes):
        assert len(ranges) > 1
        assert in_shards(workers, case, ranges, found.decisions, tmp_path / f"cut-{number}") == expected


def test_the_document_stage_of_that_engine_makes_other_things_of_a_page_when_the_others_are_missing(
    workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    source = make("running_lines", tmp_path)
    everything = whole(workers, Case(source, engine=MODEL), tmp_path / "whole").result()
    alone = ParseOptions(formats=FORMATS, start_page_id=2, end_page_id=2)
    one = whole(workers, Case(source, engine=MODEL, options=alone), tmp_path / "one").result()
    assert b"The Ledger of the Valley" in one["document.md"]
    assert b"The Ledger of the Valley" not in everything["document.md"]


@pytest.mark.needs("documents")
@pytest.mark.parametrize("name", REAL)
def test_a_real_document_read_page_by_page_equals_the_uncut_one_and_mineru_itself(
    name: str, documents: Path, workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    # Of scans two pages: each costs seconds, and the command above reads them all.
    options = ParseOptions(formats=FORMATS, end_page_id=1 if "scan" in name else None)
    read_whole_cut_and_directly(workers, Case(documents / name, options=options), tmp_path)
