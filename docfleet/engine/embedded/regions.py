"""What on a page is not text: rules, which make tables, and pictures, which are kept as they look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from docfleet.engine.embedded.lines import Line, PixelBox

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Mask = NDArray[np.uint8]

#: Long side of the reduced page that rules and pictures are sought on.
_RULE_SIDE = 1600
_PICTURE_SIDE = 1000
#: Contrast, of 255.
_CONTRAST = 40
#: Shares of the page's sides: shortest rule across and down, thickest rule, smallest side of a picture.
_MIN_RULE = (0.04, 0.012)
_MAX_RULE_THICKNESS = 0.006
_MIN_SIDE = 0.03
_MIN_AREA = 0.004
#: Share of a picture's box that shows edges; or that differs from the paper, in a smooth picture.
_MIN_EDGES = 0.03
_MIN_TINT = 0.4
#: A page without text that varies less than this (standard deviation, of 255) is blank.
_BLANK = 6.0
#: Parts of a picture nearer than this share of the page's side belong together.
_NEAR = 0.015
#: Parts looked at, of a page that falls into many.
_MAX_PARTS = 1000
#: More characters than this within a picture are text upon a picture, not labels of a drawing.
_MAX_LABELS = 160


def find_rules(pixels: Pixels, lines: Sequence[Line]) -> list[PixelBox]:
    """Return horizontal and vertical rules as boxes of no thickness, in pixels of `pixels`."""
    import cv2
    import numpy as np

    small, scale = _reduced(pixels, _RULE_SIDE)
    height, width = small.shape
    paper = cv2.medianBlur(
        cv2.resize(small, (max(8, width // 8), max(8, height // 8)), interpolation=cv2.INTER_AREA), 21
    )
    paper = cv2.resize(paper, (width, height), interpolation=cv2.INTER_LINEAR)
    ink = (cv2.subtract(paper, small) > _CONTRAST).astype(np.uint8)
    thickest = max(3, round(_MAX_RULE_THICKNESS * max(height, width)))
    rules: list[PixelBox] = []
    for across, shortest in ((True, _MIN_RULE[0] * width), (False, _MIN_RULE[1] * height)):
        length = max(15, round(shortest))
        # One pixel of slack sideways, so that a rule that leans by a hair is still one rule.
        kernel = np.ones((1, length) if across else (length, 1), np.uint8)
        slack = np.ones((3, 1) if across else (1, 3), np.uint8)
        opened = cv2.morphologyEx(cv2.dilate(ink, slack), cv2.MORPH_OPEN, kernel)
        _, _, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
        for left, top, wide, high, _ in stats[1:].tolist():
            if (high if across else wide) > thickest + 2 or (wide if across else high) < length:
                continue
            middle = (left + wide / 2, top + high / 2)
            ends = (left, middle[1], left + wide, middle[1]) if across else (middle[0], top, middle[0], top + high)
            rule = tuple(float(value / scale) for value in ends)
            if not _is_stroke(rule, lines):
                rules.append((rule[0], rule[1], rule[2], rule[3]))
    return sorted(rules)


def find_pictures(pixels: Pixels, lines: Sequence[Line], rules: Sequence[PixelBox]) -> list[PixelBox]:
    """Return boxes of pictures: places with many edges that are neither text nor rules."""
    import cv2
    import numpy as np

    small, scale = _reduced(pixels, _PICTURE_SIDE)
    height, width = small.shape
    edges = (cv2.morphologyEx(small, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > _CONTRAST).astype(np.uint8)
    for line in lines:
        margin = 0.15 * line.height
        _blank(edges, line.box, scale, margin)
    for rule in rules:
        _blank(edges, rule, scale, 3 / scale)
    tinted = np.abs(small.astype(np.int16) - int(np.percentile(small, 75))) > _CONTRAST
    reach = max(3, round(_NEAR * max(height, width)))
    joined = cv2.morphologyEx(edges, cv2.MORPH_CLOSE, np.ones((reach, reach), np.uint8))
    _, _, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    parts = [(left, top, left + wide, top + high) for left, top, wide, high, area in stats[1:].tolist() if area > 20]
    # Noise makes thousands of specks; what is a picture is among the largest.
    parts = sorted(parts, key=lambda box: (box[0] - box[2]) * (box[3] - box[1]))[:_MAX_PARTS]
    boxes = []
    for box in _merged(parts, reach):
        left, top, right, bottom = box
        wide, high = right - left, bottom - top
        if wide < _MIN_SIDE * width or high < _MIN_SIDE * height or wide * high < _MIN_AREA * width * height:
            continue
        if edges[top:bottom, left:right].mean() < _MIN_EDGES and tinted[top:bottom, left:right].mean() < _MIN_TINT:
            continue
        boxes.append((left / scale, top / scale, right / scale, bottom / scale))
    return sorted(boxes, key=lambda box: (box[1], box[0]))


def whole_page(pixels: Pixels) -> list[PixelBox]:
    """Return the page itself as a picture, unless it is blank."""
    small, _ = _reduced(pixels, _PICTURE_SIDE)
    return [(0.0, 0.0, float(pixels.shape[1]), float(pixels.shape[0]))] if float(small.std()) > _BLANK else []


def is_text(box: PixelBox, lines: Sequence[Line]) -> bool:
    """Whether what lies in a picture's box is text in its own right rather than labels."""
    return sum(len(line.text) for line in lines if _within(line.box, box)) > _MAX_LABELS


def _reduced(pixels: Pixels, side: int) -> tuple[Mask, float]:
    import cv2
    import numpy as np

    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    grey = cv2.cvtColor(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    return np.asarray(grey, dtype=np.uint8), scale


def _is_stroke(rule: Sequence[float], lines: Sequence[Line]) -> bool:
    """Whether a rule is part of a letter or runs through a word's own box."""
    left, top, right, bottom = rule
    x, y = (left + right) / 2, (top + bottom) / 2
    for line in lines:
        box = line.box
        if box[0] <= x <= box[2] and box[1] + 0.1 * line.height <= y <= box[3] - 0.1 * line.height:
            length = max(right - left, bottom - top)
            if length < 1.5 * line.height or (right - left) > (bottom - top):
                return True
    return False


def _blank(mask: Mask, box: Sequence[float], scale: float, margin: float) -> None:
    left, top, right, bottom = box
    rows = slice(max(0, int((top - margin) * scale)), max(0, int((bottom + margin) * scale) + 1))
    columns = slice(max(0, int((left - margin) * scale)), max(0, int((right + margin) * scale) + 1))
    mask[rows, columns] = 0


def _merged(boxes: list[tuple[int, int, int, int]], reach: int) -> list[tuple[int, int, int, int]]:
    """Join boxes that overlap or lie within `reach` of one another, until none do."""
    result: list[tuple[int, int, int, int]] = []
    for box in sorted(boxes):
        while True:
            near = next((other for other in result if _touch(box, other, reach)), None)
            if near is None:
                break
            result.remove(near)
            box = (min(box[0], near[0]), min(box[1], near[1]), max(box[2], near[2]), max(box[3], near[3]))
        result.append(box)
    return result


def _touch(one: tuple[int, int, int, int], two: tuple[int, int, int, int], reach: int) -> bool:
    return (
        one[0] - reach <= two[2] and two[0] - reach <= one[2] and one[1] - reach <= two[3] and two[1] - reach <= one[3]
    )


def _within(inner: PixelBox, outer: PixelBox) -> bool:
    x, y = (inner[0] + inner[2]) / 2, (inner[1] + inner[3]) / 2
    return outer[0] <= x <= outer[2] and outer[1] <= y <= outer[3]
