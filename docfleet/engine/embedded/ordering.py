"""The order in which lines are written into the rebuilt page: column by column.

MinerU orders a page's blocks by itself, but PDFium hands it text in the order it was written: two lines side by side,
written one after the other, come as one. So the page is cut at its white gaps, down before across; tables are written
row by row.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Left, top, right, bottom.
_Box = tuple[float, float, float, float]

#: A gap between columns is at least this wide, in heights of a line.
_GUTTER = 0.7
#: So many lines on either side make a column; fewer are cells of a row.
_COLUMN_LINES = 3
#: Columns that leave more white between them than this are those of a table, and written row by row.
_TABLE_FILL = 0.75
#: Boxes whose middles lie within this share of their height, and whose heights differ by no more than this factor,
#: stand in one row.
_SLACK = 0.25
_ALIKE = 1.5


def column_order(boxes: Sequence[_Box]) -> list[int]:
    """Return the indices of the boxes in writing order."""
    return _ordered(boxes, list(range(len(boxes))))


def aligned_rows(boxes: Sequence[_Box]) -> list[_Box]:
    """Return the boxes with those that stand in one row moved to one height: the detector sets them a hair apart.

    MinerU would otherwise read the cells of a row in the order of that hair.
    """
    aligned = list(boxes)
    rows: list[list[int]] = []
    for index in sorted(range(len(boxes)), key=lambda index: boxes[index][1] + boxes[index][3]):
        if rows and _in_row(boxes, rows[-1], index):
            rows[-1].append(index)
        else:
            rows.append([index])
    for row in rows:
        middle = sum(boxes[index][1] + boxes[index][3] for index in row) / (2 * len(row))
        for index in row:
            left, top, right, bottom = boxes[index]
            half = (bottom - top) / 2
            aligned[index] = (left, middle - half, right, middle + half)
    return aligned


def _in_row(boxes: Sequence[_Box], row: list[int], index: int) -> bool:
    left, top, right, bottom = boxes[index]
    _, first_top, _, first_bottom = boxes[row[0]]
    height, first_height = bottom - top, first_bottom - first_top
    if abs((top + bottom) - (first_top + first_bottom)) / 2 > _SLACK * min(height, first_height):
        return False
    if not 1 / _ALIKE < height / max(first_height, 1e-6) < _ALIKE:
        return False
    return all(boxes[other][2] <= left or right <= boxes[other][0] for other in row)


def _ordered(boxes: Sequence[_Box], members: list[int]) -> list[int]:
    if len(members) < 2:
        return members
    columns = _cut(boxes, members, 0, _GUTTER * _median_height(boxes, members))
    if len(columns) > 1 and _filled(boxes, columns) < _TABLE_FILL:
        return [
            index for row in _cut(boxes, members, 1, 0.0) for index in sorted(row, key=lambda index: boxes[index][0])
        ]
    if len(columns) > 1 and sum(len(column) >= _COLUMN_LINES for column in columns) > 1:
        return [index for column in columns for index in _ordered(boxes, column)]
    rows = _cut(boxes, members, 1, 0.0)
    if len(rows) > 1:
        return [index for group in _grouped(boxes, rows) for index in group]
    if len(columns) > 1:
        return [index for column in columns for index in _ordered(boxes, column)]
    return sorted(members, key=lambda index: (boxes[index][1], boxes[index][0]))


def _filled(boxes: Sequence[_Box], columns: list[list[int]]) -> float:
    """Return the share of the width that columns take; the rest is white between them."""
    extents = [(min(boxes[i][0] for i in column), max(boxes[i][2] for i in column)) for column in columns]
    return sum(right - left for left, right in extents) / max(extents[-1][1] - extents[0][0], 1e-6)


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
