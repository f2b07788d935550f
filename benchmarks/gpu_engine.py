"""An engine for `make gpu-check`: it computes on the card that its worker sees, with what is installed, and says so.

In `load`, and again for each page. What it saw rests in the data folder as `gpu-<process>.json`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.gpu_driver import Card, DriverMissing
from docfleet.engine.interface import EngineContext, ParseReport, ParseRequest, Progress
from docfleet.options import ParseOptions, Tier
from docfleet.sharding.cutting import Cuts

_TOLD = (
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "MINERU_DEVICE_MODE",
    "MINERU_VIRTUAL_VRAM_SIZE",
    "OMP_NUM_THREADS",
)
_SIDE = 2048


class CardEngine:
    """Makes one line of Markdown a page."""

    name: ClassVar[str] = "gpu-check"
    version = "1"

    def load(self, context: EngineContext) -> None:
        seen: dict[str, Any] = {"pid": os.getpid(), "device": context.device}
        seen["environment"] = {name: os.environ.get(name) for name in _TOLD}
        if hasattr(os, "sched_getaffinity"):
            seen["cores"] = len(os.sched_getaffinity(0))
        try:
            card = Card()
            seen |= {"cards_seen": card.count, "name": card.name}
        except DriverMissing as exc:
            seen["failure"] = str(exc)
        how, self._compute = _on_card()
        started = time.perf_counter()
        try:
            self._compute()
        except Exception as exc:
            how, seen["failure"] = "", f"{type(exc).__name__}: {exc}"[:300]
        seen |= {"how": how, "seconds": round(time.perf_counter() - started, 3)}
        (context.scratch.parents[1] / f"gpu-{os.getpid()}.json").write_text(json.dumps(seen))

    def missing(self, tier: Tier, suffix: str, options: ParseOptions) -> str | None:
        return None if tier is Tier.FLASH else "only flash."

    def cuts(self, request: ParseRequest, tier: Tier) -> Cuts | None:
        return None

    def check(self, request: ParseRequest, tier: Tier, part: Path) -> None:
        if not (part / "pages").exists():
            raise ValueError("no pages")

    def read_pages(self, request: ParseRequest, tier: Tier, part: Path, progress: Progress) -> None:
        for _ in range(request.first_page, request.last_page + 1):
            until = time.monotonic() + 0.5
            while time.monotonic() < until:
                self._compute()
            progress(1)
        (part / "pages").write_text(str(os.getpid()))

    def finish(
        self, request: ParseRequest, tier: Tier, parts: Sequence[Path], output: Path, progress: Progress
    ) -> ParseReport:
        (output / "document.md").write_text(f"read by process {os.getpid()}\n")
        pages = request.last_page - request.first_page + 1
        return ParseReport(
            tier="flash", engine=self.name, engine_version=self.version, pages=pages, files=("document.md",)
        )


def _on_card() -> tuple[str, Callable[[], object]]:
    """Return what computes on the card, and a short computation by it; an empty name: nothing does."""
    try:
        import torch

        if torch.cuda.is_available():
            numbers = torch.rand(_SIDE, _SIDE, device="cuda:0")
            return f"torch {torch.__version__}", lambda: float((numbers @ numbers).sum().item())
    except Exception as exc:
        print(f"torch cannot be used: {exc}")
    try:
        import onnxruntime

        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            return f"onnxruntime {onnxruntime.__version__}", _onnx_product()
    except Exception as exc:
        print(f"onnxruntime cannot be used: {exc}")
    return "", lambda: time.sleep(0.05)


def _onnx_product() -> Callable[[], object]:
    import numpy
    import onnx
    import onnxruntime

    kind = onnx.TensorProto.FLOAT
    values = [onnx.helper.make_tensor_value_info(name, kind, [_SIDE, _SIDE]) for name in "abc"]
    product = onnx.helper.make_node("MatMul", ["a", "b"], ["c"])
    graph = onnx.helper.make_graph([product], "product", values[:2], values[2:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CUDAExecutionProvider"])
    if session.get_providers()[0] != "CUDAExecutionProvider":
        raise RuntimeError("onnxruntime fell back to the CPU")
    numbers = numpy.ones((_SIDE, _SIDE), numpy.float32)
    return lambda: session.run(["c"], {"a": numbers, "b": numbers})
