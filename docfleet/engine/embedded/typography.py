"""How large the type of a line is. MinerU tells headings from text by it, so chance must not play a part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

#: Type as a share of its line's box: usually, at least, at most.
_TYPE_SHARE, _LEAST_SHARE, _MOST_SHARE = 0.82, 0.62, 0.95
_MOST_LATIN_SHARE = 1.15
#: Sizes stray by this share between lines of one type.
_STRAY = 0.12
#: Height of what is printed as a share of the type's size: a full line, one without parts below the line or without
#: parts above the small letters, and one of small letters only.
_FULL, _PARTIAL, _SMALL = 0.93, 0.72, 0.5
#: Less print than this share of a usual row is dust, or the edge of a neighbouring line.
_DUST = 0.03
_BELOW = frozenset("gjpqyQ,;()[]{}|/$")
#: How much more than print of Latin text shows its box may claim.
_TOLERANCE = 1.35
#: From here on characters fill a square.
_FIRST_WIDE = 0x2E80


class Sized(Protocol):
    """A line with its size."""

    @property
    def text(self) -> str:
        """What it says."""
        ...

    @property
    def size(self) -> float:
        """Size of its type in pixels."""
        ...


@dataclass(frozen=True)
class Print:
    """Where in a line's box there is print, in pixels from the box's top left corner."""

    left: int
    top: int
    right: int
    bottom: int


def find_print(crop: Pixels) -> Print | None:
    """Return the extent of what is printed in a horizontal line's box, dust left aside; None if nothing is."""
    import cv2
    import numpy as np

    grey = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_BGR2GRAY)
    level, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    dark = grey <= level
    if dark.mean() > 0.5:
        # Light print on a dark ground.
        dark = ~dark
    rows = dark.sum(axis=1)
    held = np.flatnonzero(rows > max(1, _DUST * float(np.percentile(rows, 90))))
    if not len(held):
        return None
    top, bottom = int(held[0]), int(held[-1]) + 1
    across = np.flatnonzero(dark[top:bottom].sum(axis=0) > max(1, _DUST * (bottom - top)))
    if not len(across):
        return None
    return Print(int(across[0]), top, int(across[-1]) + 1, bottom)


def type_size(height: float, found: Print | None, text: str) -> float:
    """Return the size of a line's type, given the height of its box and what is printed there, all in pixels.

    Print of characters that fill their square (Chinese) is even over lines, and tells. Print of Latin text is not, its
    boxes are, but they are too low around large type, and now and then far too high: print bounds them both ways.
    """
    usual = height * _TYPE_SHARE
    if found is None:
        return usual
    printed = found.bottom - found.top
    if any(ord(char) >= _FIRST_WIDE for char in text):
        return min(max(printed / _FULL, height * _LEAST_SHARE), height * _MOST_SHARE)
    told = min(printed / _share_of(text), height * _MOST_LATIN_SHARE)
    return min(max(usual, told), told * _TOLERANCE)


def alike_sizes(lines: Sequence[Sized]) -> list[float]:
    """Return a size for each line of a page, the same for lines whose sizes differ by chance only."""
    weights: Counter[float] = Counter()
    for line in lines:
        weights[round(line.size, 1)] += len(line.text)
    common: dict[float, float] = {}
    while weights:
        # The commonest size by length of text comes first: the others are measured against body text.
        centre = max(weights, key=lambda size: (sum(weights[near] for near in _near(weights, size)), -size))
        group = _near(weights, centre)
        mean = sum(size * weights[size] for size in group) / sum(weights[size] for size in group)
        for size in group:
            common[size] = mean
            del weights[size]
    return [common[round(line.size, 1)] for line in lines]


def _near(sizes: Iterable[float], size: float) -> list[float]:
    return [other for other in sizes if abs(other - size) <= _STRAY * size]


def _share_of(text: str) -> float:
    above = any(char.isupper() or char.isdigit() or char in "bdfhkltij()[]{}|/'\"!?" for char in text)
    below = any(char in _BELOW for char in text)
    return _FULL if above and below else _PARTIAL if above or below else _SMALL
