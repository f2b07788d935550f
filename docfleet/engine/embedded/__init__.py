"""The one sub-package that knows onnxruntime, OpenCV and the weights inside the rapidocr wheel.

Importing it costs nothing: all that is heavy is imported by `EmbeddedEngine.load`.
"""

from __future__ import annotations

from docfleet.engine.embedded.engine import EmbeddedEngine

__all__ = ["EmbeddedEngine"]
