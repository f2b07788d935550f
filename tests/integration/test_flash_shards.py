"""`shards=fast`: digital documents cut at flash, their document stage done once over all pages."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pikepdf
import pytest

from docfleet.engine.interface import ParseRequest
from docfleet.engine.mineru import flash_stages
from docfleet.engine.mineru.flash_shards import reading_list
from docfleet.errors import InternalError
from docfleet.options import Method, ParseOptions, Shards, Tier
from docfleet.records import FailedPage
from docfleet.sharding.cutting import cut
from tests.equality import FORMATS, Case, Files, Ranges, cuts, in_shards, loaded, pool, whole
from tests.equality_set import book, make
from tests.mineru_support import files_of, loaded_engine, make_pdf, request_for
from tests.scans import make_scan

FAST = ParseOptions(formats=FORMATS, shards=Shards.FAST)
PAGES = 6
CUT = {"method": "txt", "flash": "cut"}


@pytest.fixture(scope="module")
def workers() -> Iterator[ProcessPoolExecutor]:
    with pool() as executor:
        yield executor


def warnings(files: Files) -> list[str]:
    told: list[str] = json.loads(files["report"])["warnings"]
    return told


def documents_equal(left: Files, right: Files) -> bool:
    return {**left, "report": b""} == {**right, "report": b""}


@pytest.mark.parametrize("name", ["headings", "running_lines", "table_over_pages", "footnotes", "page_sizes", "lists"])
def test_the_two_stages_over_all_pages_give_what_docvortex_gives_in_one(name: str, tmp_path: Path) -> None:
    loaded_engine()
    from docvortex.analyzers.native import PdfModel
    from docvortex.document.pdf import PDFDocument

    data = make(name, tmp_path).read_bytes()
    with PDFDocument(data) as document:
        expected = PdfModel().predict(document)
    with PDFDocument(data) as document:
        pages = flash_stages.prepare(document, range(document.page_count), lambda _: None)
    again = flash_stages.PreparedPages.from_bytes(pages.to_bytes())
    assert again is not None
    assert flash_stages.finalise(again) == expected
    assert any(expected)


@pytest.mark.parametrize("engine", ["embedded", "mineru"])
def test_running_headers_and_ranks_of_headings_survive_any_cut(
    engine: str, workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    case = Case(make("running_lines", tmp_path), engine=engine, options=FAST)
    exact = replace(case, options=ParseOptions(formats=FORMATS))
    uncut = whole(workers, exact, tmp_path / "whole")
    found = cuts(workers, case)
    assert found is not None
    every: list[Ranges] = [[(0, 2), (3, 5)], [(page, page) for page in range(6)]]
    for number, ranges in enumerate(every if engine == "embedded" else every[:1]):
        made = in_shards(workers, case, ranges, found.decisions, tmp_path / f"cut-{number}")
        assert [
            line
            for line in warnings(made)
            if line.startswith(f"shards=fast: this digital document was read in {len(ranges)}")
        ]
        assert documents_equal(made, uncut.result())


def test_a_long_book_is_cut_for_the_workers_and_comes_out_as_in_one_piece(
    workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    source = tmp_path / "book.pdf"
    book(source, 44)
    case = Case(source, options=FAST)
    uncut = whole(workers, case, tmp_path / "whole")
    found = cuts(workers, case)
    assert found is not None
    ranges: Ranges = [(plan.first_page, plan.last_page) for plan in cut(found, 0, 2)[:-1]]
    assert len(ranges) > 2
    made = in_shards(workers, case, ranges, found.decisions, tmp_path / "cut")
    # What was not cut is exact, and nothing is said.
    assert warnings(uncut.result()) == []
    assert documents_equal(made, uncut.result())


def test_exact_is_the_default_and_fast_changes_nothing_where_pages_are_recognised(tmp_path: Path) -> None:
    engine = loaded_engine()
    source = make_pdf(tmp_path / "report.pdf", pages=PAGES)
    uncut = engine.cuts(request_for(source, pages=PAGES), Tier.FLASH)
    assert uncut is not None
    assert uncut.starts == frozenset()
    recognised = ParseOptions(shards=Shards.FAST, method=Method.OCR)
    models = engine.cuts(request_for(source, pages=PAGES, options=recognised), Tier.FLASH)
    assert models is not None
    assert models.decisions == {"method": "ocr"}
    scan = make_scan(tmp_path / "scan.pdf", 3, digital=(1,), lines=3)
    mixed = loaded("embedded").cuts(request_for(scan, pages=3, options=FAST), Tier.FLASH)
    assert mixed is not None
    assert (mixed.decisions, mixed.starts) == ({"digital": [1]}, frozenset({0, 1, 2}))


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """Six pages in three shards."""
    source = make_pdf(tmp_path / "report.pdf", pages=PAGES)
    made = []
    for first in (0, 2, 4):
        made.append(tmp_path / f"part-{first}")
        made[-1].mkdir()
        request = replace(request_for(source, pages=PAGES, first=first, last=first + 1, options=FAST), decisions=CUT)
        counted: list[int] = []
        loaded_engine().read_pages(request, Tier.FLASH, made[-1], counted.append)
        loaded_engine().check(request, Tier.FLASH, made[-1])
        assert sum(counted) == 2
    return made


def finished(parts: list[Path], lost: tuple[FailedPage, ...] = ()) -> tuple[Files, tuple[str, ...], int]:
    folder = parts[0].parent
    request = request_for(folder / "report.pdf", pages=PAGES, options=FAST)
    output = folder / "output"
    output.mkdir()
    request = replace(request, decisions=CUT, failed_pages=lost)
    report = loaded_engine().finish(request, Tier.FLASH, parts, output, lambda _: None)
    return files_of(output), report.warnings, report.pages


def test_a_lost_or_doubled_shard_is_an_error_and_never_a_shorter_document(parts: list[Path]) -> None:
    for held in (parts[:2], [*parts, parts[0]]):
        with pytest.raises(InternalError):
            finished(held)
        (parts[0].parent / "output").rmdir()


@pytest.mark.parametrize("late", [False, True], ids=["before it was read", "after it was read"])
def test_a_page_given_up_is_left_out_of_its_shard_and_the_others_keep_their_numbers(
    late: bool, parts: list[Path], tmp_path: Path
) -> None:
    lost = FailedPage(page=2, cause="it killed its worker")
    if not late:
        (file,) = parts[1].iterdir()
        file.unlink()
        request = request_for(tmp_path / "report.pdf", pages=PAGES, first=3, last=3, options=FAST)
        loaded_engine().read_pages(replace(request, decisions=CUT), Tier.FLASH, parts[1], lambda _: None)
    files, _, pages = finished(parts, (lost,))
    assert pages == PAGES - 1
    markdown = files["document.md"].decode()
    assert [page for page in range(PAGES) if f"Marker{page:03d}" in markdown] == [0, 1, 3, 4, 5]
    assert {item["page_idx"] for item in json.loads(files["content_list.json"])} == {0, 1, 3, 4, 5}


def test_a_page_that_cannot_be_opened_is_named_and_the_others_are_delivered(tmp_path: Path) -> None:
    source = make_pdf(tmp_path / "report.pdf", pages=PAGES)
    with pikepdf.open(source, allow_overwriting_input=True) as pdf:
        pdf.Root.Pages.Kids[4] = pdf.make_indirect(pikepdf.Dictionary(Type=pikepdf.Name.Broken))
        pdf.save(source)
    made = []
    for first in (0, 3):
        made.append(tmp_path / f"part-{first}")
        made[-1].mkdir()
        request = replace(request_for(source, pages=PAGES, first=first, last=first + 2, options=FAST), decisions=CUT)
        loaded_engine().read_pages(request, Tier.FLASH, made[-1], lambda _: None)
        loaded_engine().check(request, Tier.FLASH, made[-1])
    output = tmp_path / "output"
    output.mkdir()
    request = replace(request_for(source, pages=PAGES, options=FAST), decisions=CUT)
    report = loaded_engine().finish(request, Tier.FLASH, made, output, lambda _: None)
    assert [failed.page for failed in report.failed_pages] == [4]
    assert report.pages == PAGES - 1


def test_parts_of_another_version_are_not_used_and_the_document_is_read_as_a_whole(parts: list[Path]) -> None:
    (file,) = parts[1].iterdir()
    file.write_bytes(pickle.dumps((("docvortex of old",), ("whatever it held",))))
    files, told, pages = finished(parts)
    assert (told, pages) == ((), PAGES)
    assert files["document.md"].decode().count("stands on this page alone") == PAGES


def test_garbage_and_code_in_a_part_are_found_out_before_it_is_delivered(parts: list[Path]) -> None:
    request = request_for(parts[0].parent / "report.pdf", pages=PAGES, first=0, last=1, options=FAST)
    request = replace(request, decisions=CUT)
    (file,) = parts[0].iterdir()
    good = file.read_bytes()

    class Harmful:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (parts[0] / "touched",))

    for content in (b"garbage", pickle.dumps(Harmful()), good[:-10]):
        file.write_bytes(content)
        with pytest.raises(Exception, match=r"."):
            loaded_engine().check(request, Tier.FLASH, parts[0])
    assert not (parts[0] / "touched").exists()


def test_what_stops_the_work_between_pages_comes_out_as_it_is(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(_: int) -> None:
        raise Stop

    source = make_pdf(tmp_path / "report.pdf", pages=PAGES)
    request = replace(request_for(source, pages=PAGES, first=0, last=2, options=FAST), decisions=CUT)
    with pytest.raises(Stop):
        loaded_engine().read_pages(request, Tier.FLASH, tmp_path, stop)


def kill_in_the_midst(request: ParseRequest, part: Path) -> None:
    def kill(_: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    loaded_engine().read_pages(request, Tier.FLASH, part, kill)


def test_after_a_reader_died_the_others_read_their_own_pages_alone_and_the_document_is_whole(tmp_path: Path) -> None:
    source = make_pdf(tmp_path / "report.pdf", pages=PAGES)
    request = replace(request_for(source, pages=PAGES, options=FAST), decisions=CUT)
    shards = [replace(request, first_page=first, last_page=first + 1) for first in (0, 2, 4)]
    made = [tmp_path / f"part-{shard.first_page}" for shard in shards]
    for part in made:
        part.mkdir()
    assert set(reading_list(shards[1], made[1])) == set(range(PAGES))
    reader = multiprocessing.get_context("spawn").Process(target=kill_in_the_midst, args=(shards[1], made[1]))
    reader.start()
    reader.join(120)
    assert reader.exitcode == -9
    assert reading_list(shards[1], made[1]) == [2, 3]
    for shard, part in zip(shards, made, strict=True):
        loaded_engine().read_pages(shard, Tier.FLASH, part, lambda _: None)
        loaded_engine().check(shard, Tier.FLASH, part)
    files, _, pages = finished(made)
    assert pages == PAGES
    assert files["document.md"].decode().count("stands on this page alone") == PAGES


def test_a_reader_that_lives_or_ended_well_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    source = make_pdf(tmp_path / "report.pdf", pages=PAGES)
    request = replace(request_for(source, pages=PAGES, first=2, last=3, options=FAST), decisions=CUT)
    part = tmp_path / "part"
    part.mkdir()
    (tmp_path / f"reading-along-{os.getppid()}-0").touch()
    assert set(reading_list(request, part)) == set(range(PAGES))
    loaded_engine().read_pages(request, Tier.FLASH, part, lambda _: None)
    assert set(reading_list(request, part)) == set(range(PAGES))
