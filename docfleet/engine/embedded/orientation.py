"""Which way up a page is, and how far it leans.

Cheap for a page that stands upright: the direction of its lines tells 0/180 from 90/270, and a small network looks at
a few lines for 0 against 180. Only where that network doubts, lines are read both ways and the surer reading wins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from docfleet.engine.embedded.detection import cut_out

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from docfleet.engine.embedded.networks import Networks

    Pixels = NDArray[np.uint8]
    Floats = NDArray[np.float32]

#: Lines looked at for 0 against 180, and lines read where that leaves a doubt.
_LOOKED_AT = 8
_READ = 4
#: Below this mean probability of standing on its head a page is upright without reading a line.
_SURELY_UPRIGHT = 0.25
#: A side is longer than the other by this factor where a box shows a direction.
_ELONGATED = 1.5
#: A turned reading must be this much surer than the reading as it lies.
_SURER = 0.05
#: Degrees: below, leaning does not matter; above, the angle is no leaning.
_LEAN = (0.35, 15.0)


def quarter_turns(networks: Networks, pixels: Pixels, quads: Floats) -> int:
    """Return how many quarter turns counter-clockwise (0 to 3, as `numpy.rot90`) make the page upright."""
    import numpy as np

    if not len(quads):
        return 0
    widths, heights = sides(quads)
    wide = float(widths[widths > heights * _ELONGATED].sum())
    tall = float(heights[heights > widths * _ELONGATED].sum())
    longest = np.argsort(-np.maximum(widths, heights), kind="stable")
    if tall > wide:
        lines = [cut_out(pixels, quads[k]) for k in longest if heights[k] > widths[k] * _ELONGATED][:_READ]
        return _surest(networks, lines, (0, 1, 3))
    lines = [cut_out(pixels, quads[k]) for k in longest if widths[k] > heights[k] * _ELONGATED][:_LOOKED_AT]
    if not lines:
        return 0
    doubt = sum(networks.upside_down(line) for line in lines) / len(lines)
    return 0 if doubt < _SURELY_UPRIGHT else _surest(networks, lines[:_READ], (0, 2))


def lean(quads: Floats) -> float:
    """Return by how many degrees the lines of an upright page fall to the right; 0 where they do not lean."""
    import numpy as np

    widths, heights = sides(quads)
    long = widths > heights * 4
    if long.sum() < 2:
        return 0.0
    across = quads[long, 1] - quads[long, 0] + quads[long, 2] - quads[long, 3]
    angles = np.degrees(np.arctan2(across[:, 1], across[:, 0]))
    order = np.argsort(angles, kind="stable")
    reached = np.cumsum(widths[long][order])
    # The median by length, and how far half of all lines stray from it: pages whose lines disagree are left alone.
    angle = float(angles[order][np.searchsorted(reached, reached[-1] / 2)])
    stray = float(np.median(np.abs(angles - angle)))
    return angle if _LEAN[0] < abs(angle) < _LEAN[1] and stray < 1.0 else 0.0


def straightened(pixels: Pixels, quads: Floats, angle: float) -> tuple[Pixels, Floats]:
    """Turn a page and its boxes by `angle` degrees counter-clockwise, about its centre and within its size."""
    import cv2
    import numpy as np

    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
    turned = cv2.warpAffine(pixels, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    moved = quads @ matrix[:, :2].T.astype(np.float32) + matrix[:, 2].astype(np.float32)
    return turned, np.clip(moved, 0, np.array([width, height], np.float32)).astype(np.float32)


def sides(quads: Floats) -> tuple[Floats, Floats]:
    """Return width and height of each box."""
    import numpy as np

    widths = np.linalg.norm(quads[:, 1] - quads[:, 0], axis=1)
    heights = np.linalg.norm(quads[:, 3] - quads[:, 0], axis=1)
    return widths, heights


def _surest(networks: Networks, lines: list[Pixels], turns: tuple[int, ...]) -> int:
    """Return the quarter turns at which the lines read best; the first one wins unless another is clearly surer."""
    import numpy as np

    if not lines:
        return turns[0]
    sure = {}
    for turn in turns:
        readings = [networks.read(np.ascontiguousarray(np.rot90(line, turn))) for line in lines]
        # A wrong way up yields few characters as well as doubtful ones.
        sure[turn] = sum(item.confidence * min(1.0, len(item.text) / 4) for item in readings) / len(lines)
    best = max(turns, key=lambda turn: sure[turn])
    return best if sure[best] > sure[turns[0]] + _SURER else turns[0]
