"""Write small ONNX networks as expressions: each call adds a node and returns the name of what it computes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

#: The oldest that ONNX Runtime's releases of the last years all read.
_OPSET = 17
_IR_VERSION = 8

FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64

Value = str | float | int | Sequence[Any] | np.ndarray[Any, Any]


class Graph:
    """A network under construction. Arguments of `node` are names of values, or constants."""

    def __init__(self, **inputs: Sequence[int | str]) -> None:
        self._inputs = [helper.make_tensor_value_info(name, FLOAT, list(shape)) for name, shape in inputs.items()]
        self._outputs: list[Any] = []
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def node(self, kind: str, *arguments: Value, **attributes: Any) -> str:
        """Add an operator of ONNX with one result."""
        name = f"{kind.lower()}_{len(self._nodes)}"
        names = [value if isinstance(value, str) else self._constant(value) for value in arguments]
        self._nodes.append(helper.make_node(kind, names, [name], **attributes))
        return name

    def _constant(self, value: Any) -> str:
        array = np.asarray(value)
        array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def number(self, value: str) -> str:
        """Truth as 0.0 and 1.0, or whole numbers as numbers with a point."""
        return self.node("Cast", value, to=FLOAT)

    def whole(self, value: str) -> str:
        """Numbers without what is behind the point."""
        return self.node("Cast", value, to=INT)

    def output(self, value: str, name: str, shape: Sequence[int | str], kind: int = FLOAT) -> None:
        """Name a value as the next output."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, kind, list(shape)))

    def save(self, path: Path, **metadata: str) -> None:
        """Check the network and write it."""
        graph = helper.make_graph(self._nodes, path.stem, self._inputs, self._outputs, self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
        helper.set_model_props(model, metadata)
        checker.check_model(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString())
