"""Weights for MinerU's tiers standard and advanced, made here: a layout model that sees one paragraph on each page.

The layout graph is written in ONNX's own format (onnx.proto3, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3),
field by field; text detection comes out of the rapidocr wheel. Table and formula models are empty files: nothing on
such a page asks for them.
"""

from __future__ import annotations

import struct
from importlib.util import find_spec
from pathlib import Path

#: PP-DocLayoutV2's number for a paragraph, its score, the box in pixels of a page at 200 dpi, two keys of the order.
_PARAGRAPH = (22.0, 0.95, 150.0, 150.0, 1500.0, 500.0, 0.0, 0.0)
_FLOAT, _INT64 = 1, 7
_EMPTY = (
    "OCR/paddleocr/ch_PP-OCRv6_tiny_det_inference.yml",
    "OCR/paddleocr/ch_PP-OCRv6_small_rec_inference.yml",
    "OCR/paddleocr/seal_PP-OCRv4_det_infer.onnx",
    "OCR/paddleocr/seal_PP-OCRv4_det_inference.yml",
    "MFR/pp_formulanet_plus_m/PP-FormulaNet_plus-M.onnx",
    "MFR/pp_formulanet_plus_m/PP-FormulaNet_plus-M_inference.yml",
    "Table/slanet-plus.onnx",
    "Table/unet.onnx",
    "Table/PP-LCNet_x1_0_table_cls.onnx",
)


def make_weights(folder: Path) -> Path:
    """Make the folder of models. Return it, for `--models-dir`."""
    root = folder / "MinerU-4_models_onnx"
    layout = root / "Layout" / "PP-DocLayoutV2"
    ocr = root / "OCR" / "paddleocr"
    for place in (layout, ocr):
        place.mkdir(parents=True)
    (layout / "inference.onnx").write_bytes(_layout_model())
    (layout / "inference.yml").write_text("Preprocess:\n- {type: Resize, target_size: [800, 800], interp: 2}\n")
    spec = find_spec("rapidocr")
    assert spec is not None
    assert spec.origin is not None
    shipped = Path(spec.origin).parent / "models"
    (ocr / "ch_PP-OCRv6_tiny_det_infer.onnx").symlink_to(shipped / "PP-OCRv6_det_small.onnx")
    (ocr / "ch_PP-OCRv6_small_rec_infer.onnx").symlink_to(shipped / "PP-OCRv6_rec_small.onnx")
    for name in _EMPTY:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
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
