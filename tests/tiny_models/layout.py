"""A layout detector by plain statistics: runs of rows with ink are boxes, and what they look like is their class.

Rows of ink that lie less than nine of 800 apart are one run. A run that is almost black is an image, one with a ruled
line over its whole width a table, a small one in the middle a formula, and so on. A page that is black all over makes
the network fail while it runs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.tiny_models.graph import INT, Graph

#: MinerU's own numbers for its classes (`PP_DOCLAYOUT_V2_LABELS`).
_FORMULA, _HEADER, _IMAGE, _NUMBER, _TITLE, _TABLE, _TEXT = 5, 12, 14, 16, 17, 21, 22

SIDE = 800
_REACH = 4
_COLUMNS = SIDE // 4


def write(path: Path) -> None:
    """Write the network: pictures and scales in; rows of class, score, box and order, and rows a page out."""
    graph = Graph(image=["B", 3, SIDE, SIDE], scale_factor=["B", 2])
    grey = graph.node("ReduceMean", "image", axes=[1], keepdims=1)
    ink = graph.number(graph.node("Less", grey, 0.75))
    page, top, bottom, starts = _runs(graph, ink)
    inside = _rows_inside(graph, top, bottom)
    left, right = _sides(graph, ink, page, inside)
    top, bottom = graph.number(top), graph.number(bottom)
    label = _label(graph, ink, page, inside, (left, top, right, bottom))

    scale = graph.node("Gather", "scale_factor", page, axis=0)
    high = graph.node("Gather", scale, 0, axis=1)
    wide = graph.node("Gather", scale, 1, axis=1)
    score = graph.node("Add", graph.node("Mul", top, 0.0), 0.9)
    columns = [
        label,
        score,
        graph.node("Div", left, wide),
        graph.node("Div", top, high),
        graph.node("Div", right, wide),
        graph.node("Div", bottom, high),
        top,
        graph.node("Mul", top, 0.0),
    ]
    boxes = graph.node("Concat", *(graph.node("Unsqueeze", column, [1]) for column in columns), axis=1)
    count = graph.node("ReduceSum", starts, [1], keepdims=0)
    graph.output(boxes, "boxes", ["N", 8])
    graph.output(graph.whole(graph.node("Add", count, _fails_if_black(graph, ink))), "counts", ["B"], INT)
    graph.save(path)


def _runs(graph: Graph, ink: str) -> tuple[str, str, str, str]:
    """Return for each run its page, first row and the row after its last, and for each page where runs start."""
    rows = graph.node("ReduceMax", ink, axes=[3], keepdims=0)
    joined = graph.node("MaxPool", rows, kernel_shape=[2 * _REACH + 1], pads=[_REACH, _REACH], strides=[1])
    joined = graph.node("Squeeze", joined, [1])
    before = graph.node("Slice", graph.node("Pad", joined, [0, 1, 0, 0]), [0], [SIDE], [1])
    after = graph.node("Slice", graph.node("Pad", joined, [0, 0, 0, 1]), [1], [SIDE + 1], [1])
    starts = graph.node("Mul", joined, graph.node("Sub", 1.0, before))
    ends = graph.node("Mul", joined, graph.node("Sub", 1.0, after))
    first, last = graph.node("NonZero", starts), graph.node("NonZero", ends)
    page = graph.node("Gather", first, 0, axis=0)
    # Most of the reach stays as a margin: MinerU takes the letters whose middle lies in a box.
    top = graph.node("Add", graph.node("Gather", first, 1, axis=0), 1)
    return page, top, graph.node("Gather", last, 1, axis=0), starts


def _rows_inside(graph: Graph, top: str, bottom: str) -> str:
    """Return one row of 0 and 1 for each run: the rows of the page that are its own."""
    rows = np.arange(SIDE)[None, :]
    below = graph.node("GreaterOrEqual", rows, graph.node("Unsqueeze", top, [1]))
    above = graph.node("Less", rows, graph.node("Unsqueeze", bottom, [1]))
    return graph.number(graph.node("And", below, above))


def _sides(graph: Graph, ink: str, page: str, inside: str) -> tuple[str, str]:
    """Return the first column with ink of each run and the one after its last, to four columns."""
    coarse = graph.node("MaxPool", ink, kernel_shape=[1, 4], strides=[1, 4])
    coarse = graph.node("Gather", graph.node("Squeeze", coarse, [1]), page, axis=0)
    sums = graph.node("MatMul", graph.node("Unsqueeze", inside, [1]), coarse)
    dark = graph.node("Greater", graph.node("Squeeze", sums, [1]), 0.0)
    columns = np.arange(_COLUMNS, dtype=np.float32)[None, :]
    left = graph.node("ReduceMin", graph.node("Where", dark, columns, float(_COLUMNS)), axes=[1], keepdims=0)
    right = graph.node("ReduceMax", graph.node("Where", dark, columns + 1, 0.0), axes=[1], keepdims=0)
    return graph.node("Mul", left, 4.0), graph.node("Mul", right, 4.0)


def _label(graph: Graph, ink: str, page: str, inside: str, box: tuple[str, str, str, str]) -> str:
    left, top, right, bottom = box
    width, height = graph.node("Sub", right, left), graph.node("Sub", bottom, top)
    rows = graph.node("ReduceSum", ink, [1, 3], keepdims=0)
    rows = graph.node("Mul", graph.node("Gather", rows, page, axis=0), inside)
    longest = graph.node("Div", graph.node("ReduceMax", rows, axes=[1], keepdims=0), width)
    filled = graph.node("Div", graph.node("ReduceSum", rows, [1], keepdims=0), graph.node("Mul", width, height))

    def both(first: str, second: str) -> str:
        return graph.node("And", first, second)

    small = both(graph.node("Less", width, 220.0), graph.node("Greater", left, 260.0))
    line = both(graph.node("Greater", height, 17.0), graph.node("Less", height, 26.0))
    kinds = (
        (line, _TITLE),
        (small, _FORMULA),
        (graph.node("Greater", top, 750.0), _NUMBER),
        (graph.node("Less", bottom, 60.0), _HEADER),
        (both(graph.node("Greater", longest, 0.8), graph.node("Greater", height, 36.0)), _TABLE),
        (both(graph.node("Greater", filled, 0.6), graph.node("Greater", height, 36.0)), _IMAGE),
    )
    label = graph.node("Add", graph.node("Mul", top, 0.0), float(_TEXT))
    for holds, kind in kinds:
        label = graph.node("Where", holds, float(kind), label)
    return label


def _fails_if_black(graph: Graph, ink: str) -> str:
    """Return zeros, one for each page; no such element exists where a page is black."""
    black = graph.node("Greater", graph.node("ReduceMean", ink, axes=[1, 2, 3], keepdims=0), 0.9)
    return graph.node("Gather", [0.0], graph.node("Mul", graph.whole(black), 1000), axis=0)
