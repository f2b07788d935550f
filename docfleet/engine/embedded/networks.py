"""The three networks of PP-OCR that ship inside the `rapidocr` wheel, run with onnxruntime. Nothing is ever fetched.

Only the weights are taken from the wheel: running them here, line by line at each line's own width, needs no batch
padding, and makes what is read of a line independent of every other line. Pixels are BGR, 8 bit, height x width x 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docfleet.errors import EngineMissing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Floats = NDArray[np.float32]

#: Names of the weights inside the wheel, by task; the newest wheel's come first.
_WEIGHTS = {
    "det": ("PP-OCRv6_det_small.onnx",),
    "rec": ("PP-OCRv6_rec_small.onnx",),
    "cls": ("ch_ppocr_mobile_v2.0_cls_mobile.onnx",),
}

#: The detector wants sides that are multiples of this.
_DET_STEP = 32
_REC_HEIGHT = 48
#: Empty columns behind a line: a full stop at its very end is seen with them, and lost without.
_MARGIN = 16
_CLS_SIZE = (192, 48)
#: No line of text is wider; what is (a rule taken for text) is cut to bound the memory.
_MAX_LINE_WIDTH = 48 * 120


@dataclass(frozen=True)
class Reading:
    """What the recogniser made of one line."""

    text: str
    #: Mean probability of the characters, 0 to 1.
    confidence: float
    #: Where each character was seen, as a share of the line's width, 0 to 1.
    positions: tuple[float, ...]


def weights() -> dict[str, Path]:
    """Return the weight files by task (det, rec, cls).

    Raises:
        EngineMissing: rapidocr is not installed, or its wheel ships other weights.
    """
    spec = find_spec("rapidocr")
    if spec is None or not spec.submodule_search_locations:
        raise EngineMissing("Recognition without models needs the package rapidocr: pip install 'rapidocr>=3.10,<4'.")
    folder = Path(next(iter(spec.submodule_search_locations))) / "models"
    found = {}
    for task, names in _WEIGHTS.items():
        paths = [folder / name for name in names if (folder / name).is_file()]
        if not paths:
            raise EngineMissing(f"The installed rapidocr does not ship {names[0]}: pip install 'rapidocr>=3.10,<4'.")
        found[task] = paths[0]
    return found


class Networks:
    """Loaded networks. One thread at a time."""

    def __init__(self, threads: int) -> None:
        paths = weights()
        self._det = _session(paths["det"], threads)
        self._rec = _session(paths["rec"], threads)
        self._cls = _session(paths["cls"], threads)
        metadata = self._rec.get_modelmeta().custom_metadata_map
        # The output's first class is "no character", its last one a space.
        self._alphabet = ["", *metadata["character"].splitlines(), " "]

    def text_map(self, pixels: Pixels, long_side: int) -> Floats:
        """Return, at reduced size, the probability of each pixel to lie in a line's core (height x width)."""
        import cv2

        height, width = pixels.shape[:2]
        scale = min(1.0, long_side / max(height, width))
        size = (_stepped(width * scale), _stepped(height * scale))
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        probabilities: Floats = _run(self._det, _blob(small))[0, 0]
        return probabilities

    def read(self, line: Pixels, squeeze: float = 1.0) -> Reading:
        """Read a line of text that lies horizontally; `squeeze` below 1 narrows it first, which is faster."""
        import cv2
        import numpy as np

        height, width = line.shape[:2]
        target = max(_REC_HEIGHT // 2, math.ceil(width * _REC_HEIGHT / height * squeeze))
        target = min(target, _MAX_LINE_WIDTH)
        shrinks = height > _REC_HEIGHT
        scaled = cv2.resize(line, (target, _REC_HEIGHT), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        blob = np.pad(_blob(scaled), ((0, 0), (0, 0), (0, 0), (0, _MARGIN)))
        return self._decode(_run(self._rec, blob)[0], (target + _MARGIN) / target)

    def upside_down(self, line: Pixels) -> float:
        """Return the probability that a horizontal line of text stands on its head."""
        import cv2
        import numpy as np

        height, width = line.shape[:2]
        wide = min(_CLS_SIZE[0], max(1, math.ceil(width * _CLS_SIZE[1] / height)))
        canvas = np.full((_CLS_SIZE[1], _CLS_SIZE[0], 3), 127, dtype=np.uint8)
        canvas[:, :wide] = cv2.resize(line, (wide, _CLS_SIZE[1]), interpolation=cv2.INTER_AREA)
        return float(_run(self._cls, _blob(canvas))[0][1])

    def _decode(self, columns: Floats, excess: float) -> Reading:
        """Greedy CTC: the best class of each column, repeats and blanks dropped.

        `excess` is by how much the columns reach beyond the line.
        """
        import numpy as np

        best = columns.argmax(axis=1)
        chosen = best != 0
        chosen[1:] &= best[1:] != best[:-1]
        at = np.flatnonzero(chosen)
        if not len(at):
            return Reading("", 0.0, ())
        scores = columns[at, best[at]]
        text = "".join(self._alphabet[index] for index in best[at])
        positions = np.minimum((at + 0.5) / len(best) * excess, 1.0)
        return Reading(text, round(float(scores.mean()), 4), tuple(round(float(x), 5) for x in positions))


def _session(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, threads)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Every page has other shapes: an arena would keep the largest of each for ever, and buys no time here.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run(session: Any, blob: Floats) -> Any:
    return session.run(None, {session.get_inputs()[0].name: blob})[0]


def _blob(pixels: Pixels) -> Floats:
    import numpy as np

    blob = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], dtype=np.float32)
    blob *= 1 / 127.5
    blob -= 1.0
    return blob


def _stepped(side: float) -> int:
    return max(_DET_STEP, round(side / _DET_STEP) * _DET_STEP)
