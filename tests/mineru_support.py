"""A loaded MinerU engine for tests, one in a test process, and documents of the tests' own making.

Import this before MinerU: it sets the environment, as a worker does.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from random import Random

from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import Image, PageBreak, Paragraph, SimpleDocTemplate, Table

from docfleet.devices.environment import Share, environment
from docfleet.engine.interface import EngineContext, ParseReport, ParseRequest
from docfleet.engine.mineru import MinerUEngine, tuning
from docfleet.models.records import ModelSource, Source
from docfleet.options import Format, ParseOptions, Tier

_SUBJECTS = ("apples", "pears", "plums", "ladders", "baskets", "wasps", "frosts", "cider presses", "old trees", "bees")
_VERBS = ("outweighed", "replaced", "surprised", "followed", "ruined", "delayed", "protected", "resembled")
_PLACES = ("the barn", "the mill", "the northern wall", "the river", "the road to town", "the chapel", "the pond")

SAMPLES = Path(__file__).parent / "samples"


def worker_environment(home: Path) -> dict[str, str]:
    """What a worker on the CPU sets before MinerU is imported: no hub, a home of its own."""
    source = ModelSource(name=Source.EMBEDDED, reason="a test", models_dir=home / "models", home=home)
    share = Share(threads=2, render_processes=2, memory_gb=None)
    decided = environment(None, share, {}) | source.environment()
    return decided | tuning("cpu", decided, "error")


def set_environment() -> None:
    home = Path(tempfile.mkdtemp(prefix="docfleet-mineru-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ.update(worker_environment(home))


set_environment()


@cache
def loaded_engine() -> MinerUEngine:
    engine = MinerUEngine()
    engine.load(
        EngineContext(
            device="cpu", threads=2, model_source="embedded", vlm_server_url=None, scratch=Path(tempfile.gettempdir())
        )
    )
    return engine


def request_for(
    source: Path, *, pages: int = 1, first: int = 0, last: int | None = None, options: ParseOptions | None = None
) -> ParseRequest:
    return ParseRequest(
        source=source,
        suffix=source.suffix.removeprefix("."),
        filename=source.name,
        pages=pages,
        first_page=first,
        last_page=pages - 1 if last is None else last,
        options=options or ParseOptions(),
    )


def parse(
    source: Path,
    work: Path,
    *,
    pages: int = 1,
    options: ParseOptions | None = None,
    tier: Tier = Tier.FLASH,
) -> tuple[ParseReport, Path, list[int]]:
    """Both stages in one, as a worker does for a document that is not cut."""
    options = options or ParseOptions()
    first, last = options.page_range(pages)
    request = request_for(source, pages=pages, first=first, last=last, options=options)
    part, output = work / "part", work / "output"
    for folder in (part, output):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    counted: list[int] = []
    engine = loaded_engine()
    engine.read_pages(request, tier, part, counted.append)
    return engine.finish(request, tier, [part], output, counted.append), output, counted


def every_format() -> ParseOptions:
    return ParseOptions(formats=tuple(Format))


def make_pdf(path: Path, *, pages: int, picture: Path | None = None, first_is_picture: bool = False) -> Path:
    """A digital PDF: on each page a heading, two paragraphs, a table, and a picture where one is given."""
    styles = getSampleStyleSheet()
    story: list[object] = []
    if first_is_picture:
        story += [Image(str(picture), width=400, height=600), PageBreak()]
    for page in range(pages):
        # Lines that come back on every page would be taken for running headers.
        prose = Random(page)
        story += [
            Paragraph(f"{_SUBJECTS[page % len(_SUBJECTS)].title()} of the orchard", styles["Heading1"]),
            Paragraph(_sentences(prose, 8) + f"Marker{page:03d} stands on this page alone. " + _sentences(prose, 4)),
            Table(_harvest(page), colWidths=[110, 110, 110, 110], style=[("GRID", (0, 0), (-1, -1), 1, "black")]),
            Paragraph(_sentences(prose, 9)),
        ]
        if picture is not None and not first_is_picture:
            story.append(Image(str(picture), width=160, height=90))
        story.append(PageBreak())
    SimpleDocTemplate(str(path), pagesize=A4, title="Orchard report").build(story)
    return path


def _sentences(prose: Random, count: int) -> str:
    return "".join(
        f"The {prose.choice(_SUBJECTS)} {prose.choice(_VERBS)} the {prose.choice(_SUBJECTS)} "
        f"near {prose.choice(_PLACES)}. "
        for _ in range(count)
    )


def _harvest(page: int) -> list[list[str]]:
    orchards = ("North", "South", "East", "West", "Hill")
    rows = [[name, str(1000 * page + 37 * i), str(500 + 11 * i), f"{i}.5 %"] for i, name in enumerate(orchards)]
    return [["Orchard", "Apples kg", "Pears kg", "Loss"], *rows]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
