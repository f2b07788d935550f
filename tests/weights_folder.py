"""Folders that look whole to MinerU and hold no weights."""

from __future__ import annotations

from pathlib import Path

from docfleet.models.weights import COMPLETE_MARKER, REPOSITORIES


def fill(folder: Path, repository: str = "MinerU-4_models_onnx") -> Path:
    """Make a models folder that looks whole to MinerU."""
    for part in REPOSITORIES[repository]:
        path = folder / repository / part
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"weights")
        else:
            path.mkdir(parents=True, exist_ok=True)
            (path / "model.safetensors").write_bytes(b"weights")
            (path / COMPLETE_MARKER).touch()
    return folder
