"""Pages analysed by several workers and gathered once give the files that one worker gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from docfleet.engine.interface import ParseRequest
from docfleet.engine.mineru.analysis import analyse_windows, gather, page_method
from docfleet.engine.mineru.sources import pdf_range
from docfleet.errors import Cancelled, InternalError, InvalidPageRange
from docfleet.options import Method, ParseOptions, Tier
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
