"""Run MinerU's model path in processes of their own, with weights from a folder: MinerU reads its settings once.

As a program it takes orders as JSON on standard input, `[[call, {argument: value}], ...]`, and prints their answers as
one line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docfleet.engine.interface import ParseRequest
from docfleet.options import ParseOptions

ROOT = Path(__file__).resolve().parent.parent
#: Pages of MinerU's windows in these tests.
WINDOW = 2

Call = tuple[str, dict[str, Any]]


def worker_environment(models: Path, home: Path, **more: str) -> dict[str, str]:
    """What a worker on the CPU sets where weights lie in a folder and no hub may be asked."""
    from docfleet.devices.environment import Share, environment
    from docfleet.engine.mineru.environment import tuning
    from docfleet.models.records import ModelSource, Source

    source = ModelSource(name=Source.LOCAL, reason="a test", models_dir=models, home=home)
    share = Share(threads=2, render_processes=2, memory_gb=None)
    decided = environment(None, share, {}) | source.environment() | {"MINERU_PROCESSING_WINDOW_SIZE": str(WINDOW)}
    return decided | tuning("cpu", decided, "error") | more


def ask(environment: dict[str, str], *calls: Call, seconds: float = 240) -> list[Any]:
    """Make the calls one after the other in one new process and return their answers."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.model_path"],
        cwd=ROOT,
        env=os.environ | environment,
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    answers: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return answers


def parse_parts(source: str, pages: int, cuts: list[list[int]], work: str, **options: Any) -> dict[str, Any]:
    """Read each range of pages into a part of its own and finish; return the report and where the engine would cut."""
    from docfleet.options import Tier, parse_options

    engine, chosen = _engine(), parse_options(options)
    whole = _request(Path(source), pages, 0, pages - 1, chosen)
    for first, last in cuts:
        request = _request(Path(source), pages, first, last, chosen)
        part = Path(work) / f"part-{first}"
        engine.read_pages(request, Tier.BASIC, part, lambda _: None)
        engine.check(request, Tier.BASIC, part)
    cuts_now = engine.cuts(whole, Tier.BASIC)
    assert cuts_now is not None
    report = finish_parts(source, pages, work, f"{work}/output", **options)
    return {"report": report, "starts": sorted(cuts_now.starts)}


def finish_parts(source: str, pages: int, work: str, output: str, **options: Any) -> dict[str, Any]:
    """The document stage alone, from the parts of a folder, the last one first; return the report."""
    from docfleet.options import Tier, parse_options

    parts = sorted(Path(work).glob("part-*"), reverse=True)
    whole = _request(Path(source), pages, 0, pages - 1, parse_options(options))
    report: dict[str, Any] = _engine().finish(whole, Tier.BASIC, parts, Path(output), lambda _: None).to_json()
    return report


def parse_directly(source: str, method: str, output: str) -> None:
    """What `MinerUParser` itself makes of the document, without anything of Docfleet's."""
    from mineru.parser import MinerUParser
    from mineru.parser.writer import FileBasedDataWriter

    MinerUParser(tier="basic", parse_mode=method).parse(source).save(FileBasedDataWriter(output))


def why_missing(tier: str) -> str | None:
    """Why a PDF cannot be read at the tier; None: it can."""
    from docfleet.options import Tier, parse_options

    return _engine().missing(Tier(tier), "pdf", parse_options(None))


def sessions() -> dict[str, Any]:
    """How ONNX Runtime's sessions were set up, by model."""
    from mineru.model.runtime.hybrid import HybridLocalModelContextSingleton

    _engine()
    models = HybridLocalModelContextSingleton().get_model()
    held = {
        "layout": models.layout_model.session,
        "text detector": models.ocr_model.text_detector.session,
        "recogniser": models.ocr_model.text_recognizer.session,
        "seals": models.seal_model.text_detector.session,
        "formulas": models.mfr_model.session,
        "table classes": models.table_cls_model.sess,
        "open tables": models.wireless_table_model.table_model.table_structure.session.session,
        "ruled tables": models.wired_table_model.wired_table_model.table_structure.session.session,
    }
    return {
        name: {
            "threads": session.get_session_options().intra_op_num_threads,
            "providers": session.get_providers(),
        }
        for name, session in held.items()
    }


