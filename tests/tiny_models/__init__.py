"""Weights of tests' own making in the place of MinerU's: its real model path runs with them, within a second.

`make` writes the repository MinerU-4_models_onnx as MinerU 4.0.12 loads it: names, shapes and types of inputs and
outputs are those of the real weights, answers are plain functions of the picture. The text networks may be the
real ones that ship inside the rapidocr wheel. Nothing is kept in version control.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import yaml

from tests.tiny_models import layout, text

REPOSITORY = "MinerU-4_models_onnx"


def make(models: Path, *, real_text: bool = False) -> Path:
    """Write the repository into the folder of models and return its own folder.

    Args:
        models: what MINERU_MODEL_BASE_DIR names; made where it is missing.
        real_text: text is read by the networks of the rapidocr wheel (seconds a page), and not by made ones.
    """
    folder = models / REPOSITORY
    ocr, formulas, tables = (folder / name for name in ("OCR/paddleocr", "MFR/pp_formulanet_plus_m", "Table"))
    layout.write(folder / "Layout/PP-DocLayoutV2/inference.onnx")
    resize = {"type": "Resize", "target_size": [layout.SIDE, layout.SIDE], "interp": 2}
    _write_yaml(folder / "Layout/PP-DocLayoutV2/inference.yml", {"Preprocess": [resize]})
    detector, recogniser = ocr / "ch_PP-OCRv6_tiny_det_infer.onnx", ocr / "ch_PP-OCRv6_small_rec_infer.onnx"
    text.write_detector(ocr / "seal_PP-OCRv4_det_infer.onnx")
    if real_text:
        shutil.copyfile(_wheel("rapidocr") / "models/PP-OCRv6_det_small.onnx", detector)
        shutil.copyfile(_wheel("rapidocr") / "models/PP-OCRv6_rec_small.onnx", recogniser)
    else:
        text.write_detector(detector)
        text.write_recogniser(recogniser, _characters())
    for name in ("ch_PP-OCRv6_tiny_det", "ch_PP-OCRv6_small_rec", "seal_PP-OCRv4_det"):
        _write_yaml(ocr / f"{name}_inference.yml", {"Global": {"model_name": name}})
    formulas.mkdir(parents=True)
    text.write_formulas(formulas / "PP-FormulaNet_plus-M.onnx", formulas / "PP-FormulaNet_plus-M_inference.yml")
    text.write_open_tables(tables / "slanet-plus.onnx")
    text.write_ruled_tables(tables / "unet.onnx")
    text.write_table_classes(tables / "PP-LCNet_x1_0_table_cls.onnx")
    return folder


def _characters() -> list[str]:
    path = _wheel("mineru") / "model/ocr/data/ppocrv6_dict.txt"
    return [line.decode().strip("\r\n") for line in path.read_bytes().splitlines()]


def _wheel(package: str) -> Path:
    """Return the folder of an installed package without importing it."""
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def _write_yaml(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(value))
