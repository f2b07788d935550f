"""Results made of finished pages equal fresh ones byte for byte: the real engines, counting what they really read."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from docfleet.engine.embedded import EmbeddedEngine
from docfleet.engine.embedded.parts import PartWriter
from docfleet.engine.embedded.shelving import piece_of, take
from docfleet.engine.interface import EngineContext, ParseReport, ParseRequest
from docfleet.engine.mineru.analysis import analyse_windows, unread_pages
from docfleet.options import Method, ParseOptions, Tier
from docfleet.records import FailedPage
from docfleet.shelf.folder import FolderShelf
from tests.mineru_support import every_format, files_of, loaded_engine, make_pdf, request_for
from tests.scans import make_scan

PAGES = 3
DIGITAL = (1,)
SCANNED = [0, 2]


@dataclass
class CountingShelf(FolderShelf):
    """Remembers what was put: it was really read."""

    read: list[Any] = field(default_factory=list)

    def put(self, piece: Mapping[str, Any], content: bytes) -> None:
        self.read.append(next(iter(piece.values())))
        super().put(piece, content)


def shelf(root: Path) -> CountingShelf:
    return CountingShelf(root=root, document="ab" * 32, made_by="engine")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> EmbeddedEngine:
    engine = EmbeddedEngine()
    scratch = tmp_path_factory.mktemp("scratch")
    engine.load(EngineContext(device="cpu", threads=2, model_source="embedded", vlm_server_url=None, scratch=scratch))
    return engine


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    return make_scan(folder / "mixed.pdf", PAGES, digital=DIGITAL, turned=(2,), lines=3, picture=0)


Result = tuple[ParseReport, dict[str, bytes]]


def parse(engine: EmbeddedEngine, source: Path, options: ParseOptions, work: Path, pages: CountingShelf) -> Result:
    """Both stages over the range of the options."""
    first, last = options.page_range(PAGES)
    request = replace(request_for(source, pages=PAGES, first=first, last=last, options=options), shelf=pages)
    part, output = work / "part", work / "output"
    engine.read_pages(request, Tier.FLASH, part, lambda _: None)
    engine.check(request, Tier.FLASH, part)
    report = engine.finish(request, Tier.FLASH, [part], output, lambda _: None)
    return replace(report, timings={}), files_of(output)


RANGES = {
    "whole": every_format(),
    "some": every_format().model_copy(update={"start_page_id": 1, "end_page_id": 2}),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: tmp_path_factory.mktemp(name) for name in RANGES}


@pytest.fixture(scope="module")
def fresh(engine: EmbeddedEngine, mixed: Path, folders: dict[str, Path]) -> dict[str, Result]:
    """Results of which every page was read; they leave their shelves in `folders`."""
    return {
        name: parse(engine, mixed, options, folders[name], shelf(folders[name] / "shelf"))
        for name, options in RANGES.items()
    }


@pytest.fixture
def filled(fresh: dict[str, Result], folders: dict[str, Path], tmp_path: Path) -> Path:
    """A shelf with all pages of the document."""
    return Path(shutil.copytree(folders["whole"] / "shelf", tmp_path / "shelf"))


@pytest.mark.parametrize(("first", "then"), [("whole", "some"), ("some", "whole")])
def test_recognised_pages_serve_other_ranges_and_give_the_same_bytes(
    first: str,
    then: str,
    engine: EmbeddedEngine,
    mixed: Path,
    fresh: dict[str, Result],
    folders: dict[str, Path],
    tmp_path: Path,
) -> None:
    shutil.copytree(folders[first] / "shelf", tmp_path / "shelf")
    already = len([path for path in (tmp_path / "shelf").glob("*/*") if path.is_file()])
    read = []
    for name in (then, first):
        pages = shelf(tmp_path / "shelf")
        assert parse(engine, mixed, RANGES[name], tmp_path / name, pages) == fresh[name]
        read += pages.read
    assert already + len(read) == len(SCANNED)
    assert any(name.startswith("images/") for name in fresh["whole"][1])


def test_formats_and_switches_need_no_page_anew_and_another_method_only_those_it_adds(
    engine: EmbeddedEngine, mixed: Path, filled: Path, tmp_path: Path
) -> None:
    for number, (options, expected) in enumerate(
        (
            (ParseOptions.model_validate({"formats": ["html"], "table_enable": False, "lang": "de"}), []),
            (ParseOptions(method=Method.OCR), list(DIGITAL)),
            (ParseOptions(method=Method.TXT), []),
            (ParseOptions(), []),
        )
    ):
        pages = shelf(filled)
        made = parse(engine, mixed, options, tmp_path / f"again-{number}", pages)
        assert pages.read == expected
        if expected:
            assert made == parse(engine, mixed, options, tmp_path / f"alone-{number}", shelf(tmp_path / "new"))


def test_pages_on_the_shelf_cost_nothing_when_a_document_is_cut(
    engine: EmbeddedEngine, mixed: Path, folders: dict[str, Path], fresh: dict[str, Result]
) -> None:
    pages = shelf(folders["some"] / "shelf")
    cuts = engine.cuts(replace(request_for(mixed, pages=PAGES), shelf=pages), Tier.FLASH)
    assert cuts is not None
    assert [page for page, cost in enumerate(cuts.costs) if cost] == [0]
    assert cuts.decisions == {"digital": list(DIGITAL)}


@pytest.mark.parametrize("content", [b"", b"{}", b"garbage\n", b'{"record":{"page":0},"pictures":[]}\n'])
def test_a_piece_that_is_no_page_is_none(content: bytes, tmp_path: Path) -> None:
    pages = shelf(tmp_path / "shelf")
    pages.put(piece_of(0), content)
    assert take(pages, 0, PartWriter(tmp_path / "part")) is None


def test_a_page_whose_piece_says_another_page_is_read_again(
    engine: EmbeddedEngine, mixed: Path, filled: Path, fresh: dict[str, Result], tmp_path: Path
) -> None:
    pages = shelf(filled)
    pages.put(piece_of(2), pages.get(piece_of(0)) or b"")
    again = shelf(filled)
    assert parse(engine, mixed, RANGES["some"], tmp_path / "again", again) == fresh["some"]
    assert again.read == [2]


def windows(request: ParseRequest, part: Path, pages: CountingShelf) -> dict[str, bytes]:
    """The page stage with MinerU's flash analysis in the place of models: the same windows, files and numbers."""
    loaded_engine()
    part.mkdir(parents=True)
    held = replace(request, shelf=pages)
    analyse_windows(held, request.source.read_bytes(), Tier.FLASH, "txt", part, lambda _: None, None)
    return files_of(part)


