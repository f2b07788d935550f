"""Read a document whole, in shards, and with MinerU itself, each in processes of their own: all that comes out.

The pool's processes are workers without a store: engines loaded once, shards in an order of their own, the document
stage wherever it falls.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from docfleet.documents.inspection import inspect
from docfleet.engine.interface import Engine, EngineContext, ParseRequest
from docfleet.options import Format, ParseOptions, Tier
from docfleet.records import Stage
from docfleet.sharding.cutting import Cuts, cut

#: What must not change by a byte; the model's own output shows more than Markdown does.
FORMATS = (Format.MARKDOWN, Format.CONTENT_LIST, Format.MIDDLE_JSON, Format.MODEL_OUTPUT)
Files = dict[str, bytes]
Ranges = list[tuple[int, int]]


@dataclass(frozen=True)
class Case:
    """A document, and the engine that shall read it."""

    source: Path
    engine: str = "embedded"
    options: ParseOptions = field(default_factory=lambda: ParseOptions(formats=FORMATS))

    @property
    def pages(self) -> int:
        return inspect(self.source, self.source.name).pages

    def request(self, first: int | None = None, last: int | None = None, **more: Any) -> ParseRequest:
        begin, end = self.options.page_range(self.pages)
        return ParseRequest(
            source=self.source,
            suffix="pdf",
            filename=self.source.name,
            pages=self.pages,
            first_page=begin if first is None else first,
            last_page=end if last is None else last,
            options=self.options,
            **more,
        )


@contextmanager
def pool(processes: int = 2) -> Iterator[ProcessPoolExecutor]:
    """Processes that can run what stands below."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_quiet) as executor:
        yield executor


def whole(executor: ProcessPoolExecutor, case: Case, work: Path) -> Future[Files]:
    """Both stages in one process, as for a document that is not cut."""
    return executor.submit(_whole, case, work)


def in_shards(
    executor: ProcessPoolExecutor, case: Case, ranges: Ranges, decisions: dict[str, Any], work: Path
) -> Files:
    """The page stage shard by shard, last ones among the first, then the document stage."""
    order = list(ranges)
    Random(len(ranges)).shuffle(order)
    waiting = {first: executor.submit(_read, case, (first, last), decisions, work) for first, last in order}
    parts = [waiting[first].result() for first, _ in ranges]
    return executor.submit(_finish, case, decisions, parts, work).result()


def cuts(executor: ProcessPoolExecutor, case: Case) -> Cuts | None:
    """The engine's word."""
    return executor.submit(_cuts, case).result()


def direct(executor: ProcessPoolExecutor, source: Path) -> Future[Files]:
    """MinerU called with nothing of ours around it, its images as files."""
    return executor.submit(_direct, source)


def of_size(found: Cuts, first: int, last: int, size: int) -> Ranges:
    """Shards of `size` pages, or as soon after as a cut is allowed."""
    begins = [first]
    for page in range(first + 1, last + 1):
        if page - begins[-1] >= size and page in found.starts:
            begins.append(page)
    return [(begin, following - 1) for begin, following in zip(begins, [*begins[1:], last + 1], strict=True)]


def for_workers(found: Cuts, first: int, workers: int) -> Ranges:
    """What the server's own cutter makes for so many workers, of a document slow enough to be cut."""
    slow = replace(found, costs=tuple(20.0 if cost else 0.0 for cost in found.costs))
    plans = cut(slow, first, workers)
    return [(plan.first_page, plan.last_page) for plan in plans if plan.stage is Stage.PAGES]


def _quiet() -> None:
    os.environ["MINERU_LOG_LEVEL"] = "error"
    import tests.mineru_support  # noqa: F401


@cache
def loaded(name: str) -> Engine:
    """An engine of this process."""
    from docfleet.engine.registry import build_engines

    (engine,) = build_engines((name,))
    engine.load(
        EngineContext(device="cpu", threads=1, model_source="embedded", vlm_server_url=None, scratch=Path(os.devnull))
    )
    return engine


def _whole(case: Case, work: Path) -> Files:
    begin, end = case.options.page_range(case.pages)
    part = _read(case, (begin, end), {}, work)
    return _finish(case, {}, [part], work)


def _cuts(case: Case) -> Cuts | None:
    return loaded(case.engine).cuts(case.request(), Tier.FLASH)


def _read(case: Case, pages: tuple[int, int], decisions: dict[str, Any], work: Path) -> Path:
    part = work / f"part-{pages[0]}-{pages[1]}"
    part.mkdir(parents=True)
    engine, request = loaded(case.engine), case.request(*pages, decisions=decisions)
    engine.read_pages(request, Tier.FLASH, part, lambda _: None)
    engine.check(request, Tier.FLASH, part)
    return part


def _finish(case: Case, decisions: dict[str, Any], parts: list[Path], work: Path) -> Files:
    output = work / "output"
    output.mkdir()
    request = case.request(decisions=decisions)
    report = loaded(case.engine).finish(request, Tier.FLASH, parts, output, lambda _: None)
    made = {path.relative_to(output).as_posix(): path.read_bytes() for path in output.rglob("*") if path.is_file()}
    told = {"pages": report.pages, "failed": len(report.failed_pages), "warnings": report.warnings}
    return made | {"report": json.dumps(told).encode()}


def _direct(source: Path) -> Files:
    from docvortex.export import materialize_middle
    from mineru.parser import MinerUParser
    from mineru.render import render_content_list, render_markdown

    parsed = MinerUParser(tier="flash", parse_mode="txt").parse(source)
    middle, images = materialize_middle(parsed.middle_json)
    listed = json.dumps(render_content_list(middle), ensure_ascii=False, indent=2)
    return {
        "document.md": render_markdown(middle).encode(),
        "content_list.json": listed.encode(),
        **{name: bytes(images[name]) for name in images},
    }
