"""Lines of text: read what lies in the detector's boxes, as fast as the script allows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from docfleet.engine.embedded.detection import cut_out
from docfleet.engine.embedded.orientation import sides
from docfleet.engine.embedded.typography import Print, find_print, type_size

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from docfleet.engine.embedded.networks import Networks, Reading

    Pixels = NDArray[np.uint8]
    Floats = NDArray[np.float32]

#: Left, top, right, bottom in pixels.
PixelBox = tuple[float, float, float, float]

#: Reading costs time by width. Latin text loses next to nothing down to the first (one letter in 9,000; at
#: 0.7 eight: "morning" turns to "moming"),
#: characters as wide as high (Chinese) nothing down to the second: measured on pages at 110 to 200 dpi.
_SQUEEZE = 0.8
_SQUEEZE_WIDE = 0.65
#: A character is wide from this share of its line's height on.
_WIDE = 0.65
_PILOTS = 5
#: Below, a line is read again unsqueezed.
_DOUBTFUL = 0.9
#: Below, a box holds no text; what lies there is left to the pictures.
_MIN_CONFIDENCE = 0.5
_MIN_CONFIDENCE_ONE = 0.6
_TALL = 1.5
#: A hole of this many line heights within a line parts it (columns of a table that the detector took for one line).
_HOLE = 1.6


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line as it was read."""

    text: str
    confidence: float
    box: PixelBox
    #: Size of its type in pixels.
    size: float
    #: Degrees clockwise: 0 reads to the right, 90 down, 270 up.
    turned: int = 0

    @property
    def height(self) -> float:
        """Height of the line across its direction, in pixels."""
        return self.box[3] - self.box[1] if self.turned == 0 else self.box[2] - self.box[0]


def read_lines(networks: Networks, pixels: Pixels, quads: Floats) -> list[Line]:
    """Read every box of an upright page, from top to bottom."""
    import numpy as np

    if not len(quads):
        return []
    widths, heights = sides(quads)
    order = np.lexsort((quads[:, 0, 0], quads[:, 0, 1]))
    squeeze = _squeeze_for(networks, pixels, quads[np.argsort(-widths, kind="stable")[:_PILOTS]])
    lines: list[Line] = []
    for index in order:
        crop = cut_out(pixels, quads[index])
        if crop.shape[0] < 3 or crop.shape[1] < 3:
            continue
        box = _bounds(quads[index])
        reading = _read(networks, crop, squeeze)
        turned = 0
        if heights[index] > widths[index] * _TALL and reading.confidence < _DOUBTFUL:
            turned, reading = _read_turned(networks, crop, reading)
            crop = np.rot90(crop, turned // 90)
        lines += _kept(reading, crop, box, turned)
    return lines


def _squeeze_for(networks: Networks, pixels: Pixels, pilots: Floats) -> float:
    """Read a few lines to learn whether the page's characters are wide."""
    shares = []
    for quad in pilots:
        crop = cut_out(pixels, quad)
        reading = networks.read(crop, _SQUEEZE)
        if len(reading.text) > 3:
            shares.append(_share(crop, reading))
    shares.sort()
    return _SQUEEZE_WIDE if shares and shares[len(shares) // 2] >= _WIDE else _SQUEEZE


def _read(networks: Networks, crop: Pixels, squeeze: float) -> Reading:
    reading = networks.read(crop, squeeze)
    if squeeze < _SQUEEZE and reading.text and _share(crop, reading) < _WIDE:
        # A line of Latin text on a page of Chinese.
        reading = networks.read(crop, _SQUEEZE)
    if reading.confidence < _DOUBTFUL:
        again = networks.read(crop)
        if again.confidence > reading.confidence:
            reading = again
    return reading


def _read_turned(networks: Networks, crop: Pixels, upright: Reading) -> tuple[int, Reading]:
    """Read a tall box as a line that runs up or down, unless it reads better as it stands (a single digit)."""
    import numpy as np

    best = (0, upright)
    for turned, turns in ((270, 3), (90, 1)):
        reading = networks.read(np.ascontiguousarray(np.rot90(crop, turns)))
        if len(reading.text) > 1 and reading.confidence > best[1].confidence:
            best = (turned, reading)
    return best


def _kept(reading: Reading, crop: Pixels, box: PixelBox, turned: int) -> list[Line]:
    text = reading.text.strip()
    needed = _MIN_CONFIDENCE if len(text) > 1 else _MIN_CONFIDENCE_ONE
    if not text or reading.confidence < needed:
        return []
    found = find_print(crop)
    size = type_size(float(crop.shape[0]), found, text)
    line = Line(text=text, confidence=round(reading.confidence, 3), box=box, size=size, turned=turned)
    if turned:
        return [line]
    return [_trimmed(part, found, box) for part in _parted(line, reading)]


def _trimmed(line: Line, found: Print | None, box: PixelBox) -> Line:
    """Take off the margin that the detector leaves at both ends: it would bridge the gap between two columns."""
    if found is None:
        return line
    left, right = max(line.box[0], box[0] + found.left), min(line.box[2], box[0] + found.right)
    return replace(line, box=(left, line.box[1], right, line.box[3])) if right - left > 1 else line


def _parted(line: Line, reading: Reading) -> list[Line]:
    """Part a line at wide holes."""
    left, top, right, bottom = line.box
    width, height = right - left, bottom - top
    marks = [(char, left + at * width) for char, at in zip(reading.text, reading.positions, strict=True)]
    groups: list[list[tuple[str, float]]] = [[]]
    previous: float | None = None
    for char, at in marks:
        if char != " ":
            if previous is not None and at - previous > (_HOLE + 0.5) * height:
                groups.append([])
            previous = at
        groups[-1].append((char, at))
    if len(groups) == 1:
        return [line]
    parts = []
    for number, group in enumerate(groups):
        text = "".join(char for char, _ in group).strip()
        shown = [at for char, at in group if char != " "]
        if not text:
            continue
        start = left if number == 0 else max(left, shown[0] - 0.35 * height)
        end = right if number == len(groups) - 1 else min(right, shown[-1] + 0.35 * height)
        parts.append(replace(line, text=text, box=(start, top, end, bottom)))
    return parts


def _share(crop: Pixels, reading: Reading) -> float:
    """Return a character's mean width as a share of the line's height."""
    return float(crop.shape[1] / crop.shape[0] / max(1, len(reading.text)))


def _bounds(quad: Floats) -> PixelBox:
    (left, top), (right, bottom) = quad.min(axis=0), quad.max(axis=0)
    return float(left), float(top), float(right), float(bottom)