def test_windows_of_models_are_used_again_where_they_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINERU_PROCESSING_WINDOW_SIZE", "2")
    source, root = make_pdf(tmp_path / "report.pdf", pages=6), tmp_path / "shelf"
    request = request_for(source, pages=6, options=every_format())
    first = shelf(root)
    made = windows(request, tmp_path / "first", first)
    assert first.read == [[0, 1], [2, 3], [4, 5]]

    def ranged(start: int, end: int, **changes: Any) -> ParseRequest:
        options = ParseOptions(start_page_id=start, end_page_id=end)
        return replace(request_for(source, pages=6, first=start, last=end, options=options), **changes)

    lost = (FailedPage(page=3, cause="x"),)
    for number, (wanted, expected) in enumerate(
        (
            (request, []),
            (replace(request, options=ParseOptions()), []),
            # Windows begin where the wanted range does.
            (ranged(2, 5), []),
            (ranged(2, 4), [[4, 4]]),
            (ranged(1, 4), [[1, 2], [3, 4]]),
            (replace(request, failed_pages=lost), [[2, 3]]),
            (ranged(0, 1, options=ParseOptions(end_page_id=1, server_url="http://vlm.example/")), [[0, 1]]),
        )
    ):
        pages, alone = shelf(root), shelf(tmp_path / f"alone-{number}")
        unread = unread_pages(replace(wanted, shelf=pages), "txt")
        part = windows(wanted, tmp_path / f"part-{number}", pages)
        assert pages.read == expected
        assert unread == {page for low, high in expected for page in range(low, high + 1)}
        assert part == windows(wanted, tmp_path / f"fresh-{number}", alone)
    assert made == windows(request, tmp_path / "last", shelf(root))
