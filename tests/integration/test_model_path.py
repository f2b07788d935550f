"""MinerU's real model path at tier basic, on weights of the tests' own making: loading, batches, cuts and failures."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import tiny_models
from tests.mineru_support import files_of
from tests.model_pages import make_pages
from tests.model_path import WINDOW, Call, ask, worker_environment

PAGES = 2 * WINDOW + 1
FORMATS = "markdown,content_list,middle_json,model_output,structured_content"
WHOLE = [[0, PAGES - 1]]
#: Readers of text: for pages, for tables, for seals.
EARLY = ["layout", "mfr", "ocr", "ocr", "ocr", "table_cls", "table_ori_cls", "wired_table", "wireless_table"]
CUT = [[0, WINDOW - 1], [WINDOW, PAGES - 1]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_models.make(folder)
    return folder


@dataclass(frozen=True)
class Made:
    """What one process of the engine's made of two documents, and one of MinerU's own."""

    folder: Path
    answers: dict[str, Any]

    def files(self, work: str) -> dict[str, bytes]:
        return files_of(self.folder / work / "output")

    def blocks(self, work: str) -> list[dict[str, Any]]:
        blocks: list[dict[str, Any]] = json.loads(self.files(work)["content_list.json"])
        return blocks


@pytest.fixture(scope="module")
def made(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    txt = make_pages(folder / "txt.pdf", PAGES)
    ocr = make_pages(folder / "ocr.pdf", PAGES, scanned=True)
    environment = worker_environment(models, folder / "home", MINERU_INTRA_OP_NUM_THREADS="3")
    calls: dict[str, Call] = {
        "early": ("loaded_early", {}),
        "sessions": ("sessions", {}),
        "first": ("page_seconds", {"source": str(txt), "pages": PAGES}),
        "count": ("count_batches", {}),
        "txt": parse(txt, folder / "txt", WHOLE, method="txt"),
        "batches": ("batches", {}),
        "learned": ("page_seconds", {"source": str(txt), "pages": PAGES}),
        "txt-cut": parse(txt, folder / "txt-cut", CUT, method="txt"),
        "ocr": parse(ocr, folder / "ocr", WHOLE, method="ocr"),
        "ocr-cut": parse(ocr, folder / "ocr-cut", CUT, method="ocr"),
        "no-formulas": finish_again(txt, folder, "no-formulas", formula_enable=False),
        "no-tables": finish_again(txt, folder, "no-tables", table_enable=False),
    }
    answers = dict(zip(calls, ask(environment, *calls.values()), strict=True))
    direct: list[Call] = [
        ("parse_directly", {"source": str(source), "method": name, "output": str(folder / f"{name}-direct/output")})
        for name, source in (("txt", txt), ("ocr", ocr))
    ]
    ask(environment, *direct)
    return Made(folder, answers)


def parse(source: Path, work: Path, cuts: list[list[int]], pages: int = PAGES, **options: Any) -> Call:
    settings = {"source": str(source), "pages": pages, "cuts": cuts, "work": str(work), "formats": FORMATS}
    return "parse_parts", settings | options


def finish_again(source: Path, folder: Path, work: str, **options: Any) -> Call:
    settings = {"source": str(source), "pages": PAGES, "work": str(folder / "txt"), "formats": FORMATS}
    return "finish_parts", settings | {"output": str(folder / work / "output")} | options


@pytest.mark.parametrize("method", ["txt", "ocr"])
def test_pages_cut_at_windows_give_what_uncut_ones_give_and_what_mineru_gives_itself(made: Made, method: str) -> None:
    whole = made.files(method)
    assert made.files(f"{method}-cut") == whole
    report = made.answers[method]["report"]
    assert (report["tier"], report["pages"], report["warnings"]) == ("basic", PAGES, [])
    assert set(report["files"]) == set(whole)
    assert made.answers[method]["starts"] == [0, WINDOW, 2 * WINDOW]
    names = {"markdown.md": "document.md", "middle_json.json": "middle.json"}
    direct = made.files(f"{method}-direct")
    assert len(direct) > 10
    for name, content in direct.items():
        assert whole[names.get(name, name)] == content, name
    kinds = {block["type"] for block in made.blocks(method)}
    assert kinds >= {"text", "equation", "table", "image", "header", "page_number"}


def test_a_paragraph_goes_on_over_the_end_of_a_window_and_pages_differ(made: Made) -> None:
    text = made.files("txt")["document.md"].decode()
    joined = re.findall(r"Part (\d+) of the survey .* and the quarry\.\n", text)
    # The last page has no page after it.
    assert [int(number) for number in joined] == list(range(0, PAGES - 1, 2))
    assert [int(number) for number in re.findall(r"Marker(\d+)", text)] == list(range(PAGES))
    formulas = re.findall(r"\$\$\n(.*?)\n\$\$", text)
    assert len(formulas) == PAGES
    assert len(set(formulas)) > 1


def test_formulas_and_tables_are_left_out_where_the_options_say_so(made: Made) -> None:
    for work, gone, kept in (("no-formulas", "equation", "table"), ("no-tables", "table", "equation")):
        kinds = [block["type"] for block in made.blocks(work)]
        assert gone not in kinds
        assert kinds.count(kept) == PAGES


def test_every_model_is_loaded_at_the_start_with_the_workers_threads_and_providers(made: Made) -> None:
    assert sorted(made.answers["early"]) == EARLY
    sessions = made.answers["sessions"]
    assert set(sessions) >= {"layout", "formulas", "ruled tables", "open tables"}
    for name, session in sessions.items():
        assert session == {"threads": 3, "providers": ["CPUExecutionProvider"]}, name


def test_windows_reach_the_layout_network_in_mineru_s_batches_and_teach_what_a_page_costs(made: Made) -> None:
    assert made.answers["batches"] == [2, 2, 1]
    assert made.answers["first"] == 10.0
    assert 0 < made.answers["learned"] < 10.0


def test_the_real_networks_of_the_rapidocr_wheel_serve_as_mineru_s_text_models(tmp_path: Path) -> None:
    tiny_models.make(tmp_path / "models", real_text=True)
    source = make_pages(tmp_path / "scan.pdf", 1, scanned=True)
    call = parse(source, tmp_path, [[0, 0]], pages=1, method="ocr")
    ask(worker_environment(tmp_path / "models", tmp_path / "home"), call)
    text = (tmp_path / "output/document.md").read_text()
    assert "Marker000" in text
    assert "Part 0 of the survey is about the keeper" in text


LAYOUT, FORMULAS = "Layout/PP-DocLayoutV2/inference.onnx", "MFR/pp_formulanet_plus_m/PP-FormulaNet_plus-M.onnx"


@pytest.mark.parametrize(("file", "harm"), [(LAYOUT, "absent"), (LAYOUT, "cut"), (FORMULAS, "garbage")])
def test_weights_that_are_missing_or_damaged_take_the_tier_away_with_a_reason_that_names_the_file(
    models: Path, tmp_path: Path, file: str, harm: str
) -> None:
    broken = shutil.copytree(models, tmp_path / "broken")
    path = broken / tiny_models.REPOSITORY / file
    content = path.read_bytes()
    if harm == "absent":
        path.unlink()
    else:
        harmed = {
            "cut": content[: len(content) // 2],
            "garbage": b"\x93garbage" * 999,
            "empty": b"",
            "other": b"<html>",
        }
        path.write_bytes(harmed[harm])
    basic, flash = ask(
        worker_environment(broken, tmp_path / "home"),
        ("why_missing", {"tier": "basic"}),
        ("why_missing", {"tier": "flash"}),
    )
    assert flash is None
    assert file in basic
    assert ("--prefetch" in basic) if harm == "absent" else ("Remove it" in basic)
    assert str(tmp_path) not in basic


@pytest.mark.parametrize("late", ["layout", "mfr"])
def test_good_weights_that_find_too_little_memory_are_not_blamed_and_load_when_there_is_some(
    models: Path, tmp_path: Path, late: str
) -> None:
    (made,) = ask(worker_environment(models, tmp_path / "home"), ("load_beside_a_full_card", {"late": late}))
    assert "Too little memory is free for MinerU's models" in made["told"]
    assert "damaged" not in made["told"]
    assert "Remove it" not in made["told"]
    assert made["left"] == 0, "what did load must not keep the memory from another worker"
    assert made["missing"] is None
