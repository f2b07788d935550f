"""The engine against MinerU called directly, on real documents and on ones of the tests' own making."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from docx import Document
from PIL import Image, ImageDraw

from docfleet.engine.interface import EngineContext
from docfleet.engine.mineru import MinerUEngine
from docfleet.errors import InternalError, InvalidOption, NotReady, TierUnavailable
from docfleet.options import Format, Method, ParseOptions, Tier
from tests.mineru_support import every_format, loaded_engine, make_pdf, parse, request_for
from tests.serving import free_port

IMAGE_TARGET = re.compile(r"""(\]\(|src=")(?:data:image/[^)"]+|images/[^)"]+)""")


def without_image_targets(markdown: str) -> str:
    return IMAGE_TARGET.sub(r"\1image", markdown)


def straight_from_mineru(source: Path, page_range: str = "") -> str:
    loaded_engine()
    from mineru.parser import MinerUParser

    return MinerUParser(tier="flash").parse(source, page_range=page_range).markdown()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    image = Image.new("RGB", (320, 180), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse((20, 20, 300, 160), fill="darkgreen", outline="black", width=6)
    path = tmp_path / "picture.png"
    image.save(path)
    return path


@pytest.mark.needs("documents")
@pytest.mark.parametrize(("name", "pages"), [("paper-13p.pdf", 13), ("report.docx", 1)])
def test_the_markdown_equals_what_mineru_makes_apart_from_image_targets(
    name: str, pages: int, documents: Path, tmp_path: Path
) -> None:
    report, output, _ = parse(documents / name, tmp_path, pages=pages)
    made = (output / "document.md").read_bytes().decode("utf-8")
    direct = straight_from_mineru(documents / name)
    assert without_image_targets(made) == without_image_targets(direct)
    assert len(IMAGE_TARGET.findall(made)) == len(IMAGE_TARGET.findall(direct)) > 0
    assert "data:image" not in made
    for target in re.findall(r"images/[^)\"]+", made):
        assert (output / target).stat().st_size > 0
    assert (report.engine, report.tier, report.engine_version) == ("mineru", "flash", loaded_engine().version)


@pytest.mark.needs("documents")
def test_a_page_range_equals_mineru_with_that_range_and_keeps_page_numbers(documents: Path, tmp_path: Path) -> None:
    options = ParseOptions(start_page_id=3, end_page_id=5, formats=(Format.MIDDLE_JSON, Format.CONTENT_LIST))
    report, output, counted = parse(documents / "paper-13p.pdf", tmp_path, pages=13, options=options)
    made = (output / "document.md").read_text(encoding="utf-8")
    assert without_image_targets(made) == without_image_targets(
        straight_from_mineru(documents / "paper-13p.pdf", "4-6")
    )
    middle = json.loads((output / "middle.json").read_text(encoding="utf-8"))
    assert [page["page_idx"] for page in middle["pages"]] == [3, 4, 5]
    assert {item["page_idx"] for item in json.loads((output / "content_list.json").read_bytes())} == {3, 4, 5}
    assert report.pages == sum(counted) == 3


def test_every_format_becomes_a_file_that_refers_to_images_by_file(tmp_path: Path, picture: Path) -> None:
    source = make_pdf(tmp_path / "report.pdf", pages=2, picture=picture)
    report, output, _ = parse(source, tmp_path, pages=2, options=every_format())
    assert report.warnings == ()
    images = [name for name in report.files if name.startswith("images/")]
    # MinerU keeps a picture of each table beside its text.
    assert sum("_image_" in name for name in images) == sum("_table_" in name for name in images) == 2
    assert sorted(report.files) == sorted(
        [
            *("document.md", "content_list.json", "content_list_v2.json", "middle.json", "structured_content.json"),
            *("model_output.json", "document.html", "document.tex", "document.docx"),
            *images,
        ]
    )
    assert report.files[0] == "document.md"
    assert all((output / name).is_file() for name in report.files)
    assert sorted(p.relative_to(output).as_posix() for p in output.rglob("*") if p.is_file()) == sorted(report.files)
    for name in ("document.md", "document.html", "content_list.json", "content_list_v2.json", "middle.json"):
        content = (output / name).read_text(encoding="utf-8")
        assert "data:image" not in content
        assert images[0] in content
    assert images[0].partition(".")[0] in (output / "document.tex").read_text(encoding="utf-8")
    rendered = Document(str(output / "document.docx"))
    assert any("Marker001" in paragraph.text for paragraph in rendered.paragraphs)
    assert len(rendered.inline_shapes) == 2
    assert json.loads((output / "model_output.json").read_bytes())["schema"] == "docvortex.model"


def test_markdown_is_made_whatever_the_formats_and_nothing_else_is(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("orchard,apples\nnorth,4210\n", encoding="utf-8")
    report, output, _ = parse(tmp_path / "list.csv", tmp_path, options=ParseOptions(formats=(Format.CONTENT_LIST,)))
    assert report.files == ("document.md", "content_list.json")
    assert sorted(path.name for path in output.iterdir()) == ["content_list.json", "document.md"]


def test_tables_are_dropped_from_every_file_when_switched_off(tmp_path: Path) -> None:
    source = make_pdf(tmp_path / "report.pdf", pages=1)
    on, with_tables, _ = parse(source, tmp_path / "on")
    assert "North" in (with_tables / "document.md").read_text(encoding="utf-8")
    options = ParseOptions(table_enable=False, formats=(Format.CONTENT_LIST, Format.MIDDLE_JSON, Format.HTML))
    report, output, _ = parse(source, tmp_path / "off", options=options)
    for name in report.files:
        if name.endswith((".md", ".json", ".html")):
            content = (output / name).read_text(encoding="utf-8")
            assert "North" not in content
            assert "Marker000" in content
    assert on.pages == report.pages == 1


def test_what_is_asked_and_not_done_is_said(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("orchard,apples\nnorth,4210\n", encoding="utf-8")
    options = ParseOptions(
        lang="ch", method=Method.OCR, end_page_id=2, server_url="http://127.0.0.1:9/", tier=Tier.STANDARD
    )
    report, _, _ = parse(tmp_path / "list.csv", tmp_path, options=options, tier=Tier.STANDARD)
    assert report.tier == "flash"
    said = "\n".join(report.warnings)
    for word in ("tier standard was not used", "method ocr", "page ranges", "lang 'ch'", "server_url"):
        assert word in said
    plain, _, _ = parse(tmp_path / "list.csv", tmp_path)
    assert plain.warnings == ()


def test_pages_that_are_pictures_are_named_when_nothing_recognised_them(tmp_path: Path, picture: Path) -> None:
    source = make_pdf(tmp_path / "mixed.pdf", pages=3, picture=picture, first_is_picture=True)
    report, _, _ = parse(source, tmp_path, pages=4, options=ParseOptions(method=Method.TXT))
    assert any("pages 0 (counted from 0)" in warning for warning in report.warnings)


def test_a_scan_asks_for_weights_instead_of_coming_back_empty(tmp_path: Path, picture: Path) -> None:
    make_pdf(tmp_path / "scan.pdf", pages=0, picture=picture, first_is_picture=True)
    with pytest.raises(TierUnavailable, match="--prefetch"):
        parse(tmp_path / "scan.pdf", tmp_path)


def test_missing_names_the_weights_and_the_remedy_for_each_tier_that_needs_them() -> None:
    engine = loaded_engine()
    for tier in (Tier.BASIC, Tier.STANDARD, Tier.ADVANCED):
        reason = engine.missing(tier, "pdf", ParseOptions())
        assert reason is not None
        assert "--prefetch" in reason
        assert "MINERU_MODEL_SOURCE" in reason
        assert engine.missing(tier, "docx", ParseOptions()) is None
    assert engine.missing(Tier.FLASH, "pdf", ParseOptions()) is None
    assert engine.missing(Tier.FLASH, "pdf", ParseOptions(method=Method.OCR)) is not None
    assert engine.missing(Tier.FLASH, "png", ParseOptions()) is not None
    assert "does not read" in str(engine.missing(Tier.FLASH, "exe", ParseOptions()))


def test_where_no_hub_answered_at_the_start_the_missing_tier_says_so_and_what_to_do(tmp_path: Path) -> None:
    loaded_engine()
    from docfleet.engine.mineru.readiness import Readiness

    context = EngineContext(
        device="cpu", threads=1, model_source="embedded", hubs_unreached=True, vlm_server_url=None, scratch=tmp_path
    )
    reason = Readiness(context).missing(Tier.BASIC, "pdf", ParseOptions())
    assert reason is not None
    for part in ("No model hub could be reached when the server started", "start it again", "--prefetch"):
        assert part in reason


def test_a_model_tier_without_weights_is_refused_at_the_page_stage_too(tmp_path: Path) -> None:
    source = make_pdf(tmp_path / "report.pdf", pages=1)
    (tmp_path / "part").mkdir()
    with pytest.raises(TierUnavailable):
        loaded_engine().read_pages(request_for(source), Tier.BASIC, tmp_path / "part", lambda _: None)
    assert not list((tmp_path / "part").iterdir())


def test_parts_without_pages_are_never_rendered_as_a_model_tier(tmp_path: Path) -> None:
    source = make_pdf(tmp_path / "report.pdf", pages=1)
    for folder in ("part", "output"):
        (tmp_path / folder).mkdir()
    with pytest.raises(InternalError):
        loaded_engine().finish(
            request_for(source), Tier.BASIC, [tmp_path / "part"], tmp_path / "output", lambda _: None
        )


def test_an_engine_that_is_not_loaded_says_so() -> None:
    with pytest.raises(NotReady):
        MinerUEngine().missing(Tier.FLASH, "pdf", ParseOptions())


def test_a_key_for_the_vlm_server_goes_to_no_other_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loaded_engine()
    from mineru.config import config

    from docfleet.engine.mineru.readiness import Readiness

    monkeypatch.setattr(config.model.vlm, "api_key", "a-secret")
    readiness = Readiness(
        EngineContext(
            device="cpu",
            threads=1,
            model_source="embedded",
            vlm_server_url="http://vlm.example:8000/v1",
            scratch=tmp_path,
        )
    )
    own = readiness.vlm_config(ParseOptions())
    assert (own.server_url, own.api_key) == ("http://vlm.example:8000/", "a-secret")
    other = readiness.vlm_config(ParseOptions(server_url="http://other.example:8000"))
    assert (other.server_url, other.api_key) == ("http://other.example:8000/", "")
    with pytest.raises(InvalidOption, match="server_url"):
        readiness.vlm_config(ParseOptions(server_url="http://user:pass@other.example/"))


def test_an_empty_pool_is_named_as_a_remedy_and_never_becomes_a_vlm_in_the_worker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loaded_engine()
    from docfleet.engine.mineru import readiness as module

    monkeypatch.setattr(module.Readiness, "_small_models_missing", lambda self: None)
    monkeypatch.setattr(module.Readiness, "_weights_missing", lambda self, repo: "Weights are not here.")
    context = EngineContext(
        device="cpu",
        threads=1,
        model_source="local",
        vlm_server_url=None,
        vlm_router=f"http://127.0.0.1:{free_port()}/word",
        scratch=tmp_path,
    )
    readiness = module.Readiness(context)
    assert "POST /vlm/endpoints" in (readiness.missing(Tier.STANDARD, "pdf", ParseOptions()) or "")
    assert readiness.missing(Tier.BASIC, "pdf", ParseOptions()) is None
    with pytest.raises(TierUnavailable, match="POST /vlm/endpoints"):
        readiness.vlm_config(ParseOptions())


def test_a_vlm_that_finds_too_little_memory_leaves_tier_basic_and_is_tried_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loaded_engine()
    from mineru.model.vlm import client, selector

    from docfleet.engine.mineru import readiness as module

    def full() -> None:
        raise ValueError("Free memory on device (3.1/23.6 GiB) on startup is less than desired GPU memory utilization")

    monkeypatch.setattr(module, "load_small_models", lambda: None)
    monkeypatch.setattr(client, "get_vlm_predictor", full)
    monkeypatch.setattr(selector, "VLM_REQUIRED_MODULES", defaultdict(tuple))
    monkeypatch.setattr(module.Readiness, "_weights_missing", lambda self, repo: None)
    later: list[bool] = []
    context = EngineContext(
        device="cpu",
        threads=1,
        model_source="local",
        vlm_server_url=None,
        scratch=tmp_path,
        try_later=lambda: later.append(True),
    )
    readiness = module.Readiness(context)
    readiness.load()
    assert later == [True]
    assert readiness.missing(Tier.BASIC, "pdf", ParseOptions()) is None
    reason = readiness.missing(Tier.STANDARD, "pdf", ParseOptions()) or ""
    assert "Too little memory is free for the vision-language model" in reason
    assert "document" not in reason


def test_weights_that_are_not_here_make_the_tier_missing_and_not_the_worker(tmp_path: Path) -> None:
    """A hub that refuses every connection: the worker asks nobody and loads, flash works, basic says why not."""
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from docfleet.engine.interface import EngineContext\n"
        "from docfleet.engine.mineru import MinerUEngine\n"
        "from docfleet.options import ParseOptions, Tier\n"
        "home = Path(sys.argv[1])\n"
        "os.environ.update(MINERU_HOME=str(home), MINERU_MODEL_SOURCE='huggingface', MINERU_MODEL_BASE_DIR=str(home))\n"
        "engine = MinerUEngine()\n"
        "engine.load(EngineContext(device='cpu', threads=1, model_source='huggingface', vlm_server_url=None, "
        "scratch=home))\n"
        "assert engine.missing(Tier.FLASH, 'pdf', ParseOptions()) is None\n"
        "reason = engine.missing(Tier.BASIC, 'pdf', ParseOptions())\n"
        "assert reason and str(home) not in reason, reason\n"
        "print(reason)\n"
    )
    environ = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "PYTHONPATH": str(Path.cwd())}
    for name in ("MINERU_MODEL_SOURCE", "HF_HUB_OFFLINE", "MINERU_HOME", "MINERU_MODEL_BASE_DIR"):
        environ.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=environ, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "not on this machine yet" in done.stdout
