"""Pages analysed by several workers and gathered once give the files that one worker gives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from docfleet.engine.interface import ParseRequest
from docfleet.engine.mineru.analysis import analyse_windows, gather, page_method
from docfleet.engine.mineru.sources import pdf_range
from docfleet.errors import Cancelled, DocfleetError, InternalError, InvalidPageRange
from docfleet.options import Method, ParseOptions, Tier
from docfleet.records import FailedPage
from tests.mineru_support import every_format, files_of, loaded_engine, make_pdf, request_for

PAGES = 6
WINDOW = 2


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINERU_PROCESSING_WINDOW_SIZE", str(WINDOW))


@pytest.fixture(scope="module")
def report_pdf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pdf(tmp_path_factory.mktemp("sharding") / "report.pdf", pages=PAGES)


def shard(source: Path, first: int, last: int, options: ParseOptions | None = None) -> ParseRequest:
    return request_for(source, pages=PAGES, first=first, last=last, options=options or every_format())


def read_part(request: ParseRequest, part: Path) -> list[int]:
    """The page stage with MinerU's flash analysis in the place of models: the same windows, files and numbers."""
    loaded_engine()
    part.mkdir(parents=True)
    counted: list[int] = []
    analyse_windows(request, request.source.read_bytes(), Tier.FLASH, "txt", part, counted.append, None)
    return counted


def finish(request: ParseRequest, parts: list[Path], output: Path) -> dict[str, bytes]:
    report = loaded_engine().finish(request, Tier.FLASH, parts, output, lambda _: None)
    made = files_of(output)
    assert set(report.files) == set(made)
    return made


@pytest.mark.parametrize("cuts", [[(0, 3), (4, 5)], [(0, 1), (2, 3), (4, 5)]])
def test_shards_cut_where_windows_end_give_the_same_files_byte_for_byte(
    cuts: list[tuple[int, int]], report_pdf: Path, tmp_path: Path
) -> None:
    whole = shard(report_pdf, 0, PAGES - 1)
    assert read_part(whole, tmp_path / "whole") == [WINDOW] * 3
    unsharded = finish(whole, [tmp_path / "whole"], tmp_path / "unsharded")
    parts = []
    for number, (first, last) in enumerate(cuts):
        parts.append(tmp_path / f"part-{number}")
        read_part(shard(report_pdf, first, last), parts[-1])
    # Shards end in any order; pages do not.
    assert finish(whole, parts[::-1], tmp_path / "sharded") == unsharded


