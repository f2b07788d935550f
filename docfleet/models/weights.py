"""Whether a folder really holds MinerU's weights: the files its registry asks for, and not stand-ins for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from docfleet.models.backends import Backend

_TABLE_FILES = ("Table/slanet-plus.onnx", "Table/unet.onnx", "Table/PP-LCNet_x1_0_table_cls.onnx")

#: Repositories of small models and their files (mineru 4.0.12, `mineru.model.registry`). The device of a worker decides
#: which of them it loads (`docfleet.models.backends`).
REPOSITORIES: dict[str, tuple[str, ...]] = {
    "MinerU-4_models_onnx": (
        "Layout/PP-DocLayoutV2/inference.onnx",
        "Layout/PP-DocLayoutV2/inference.yml",
        "OCR/paddleocr/ch_PP-OCRv6_tiny_det_infer.onnx",
        "OCR/paddleocr/ch_PP-OCRv6_tiny_det_inference.yml",
        "OCR/paddleocr/ch_PP-OCRv6_small_rec_infer.onnx",
        "OCR/paddleocr/ch_PP-OCRv6_small_rec_inference.yml",
        "OCR/paddleocr/seal_PP-OCRv4_det_infer.onnx",
        "OCR/paddleocr/seal_PP-OCRv4_det_inference.yml",
        "MFR/pp_formulanet_plus_m/PP-FormulaNet_plus-M.onnx",
        "MFR/pp_formulanet_plus_m/PP-FormulaNet_plus-M_inference.yml",
        *_TABLE_FILES,
    ),
    "MinerU-4_models_torch": (
        "Layout/PP-DocLayoutV2",
        "MFR/pp_formulanet_plus_m/PP-FormulaNet_plus-M.pth",
        "MFR/pp_formulanet_plus_m/PP-FormulaNet_plus-M_inference.yml",
        "OCR/paddleocr",
        *_TABLE_FILES,
    ),
}

#: A folder of weights counts as whole only with this file in it or above it, up to its repository.
COMPLETE_MARKER = ".mineru_complete"
#: What lies in the place of a large file in a clone made without Git LFS.
_LFS_POINTER = b"version https://git-lfs"


def missing_weights(folder: Path, backends: Collection[Backend] = ()) -> str:
    """Return what keeps `folder` from serving tier basic without a hub, in one clause; empty if nothing does.

    Args:
        folder: folder of repositories.
        backends: what the workers load, all of which must be here; by default whichever it holds will do.
    """
    try:
        if not folder.is_dir():
            return f"there is no folder {folder}"
        lacking = {name: _lacking(folder / name, files) for name, files in REPOSITORIES.items()}
    except OSError as exc:
        return f"{folder} cannot be read ({exc.strerror or exc})"
    if not backends:
        if not all(lacking.values()):
            return ""
        # Of two incomplete repositories the fuller one is the one that somebody meant to have.
        backends = [min(Backend, key=lambda backend: _share_lacking(backend, lacking))]
    short = [backend for backend in backends if lacking[backend.repository]]
    if short and all(_share_lacking(backend, lacking) == 1 for backend in Backend):
        return f"{folder} holds no weights of MinerU"
    return " and ".join(_told(folder, backend, lacking[backend.repository]) for backend in short)


def _share_lacking(backend: Backend, lacking: Mapping[str, list[str]]) -> float:
    return len(lacking[backend.repository]) / len(REPOSITORIES[backend.repository])


def _told(folder: Path, backend: Backend, lacking: list[str]) -> str:
    name, parts = backend.repository, len(REPOSITORIES[backend.repository])
    if len(lacking) == parts:
        return f"{folder} lacks {name}, which workers {backend.workers} load"
    return f"{folder / name} lacks {len(lacking)} of {parts} parts, such as {lacking[0]}"


def _lacking(repository: Path, files: tuple[str, ...]) -> list[str]:
    return [relative for relative in files if not _is_whole(repository, repository / relative)]


def _is_whole(repository: Path, path: Path) -> bool:
    if path.is_file():
        with path.open("rb") as stream:
            start = stream.read(len(_LFS_POINTER))
        return bool(start) and start != _LFS_POINTER
    if not path.is_dir():
        return False
    up_to_repository = [place for place in (path, *path.parents) if place.is_relative_to(repository)]
    return any((place / COMPLETE_MARKER).is_file() for place in up_to_repository)
