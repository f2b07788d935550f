"""Weights for MinerU's tiers standard and advanced, made here: a layout model that sees one paragraph on each page.

The layout graph is written in ONNX's own format (onnx.proto3, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3),
field by field; the other models are those of `tests.tiny_models`.
"""

from __future__ import annotations

import struct
from pathlib import Path

from tests import tiny_models

#: PP-DocLayoutV2's number for a paragraph, its score, the box in pixels of a page at 200 dpi, two keys of the order.
_PARAGRAPH = (22.0, 0.95, 150.0, 150.0, 1500.0, 500.0, 0.0, 0.0)
_FLOAT, _INT64 = 1, 7


def make_weights(folder: Path) -> Path:
    """Make the folder of models. Return it, for `--models-dir`."""
    layout = tiny_models.make(folder) / "Layout" / "PP-DocLayoutV2"
    (layout / "inference.onnx").write_bytes(_layout_model())
    (layout / "inference.yml").write_text("Preprocess:\n- {type: Resize, target_size: [800, 800], interp: 2}\n")
    return folder


def _layout_model() -> bytes:
    """image [B, 3, 800, 800] -> boxes [B, 8] and their number on each page [B]: the same one everywhere."""
    constants = [
        _tensor("first", _INT64, [1], struct.pack("<q", 0)),
        _tensor("eight", _INT64, [1], struct.pack("<q", 8)),
        _tensor("one", _INT64, [1], struct.pack("<q", 1)),
        _tensor("paragraph", _FLOAT, [1, 8], struct.pack("<8f", *_PARAGRAPH)),
    ]
    nodes = [
        _node("Shape", ["image"], "shape"),
        _node("Gather", ["shape", "first"], "batch"),
        _node("Concat", ["batch", "eight"], "wanted", axis=0),
        _node("Expand", ["paragraph", "wanted"], "boxes"),
        _node("Expand", ["one", "batch"], "counts"),
    ]
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, b"layout")
    graph += b"".join(_field(5, constant) for constant in constants)
    graph += _field(11, _value("image", _FLOAT, ["b", 3, 800, 800]))
    graph += _field(12, _value("boxes", _FLOAT, ["n", 8])) + _field(12, _value("counts", _INT64, ["b"]))
    return _number(1, 8) + _field(7, graph) + _field(8, _number(2, 13))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _tensor(name: str, kind: int, dims: list[int], data: bytes) -> bytes:
    return b"".join(_number(1, dim) for dim in dims) + _number(2, kind) + _field(8, name.encode()) + _field(9, data)


def _node(kind: str, inputs: list[str], output: str, axis: int | None = None) -> bytes:
    node = b"".join(_field(1, name.encode()) for name in inputs) + _field(2, output.encode()) + _field(4, kind.encode())
    attribute = b"" if axis is None else _field(5, _field(1, b"axis") + _number(3, axis) + _number(20, 2))
    return node + attribute


def _value(name: str, kind: int, dims: list[int | str]) -> bytes:
    shape = b"".join(_field(1, _number(1, dim) if isinstance(dim, int) else _field(2, dim.encode())) for dim in dims)
    return _field(1, name.encode()) + _field(2, _field(1, _number(1, kind) + _field(2, shape)))
