"""The order in which lines are written into the rebuilt page: column by column.

MinerU orders a page's blocks by itself, but PDFium hands it text in the order it was written: two lines side by side,
written one after the other, come as one. So the page is cut at its white gaps, down before across.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Left, top, right, bottom.
_Box = tuple[float, float, float, float]

#: A gap between columns is at least this wide, in heights of a line.
_GUTTER = 0.7
#: So many lines on either side make a column; fewer are cells of a row.
_COLUMN_LINES = 3


def column_order(boxes: Sequence[_Box]) -> list[int]:
    """Return the indices of the boxes in writing order."""
    return _ordered(boxes, list(range(len(boxes))))


def _ordered(boxes: Sequence[_Box], members: list[int]) -> list[int]:
    if len(members) < 2:
        return members
    columns = _cut(boxes, members, 0, _GUTTER * _median_height(boxes, members))
    if len(columns) > 1 and sum(len(column) >= _COLUMN_LINES for column in columns) > 1:
        return [index for column in columns for index in _ordered(boxes, column)]
    rows = _cut(boxes, members, 1, 0.0)
    if len(rows) > 1:
        return [index for group in _grouped(boxes, rows) for index in group]
    if len(columns) > 1:
        return [index for column in columns for index in _ordered(boxes, column)]
    return sorted(members, key=lambda index: (boxes[index][1], boxes[index][0]))


def _grouped(boxes: Sequence[_Box], rows: list[list[int]]) -> list[list[int]]:
    """Order rows from top to bottom, joining neighbours that the same gutter parts into columns."""
    groups: list[list[int]] = []
    run: list[int] = []
    for row in rows:
        joined = run + row
        gutter = _GUTTER * _median_height(boxes, joined)
        if run and len(_cut(boxes, joined, 0, gutter)) > 1:
            run = joined
            continue
        if run:
            groups.append(run)
        run = row
    groups.append(run)
    if len(groups) == 1:
        # One gutter goes through all rows, yet there are too few lines for columns.
        return [sorted(row, key=lambda index: boxes[index][0]) for row in rows]
    return [_ordered(boxes, group) for group in groups]


def _cut(boxes: Sequence[_Box], members: list[int], axis: int, least: float) -> list[list[int]]:
    """Cut at gaps wider than `least` that no member crosses; axis 0 cuts downwards, 1 across."""
    ordered = sorted(members, key=lambda index: (boxes[index][axis], boxes[index][1 - axis]))
    pieces: list[list[int]] = []
    reached = float("-inf")
    for index in ordered:
        if boxes[index][axis] - reached > least:
            pieces.append([])
        pieces[-1].append(index)
        reached = max(reached, boxes[index][axis + 2])
    return pieces


def _median_height(boxes: Sequence[_Box], members: list[int]) -> float:
    heights = sorted(boxes[index][3] - boxes[index][1] for index in members)
    return heights[len(heights) // 2]
