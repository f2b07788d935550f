"""Text and formula networks that answer with letters for shades of grey: nonsense, but the picture's own nonsense."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from tests.tiny_models.graph import INT, Graph

#: From white to black. The last is what the grey padding beside short lines becomes: a line depends on the others of
#: its batch, as in the real recogniser.
_SHADES = " etaoinshrd|"
#: Columns a letter: few letters, for MinerU looks at all 18,710 classes of each.
_STEP = 24
_SYMBOLS = "abcdefghijklmnopqrstuvwxyz"


def write_detector(path: Path) -> None:
    """Ink, joined to words: 0.95 where there is some."""
    graph = Graph(x=["B", 3, "H", "W"])
    grey = graph.node("ReduceMean", "x", axes=[1], keepdims=1)
    ink = graph.number(graph.node("Less", grey, 1.2))
    words = graph.node("MaxPool", ink, kernel_shape=[3, 13], pads=[1, 6, 1, 6], strides=[1, 1])
    graph.output(graph.node("Mul", words, 0.95), "maps", ["B", 1, "H", "W"])
    graph.save(path)


def write_recogniser(path: Path, characters: list[str]) -> None:
    """A letter for the mean shade of every so many columns.

    Args:
        path: where to.
        characters: MinerU's dictionary; class 0 is "none", the class after the last one a space.
    """
    classes = [characters.index(letter) + 1 if letter != " " else len(characters) + 1 for letter in _SHADES]
    graph = Graph(x=["B", 3, 48, "W"])
    grey = graph.node("ReduceMean", "x", axes=[1, 2], keepdims=0)
    columns = graph.node("AveragePool", graph.node("Unsqueeze", grey, [1]), kernel_shape=[_STEP], strides=[_STEP])
    ink = graph.node("Mul", graph.node("Sub", 1.0, graph.node("Squeeze", columns, [1])), float(len(_SHADES)))
    shade = graph.whole(graph.node("Clip", ink, 0.0, len(_SHADES) - 1.0))
    chosen = graph.node("Gather", classes, shade, axis=0)
    depth = len(characters) + 2
    graph.output(graph.node("OneHot", chosen, depth, [0.0, 0.99], axis=-1), "classes", ["B", "T", depth])
    graph.save(path)


def write_formulas(path: Path, configuration: Path) -> None:
    """Write a network that answers with three tokens for a picture's shades, and its tokenizer."""
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", "=", *_SYMBOLS]
    graph = Graph(x=["B", 1, 384, 384])
    halves = graph.node("AveragePool", "x", kernel_shape=[384, 192], strides=[384, 192])
    shades = graph.node("Reshape", halves, [0, 2])
    spread = graph.whole(graph.node("Abs", graph.node("Mul", shades, 997.0)))
    letters = graph.node("Add", graph.node("Mod", spread, len(_SYMBOLS)), 5)
    left = graph.node("Gather", letters, [0], axis=1)
    right = graph.node("Gather", letters, [1], axis=1)
    same = graph.node("Mul", left, 0)
    tokens = [same, left, graph.node("Add", same, 4), right, graph.node("Add", same, 2)]
    graph.output(graph.node("Concat", *tokens, axis=1), "tokens", ["B", 5], INT)
    graph.save(path)
    special = [
        {
            "id": number,
            "content": vocabulary[number],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for number in range(4)
    ]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {token: number for number, token in enumerate(vocabulary)},
            "unk_token": "<unk>",
        },
    }
    configuration.write_text(yaml.safe_dump({"PostProcess": {"character_dict": {"fast_tokenizer_file": tokenizer}}}))


def write_table_classes(path: Path) -> None:
    """Ruled or not: the darkest row decides."""
    graph = Graph(x=["B", 3, 224, 224])
    grey = graph.node("ReduceMean", "x", axes=[1], keepdims=0)
    rows = graph.node("ReduceMean", graph.number(graph.node("Less", grey, 1.2)), axes=[2], keepdims=0)
    ruled = graph.number(graph.node("Greater", graph.node("ReduceMax", rows, axes=[1], keepdims=1), 0.8))
    graph.output(
        graph.node("Concat", ruled, graph.node("Sub", 1.0, ruled), axis=1),
        "classes",
        ["B", 2],
    )
    graph.save(path)


def write_ruled_tables(path: Path) -> None:
    """1 on straight lines across, 2 on lines down, 0 elsewhere."""
    graph = Graph(x=["B", 3, "H", "W"])
    grey = graph.node("ReduceMean", "x", axes=[1], keepdims=1)
    ink = graph.number(graph.node("Less", grey, 1.2))

    def lines(high: int, wide: int) -> str:
        window = {"kernel_shape": [high, wide], "pads": [high // 2, wide // 2] * 2, "strides": [1, 1]}
        straight = graph.number(graph.node("Greater", graph.node("AveragePool", ink, **window), 0.9))
        return graph.node("Greater", graph.node("MaxPool", straight, **window), 0.0)

    down = graph.node("Where", lines(31, 1), 2.0, 0.0)
    graph.output(graph.node("Where", lines(1, 31), 1.0, down), "lines", ["B", 1, "H", "W"])
    graph.save(path)


def write_open_tables(path: Path) -> None:
    """Three rows of two cells, whatever the picture; the text is put in by MinerU."""
    tokens = ["<tbody>", "</tbody>", "<tr>", "</tr>", "<td></td>"]
    row = ["<tr>", "<td></td>", "<td></td>", "</tr>"]
    sequence = ["<tbody>", *row, *row, *row, "</tbody>", "eos"]
    classes = ["sos", *tokens, "eos"]
    structure = np.zeros((1, len(sequence), len(classes)), np.float32)
    boxes = np.zeros((1, len(sequence), 8), np.float32)
    cells = 0
    for place, token in enumerate(sequence):
        structure[0, place, classes.index(token)] = 1.0
        if token == "<td></td>":
            left, top = cells % 2 / 2, cells // 2 / 3
            right, bottom = left + 0.5, top + 1 / 3
            boxes[0, place] = (left, top, right, top, right, bottom, left, bottom)
            cells += 1
    graph = Graph(x=["B", 3, 488, 488])
    nothing = graph.node("Mul", graph.node("ReduceMean", "x", axes=[1, 2, 3], keepdims=0), 0.0)
    nothing = graph.node("Unsqueeze", nothing, [1, 2])
    graph.output(graph.node("Add", nothing, boxes), "boxes", ["B", len(sequence), 8])
    graph.output(graph.node("Add", nothing, structure), "structure", ["B", len(sequence), len(classes)])
    graph.save(path, character="\n".join(tokens))