def test_a_document_of_one_window_is_what_mineru_makes_of_it(
    report_pdf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINERU_PROCESSING_WINDOW_SIZE", "64")
    whole = shard(report_pdf, 0, PAGES - 1)
    assert read_part(whole, tmp_path / "part") == [PAGES]
    from mineru.parser import MinerUParser

    direct = MinerUParser(tier="flash", parse_mode="txt").parse(report_pdf)
    gathered = gather(whole, [tmp_path / "part"])
    assert gathered is not None
    assert direct._model_output is not None
    assert gathered.model.to_dict() == json.loads(direct._model_output.to_json())
    made = finish(whole, [tmp_path / "part"], tmp_path / "output")
    assert made["structured_content.json"].decode("utf-8").count("stands on this page alone") == PAGES


def test_a_range_keeps_the_documents_page_numbers_in_every_part(report_pdf: Path, tmp_path: Path) -> None:
    options = ParseOptions(start_page_id=2, end_page_id=4)
    counted = read_part(shard(report_pdf, 2, 3, options), tmp_path / "a")
    counted += read_part(shard(report_pdf, 4, 4, options), tmp_path / "b")
    assert counted == [2, 1]
    gathered = gather(shard(report_pdf, 2, 4, options), [tmp_path / "a", tmp_path / "b"])
    assert gathered is not None
    assert gathered.model.page_index_map == [2, 3, 4]
    layout = gathered.model.extensions["docvortex_layout"]
    assert [page["page_idx"] for page in layout["pages"]] == [2, 3, 4]
    assert gathered.model.metadata.document.title == "Orchard report"


def test_windows_end_at_the_same_pages_for_every_shard(report_pdf: Path, tmp_path: Path) -> None:
    options = ParseOptions(start_page_id=1)
    assert read_part(shard(report_pdf, 2, 5, options), tmp_path / "part") == [1, 2, 1]


def test_a_lost_or_doubled_part_is_an_error_and_never_a_shorter_document(report_pdf: Path, tmp_path: Path) -> None:
    read_part(shard(report_pdf, 0, 1), tmp_path / "a")
    read_part(shard(report_pdf, 4, 5), tmp_path / "c")
    whole = shard(report_pdf, 0, PAGES - 1)
    for parts in (["a", "c"], ["a", "a", "c"]):
        with pytest.raises(InternalError):
            gather(whole, [tmp_path / part for part in parts])


def test_parts_without_pages_gather_to_nothing(report_pdf: Path, tmp_path: Path) -> None:
    assert gather(shard(report_pdf, 0, PAGES - 1), [tmp_path]) is None


def test_progress_may_stop_the_work_between_windows(report_pdf: Path, tmp_path: Path) -> None:
    loaded_engine()

    def stop(_: int) -> None:
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        analyse_windows(
            shard(report_pdf, 0, PAGES - 1), report_pdf.read_bytes(), Tier.FLASH, "txt", tmp_path, stop, None
        )
    assert len(list(tmp_path.iterdir())) == 1


def test_every_shard_decides_method_auto_by_the_whole_document(tmp_path: Path) -> None:
    picture = tmp_path / "black.png"
    from PIL import Image

    Image.new("RGB", (400, 600), "black").save(picture)
    source = make_pdf(tmp_path / "mixed.pdf", pages=PAGES - 1, picture=picture, first_is_picture=True)
    data = source.read_bytes()
    assert page_method(shard(source, 0, 0), data) == page_method(shard(source, 3, 5), data) == "txt"
    only_picture = ParseOptions(end_page_id=0)
    assert page_method(shard(source, 0, 0, only_picture), data) == "ocr"
    assert page_method(shard(source, 0, 0, ParseOptions(method=Method.TXT)), data) == "txt"


def test_the_page_stage_leaves_a_digital_pdf_to_the_document_stage_at_flash(report_pdf: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.mkdir()
    loaded_engine().read_pages(shard(report_pdf, 0, PAGES - 1), Tier.FLASH, part, lambda _: None)
    assert not list(part.iterdir())


def test_a_range_beyond_the_end_is_refused_and_the_whole_range_keeps_the_bytes(report_pdf: Path) -> None:
    loaded_engine()
    data = report_pdf.read_bytes()
    with pytest.raises(InvalidPageRange):
        pdf_range(data, (PAGES, PAGES))
    assert pdf_range(data, (0, PAGES - 1)).data is data
    assert pdf_range(data, (4, 5)).numbers == [4, 5]


def test_a_page_given_up_is_left_out_at_flash_and_the_others_keep_their_numbers(
    report_pdf: Path, tmp_path: Path
) -> None:
    lost = FailedPage(page=2, cause="it killed its worker")
    request = replace(shard(report_pdf, 0, PAGES - 1), failed_pages=(lost,))
    part, output = tmp_path / "part", tmp_path / "output"
    loaded_engine().read_pages(request, Tier.FLASH, part, lambda _: None)
    output.mkdir()
    report = loaded_engine().finish(request, Tier.FLASH, [part], output, lambda _: None)
    assert (report.failed_pages, report.pages) == ((lost,), PAGES - 1)
    markdown = (output / "document.md").read_text()
    assert [page for page in range(PAGES) if f"Marker{page:03d}" in markdown] == [0, 1, 3, 4, 5]
    pages = {item["page_idx"] for item in json.loads((output / "content_list.json").read_text())}
    assert pages == {0, 1, 3, 4, 5}


def test_models_are_cut_where_windows_begin_and_flash_on_digital_text_nowhere(report_pdf: Path) -> None:
    engine, request = loaded_engine(), shard(report_pdf, 0, PAGES - 1)
    whole = engine.cuts(request, Tier.FLASH)
    assert whole is not None
    assert (whole.starts, sum(whole.costs)) == (frozenset(), 0)
    # All of it is document stage; how long that is tells whether it may be read beside others of its kind.
    assert whole.seconds == whole.finish > 0
    cuts = engine.cuts(request, Tier.BASIC)
    assert cuts is not None
    assert (cuts.starts, len(cuts.costs)) == (frozenset({0, 2, 4}), PAGES)
    assert cuts.decisions == {"method": "txt"}
    scanned = engine.cuts(replace(request, options=ParseOptions(method=Method.OCR)), Tier.FLASH)
    assert scanned is not None
    assert scanned.decisions == {"method": "ocr"}


def test_a_shard_asks_nobody_once_the_method_is_decided(report_pdf: Path) -> None:
    decided = replace(shard(report_pdf, 0, 1), decisions={"method": "ocr"})
    assert page_method(decided, b"never looked at") == "ocr"


@pytest.mark.parametrize("late", [False, True], ids=["before it was read", "after it was read"])
def test_windows_with_a_page_given_up_gather_without_it(late: bool, report_pdf: Path, tmp_path: Path) -> None:
    lost = tuple(FailedPage(page=page, cause="x") for page in (1, 4, 5))
    request = replace(shard(report_pdf, 0, PAGES - 1), failed_pages=lost)
    assert read_part(replace(request, failed_pages=() if late else lost), tmp_path / "part") == [WINDOW] * 3
    gathered = gather(request, [tmp_path / "part"])
    assert gathered is not None
    assert gathered.broken == (1, 4, 5)
    assert gathered.model.page_index_map == [0, 2, 3]
    assert len(gathered.model.pages) == 3
    assert [page["page_idx"] for page in gathered.model.extensions["docvortex_layout"]["pages"]] == [0, 2, 3]


def test_an_unusable_part_is_found_out_before_it_is_delivered(report_pdf: Path, tmp_path: Path) -> None:
    request = shard(report_pdf, 2, 3)
    read_part(request, tmp_path / "part")
    loaded_engine().check(request, Tier.BASIC, tmp_path / "part")
    with pytest.raises(InternalError):
        loaded_engine().check(shard(report_pdf, 2, 5), Tier.BASIC, tmp_path / "part")
    next((tmp_path / "part").glob("pages-*.json")).write_text("garbage")
    with pytest.raises(DocfleetError):
        loaded_engine().check(request, Tier.BASIC, tmp_path / "part")