def loaded_early() -> list[str]:
    """The models that MinerU holds right after the engine was loaded."""
    from mineru.model.runtime.hybrid import AtomModelSingleton

    _engine()
    return sorted(str(key[2][0] if isinstance(key[2], tuple) else key[2]) for key in AtomModelSingleton._models)


def page_seconds(source: str, pages: int) -> float:
    """What the engine says now that a page costs."""
    from docfleet.options import Tier, parse_options

    request = _request(Path(source), pages, 0, pages - 1, parse_options({"method": "txt"}))
    cuts = _engine().cuts(request, Tier.BASIC)
    assert cuts is not None
    return float(cuts.costs[0])


_counted: list[int] = []


def count_batches() -> None:
    """Note from now on how many pictures each run of the layout network gets."""
    from mineru.model.runtime.hybrid import HybridLocalModelContextSingleton

    model = HybridLocalModelContextSingleton().get_model().layout_model
    run = model._run_session

    def counting(pixels: Any, sizes: Any) -> Any:
        _counted.append(len(sizes))
        return run(pixels, sizes)

    model._run_session = counting


def batches() -> list[int]:
    """The sizes of the runs noted."""
    return list(_counted)


def load_beside_a_full_card(late: str) -> dict[str, Any]:
    """Load while a model finds no memory, and again when there is some; tell what was said and what stayed loaded."""
    from mineru.model.runtime import hybrid

    from docfleet.engine.mineru.engine import MinerUEngine
    from docfleet.errors import OutOfDeviceMemory
    from docfleet.options import Tier, parse_options

    init, told = hybrid.atom_model_init, ""

    def full(model_name: str, **more: Any) -> Any:
        if model_name == late:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 7.6 GiB")
        return init(model_name, **more)

    engine = MinerUEngine()
    hybrid.atom_model_init = full
    try:
        engine.load(_context())
    except OutOfDeviceMemory as exc:
        told = exc.message
    left = len(hybrid.AtomModelSingleton._models) + len(hybrid.HybridLocalModelContextSingleton._models)
    hybrid.atom_model_init = init
    engine.load(_context())
    return {"told": told, "left": left, "missing": engine.missing(Tier.BASIC, "pdf", parse_options(None))}


def _request(source: Path, pages: int, first: int, last: int, options: ParseOptions) -> ParseRequest:
    return ParseRequest(
        source=source,
        suffix="pdf",
        filename=source.name,
        pages=pages,
        first_page=first,
        last_page=last,
        options=options,
    )


_loaded: list[Any] = []


def _engine() -> Any:
    from docfleet.engine.mineru.engine import MinerUEngine

    if not _loaded:
        engine = MinerUEngine()
        engine.load(_context())
        _loaded.append(engine)
    return _loaded[0]


def _context() -> Any:
    from docfleet.engine.interface import EngineContext

    scratch = Path(os.environ["MINERU_HOME"])
    return EngineContext(device="cpu", threads=2, model_source="local", vlm_server_url=None, scratch=scratch)


_CALLS: dict[str, Callable[..., Any]] = {
    call.__name__: call
    for call in (
        parse_parts,
        finish_parts,
        parse_directly,
        why_missing,
        sessions,
        loaded_early,
        page_seconds,
        count_batches,
        batches,
        load_beside_a_full_card,
    )
}


if __name__ == "__main__":
    # MinerU's progress bars and messages go to standard error.
    answers = [_CALLS[name](**arguments) for name, arguments in json.load(sys.stdin)]
    sys.stdout.write("\n" + json.dumps(answers) + "\n")
