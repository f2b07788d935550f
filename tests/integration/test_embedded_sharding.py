"""Scans read in shards give the files that they give in one piece, byte for byte."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from docfleet.engine.embedded import EmbeddedEngine
from docfleet.engine.interface import EngineContext, ParseReport, ParseRequest
from docfleet.options import Tier
from docfleet.records import FailedPage
from tests.mineru_support import every_format, files_of, request_for
from tests.scans import make_scan

PAGES = 6
DIGITAL = (2, 5)
TURNED = (3,)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> EmbeddedEngine:
    engine = EmbeddedEngine()
    scratch = tmp_path_factory.mktemp("scratch")
    engine.load(EngineContext(device="cpu", threads=2, model_source="embedded", vlm_server_url=None, scratch=scratch))
    return engine


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    return make_scan(folder / "mixed.pdf", PAGES, digital=DIGITAL, turned=TURNED, lines=6)


def read(
    engine: EmbeddedEngine,
    request: ParseRequest,
    ranges: Sequence[tuple[int, int]],
    work: Path,
    given_up: tuple[FailedPage, ...] = (),
) -> tuple[ParseReport, dict[str, bytes]]:
    parts = []
    for first, last in ranges:
        shard = replace(request, first_page=first, last_page=last)
        part = work / f"part-{first}"
        part.mkdir(parents=True)
        engine.read_pages(shard, Tier.FLASH, part, lambda _: None)
        engine.check(shard, Tier.FLASH, part)
        parts.append(part)
    output = work / "output"
    output.mkdir()
    told = replace(request, failed_pages=request.failed_pages or given_up)
    return engine.finish(told, Tier.FLASH, parts, output, lambda _: None), files_of(output)


class Stop(Exception):
    """What a short document that waits makes of `progress`."""


def test_a_part_that_stopped_after_any_page_holds_the_pages_told_of(
    engine: EmbeddedEngine, mixed: Path, tmp_path: Path
) -> None:
    request = request_for(mixed, pages=PAGES, options=every_format())
    for last in range(3):
        told = 0

        def progress(pages: int, last: int = last) -> None:
            nonlocal told
            told += pages
            if told > last:
                raise Stop

        part = tmp_path / f"part-{last}"
        part.mkdir()
        with pytest.raises(Stop):
            engine.read_pages(request, Tier.FLASH, part, progress)
        assert told == last + 1
        engine.check(replace(request, last_page=last), Tier.FLASH, part)


@pytest.fixture(scope="module")
def unsharded(
    engine: EmbeddedEngine, mixed: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ParseReport, dict[str, bytes]]:
    request = request_for(mixed, pages=PAGES, options=every_format())
    return read(engine, request, [(0, PAGES - 1)], tmp_path_factory.mktemp("unsharded"))


@pytest.mark.parametrize("size", [1, 3])
def test_shards_of_any_size_with_decisions_taken_once_give_the_same_files(
    size: int, engine: EmbeddedEngine, mixed: Path, unsharded: tuple[ParseReport, dict[str, bytes]], tmp_path: Path
) -> None:
    request = request_for(mixed, pages=PAGES, options=every_format())
    cuts = engine.cuts(request, Tier.FLASH)
    assert cuts is not None
    ranges = [(first, min(first + size, PAGES) - 1) for first in range(0, PAGES, size)]
    report, files = read(engine, replace(request, decisions=cuts.decisions), ranges, tmp_path)
    expected, whole = unsharded
    assert files == whole
    assert replace(report, timings={}) == replace(expected, timings={})
    text = files["document.md"].decode()
    assert [page for page in range(PAGES) if f"Marker{page:03d}" in text] == list(range(PAGES))


def test_only_pages_to_be_recognised_cost_anything(engine: EmbeddedEngine, mixed: Path) -> None:
    request = request_for(mixed, pages=PAGES)
    cuts = engine.cuts(request, Tier.FLASH)
    assert cuts is not None
    assert [page for page, cost in enumerate(cuts.costs) if cost == 0] == list(DIGITAL)
    assert cuts.decisions == {"digital": list(DIGITAL)}
    assert cuts.starts == frozenset(range(PAGES))


@pytest.mark.parametrize("page", [0, 2], ids=["scanned", "digital"])
def test_a_page_given_up_is_missing_and_named_and_the_others_are_there(
    page: int, engine: EmbeddedEngine, mixed: Path, tmp_path: Path
) -> None:
    lost = FailedPage(page=page, cause="it killed its worker")
    request = replace(request_for(mixed, pages=PAGES), failed_pages=(lost,))
    ranges = [(first, last) for first, last in itertools.pairwise(range(-1, PAGES)) if last != page]
    report, files = read(engine, request, [(last, last) for _, last in ranges], tmp_path / "before")
    assert report.failed_pages == (lost,)
    assert report.pages == PAGES - 1
    text = files["document.md"].decode()
    assert [number for number in range(PAGES) if f"Marker{number:03d}" in text] == [
        number for number in range(PAGES) if number != page
    ]
    # What only the document stage stumbled over is in a part, and left out all the same.
    _, late = read(engine, replace(request, failed_pages=()), [(0, PAGES - 1)], tmp_path / "after", (lost,))
    assert late == files


def test_a_part_that_lacks_a_page_is_found_out_before_it_is_delivered(
    engine: EmbeddedEngine, mixed: Path, tmp_path: Path
) -> None:
    request = request_for(mixed, pages=PAGES, first=2, last=2)
    engine.read_pages(request, Tier.FLASH, tmp_path, lambda _: None)
    engine.check(request, Tier.FLASH, tmp_path)
    with pytest.raises(Exception, match="each of its pages once"):
        engine.check(replace(request, last_page=3), Tier.FLASH, tmp_path)
