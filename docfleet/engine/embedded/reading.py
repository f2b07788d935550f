"""From a page's pixels to what is on it: lines, rules, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from docfleet.engine.embedded.detection import line_quads
from docfleet.engine.embedded.lines import Line, PixelBox, read_lines
from docfleet.engine.embedded.orientation import lean, quarter_turns, sides, straightened
from docfleet.engine.embedded.regions import find_pictures, find_rules, is_text, whole_page

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from docfleet.engine.embedded.networks import Networks

    Pixels = NDArray[np.uint8]
    Floats = NDArray[np.float32]

#: Long side of the page as the detector sees it: enough for type of 8 points on A4, and a quarter of the cost of full.
_DETECT_SIDE = 1280
#: Where lines are then still lower than this, in its pixels, it looks again at a page this large.
_LOW_LINE = 14.0
_DETECT_SIDE_FINE = 2240


@dataclass(frozen=True, kw_only=True)
class PageReading:
    """What is on a page, in pixels of `pixels`."""

    #: The page, upright and straight.
    pixels: Pixels
    #: Degrees by which it was turned clockwise to stand upright.
    turned: int
    lines: Sequence[Line]
    rules: Sequence[PixelBox]
    pictures: Sequence[PixelBox]
    #: Pictures left out because text was read upon them.
    lost_pictures: int


def read_page(networks: Networks, pixels: Pixels) -> PageReading:
    """Read a page of any orientation."""
    import numpy as np

    quads = _detect(networks, pixels)
    turns = quarter_turns(networks, pixels, quads)
    if turns:
        pixels = np.ascontiguousarray(np.rot90(pixels, turns))
        quads = _detect(networks, pixels)
    angle = lean(quads)
    if angle:
        pixels, quads = straightened(pixels, quads, angle)
    lines = read_lines(networks, pixels, quads)
    rules = find_rules(pixels, lines)
    pictures: list[PixelBox] = []
    lost = 0
    # A page of which nothing can be read (a photograph, handwriting) is kept as it looks.
    for box in find_pictures(pixels, lines, rules) if lines else whole_page(pixels):
        # Labels of a drawing stay in the text too: MinerU gives them with the picture.
        if is_text(box, lines):
            lost += 1
            continue
        pictures.append(box)
        rules = [rule for rule in rules if not _inside(rule, box)]
    return PageReading(
        pixels=pixels, turned=(-90 * turns) % 360, lines=lines, rules=rules, pictures=pictures, lost_pictures=lost
    )


def _detect(networks: Networks, pixels: Pixels) -> Floats:
    import numpy as np

    size = (pixels.shape[1], pixels.shape[0])
    quads = line_quads(networks.text_map(pixels, _DETECT_SIDE), size)
    if not len(quads) or max(size) <= _DETECT_SIDE * 1.2:
        return quads
    widths, heights = sides(quads)
    low = float(np.median(np.minimum(widths, heights))) * _DETECT_SIDE / max(size)
    return quads if low >= _LOW_LINE else line_quads(networks.text_map(pixels, _DETECT_SIDE_FINE), size)


def _inside(rule: PixelBox, box: PixelBox) -> bool:
    return box[0] <= rule[0] and rule[2] <= box[2] and box[1] <= rule[1] and rule[3] <= box[3]
