"""From the detector's map to boxes of lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Floats = NDArray[np.float32]

_PIXEL_THRESHOLD = 0.3
_BOX_THRESHOLD = 0.5
#: The map marks the core of a line; its box is that much larger on all sides (share of area / perimeter).
_GROWTH = 1.6
_MIN_CORE = 3.0
_MAX_BOXES = 3000


def line_quads(text_map: Floats, size: tuple[int, int]) -> Floats:
    """Return boxes (n x 4 corners x (x, y)) in pixels of an image of `size` (width, height).

    Corners go clockwise from the top left one; the order of the boxes means nothing.
    """
    import cv2
    import numpy as np

    binary = (text_map > _PIXEL_THRESHOLD).astype(np.uint8)
    binary = cv2.dilate(binary, np.ones((2, 2), np.uint8))
    contours, _ = cv2.findContours(binary, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    quads = []
    for contour in contours[:_MAX_BOXES]:
        (centre, (width, height), angle) = cv2.minAreaRect(contour)
        if min(width, height) < _MIN_CORE:
            continue
        if _mean_inside(text_map, cv2.boxPoints((centre, (width, height), angle))) < _BOX_THRESHOLD:
            continue
        grow = width * height * _GROWTH / (2 * (width + height))
        grown = cv2.boxPoints((centre, (width + 2 * grow, height + 2 * grow), angle))
        quads.append(_clockwise(grown))
    if not quads:
        return np.zeros((0, 4, 2), np.float32)
    scale = np.array([size[0] / text_map.shape[1], size[1] / text_map.shape[0]], np.float32)
    result = np.stack(quads).astype(np.float32) * scale
    clipped: Floats = np.clip(result, 0, np.array([size[0], size[1]], np.float32))
    return clipped


def cut_out(pixels: Pixels, quad: Floats) -> Pixels:
    """Return what lies in a box, made horizontal."""
    import cv2
    import numpy as np

    width = max(1, round(float(np.linalg.norm(quad[1] - quad[0]) + np.linalg.norm(quad[2] - quad[3])) / 2))
    height = max(1, round(float(np.linalg.norm(quad[3] - quad[0]) + np.linalg.norm(quad[2] - quad[1])) / 2))
    if abs(quad[0][1] - quad[1][1]) < 1 and abs(quad[0][0] - quad[3][0]) < 1:
        left, top = (max(0, int(value)) for value in quad[0])
        plain = pixels[top : top + height, left : left + width]
        if plain.size:
            return plain
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(quad.astype(np.float32), corners)
    flat: Pixels = cv2.warpPerspective(pixels, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return flat


def _mean_inside(text_map: Floats, quad: Floats) -> float:
    import cv2
    import numpy as np

    left, top = np.maximum(np.floor(quad.min(axis=0)).astype(int), 0)
    right, bottom = np.ceil(quad.max(axis=0)).astype(int) + 1
    part = text_map[top:bottom, left:right]
    if not part.size:
        return 0.0
    mask = np.zeros(part.shape, np.uint8)
    cv2.fillPoly(mask, [(quad - (left, top)).astype(np.int32)], 1)
    return float(cv2.mean(part, mask)[0])


def _clockwise(quad: Floats) -> Floats:
    import numpy as np

    by_x = quad[np.argsort(quad[:, 0], kind="stable")]
    top_left, bottom_left = by_x[:2][np.argsort(by_x[:2, 1], kind="stable")]
    top_right, bottom_right = by_x[2:][np.argsort(by_x[2:, 1], kind="stable")]
    return np.stack([top_left, top_right, bottom_right, bottom_left])
