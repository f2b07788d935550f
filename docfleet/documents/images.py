"""Pictures sent as documents: the pixels of one frame, within bounds of memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageOps, UnidentifiedImageError

from docfleet.errors import BrokenDocument, DocumentTooLarge, EmptyDocument

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

#: What one decoded frame may take in memory: 128 million pixels in colour, four times as many in grey.
MAX_DECODED_BYTES = 512 * 1024 * 1024

#: Modes that Pillow holds in one byte a pixel; the others take four.
_ONE_BYTE = ("1", "L", "P")

#: Resolutions outside say nothing of the paper's size: screens write 72 or 96 into everything.
_PLAUSIBLE_DPI = (100.0, 1200.0)


@dataclass(frozen=True)
class Frame:
    """One frame of a picture."""

    #: height x width x 3, BGR.
    pixels: Pixels
    #: Pixels an inch of paper (after any reduction); None where the file does not say, or says nothing credible.
    dpi: float | None


def check_decoded_size(image: Image.Image, shown: tuple[int, int]) -> None:
    """Refuse a picture that takes too much memory once decoded.

    Args:
        image: opened, not decoded; its size is what would be decoded now.
        shown: width and height in pixels that the caller knows the picture by.

    Raises:
        DocumentTooLarge: over `MAX_DECODED_BYTES`.
    """
    if image.width * image.height * (1 if image.mode in _ONE_BYTE else 4) > MAX_DECODED_BYTES:
        raise DocumentTooLarge(
            f"The picture has {shown[0]} x {shown[1]} pixels, more than one page may hold in memory. "
            "Scale it down, or make it grey, and send it again."
        )


def read_frame(path: Path, frame: int, max_pixels: int) -> Frame:
    """Return a frame as it is meant to be looked at (camera rotation applied, upon white), reduced to `max_pixels`.

    Raises:
        BrokenDocument: the frame cannot be decoded.
        DocumentTooLarge: decoding it would take more memory than a page may.
    """
    with _opened(path) as image:
        try:
            if frame:
                image.seek(frame)
            width, height = image.size
            shrunk = (max_pixels / (width * height)) ** 0.5
            if shrunk < 1:
                # JPEG can be decoded at a half, a quarter, an eighth: never more than was asked for is held.
                image.draft(None, (max(1, int(width * shrunk)), max(1, int(height * shrunk))))
            check_decoded_size(image, (width, height))
            dpi = _credible_dpi(image)
            reduced = _reduced(_upon_white(ImageOps.exif_transpose(image)), max_pixels)
        except (OSError, EOFError, ValueError, SyntaxError, Image.DecompressionBombError) as exc:
            raise BrokenDocument(f"Page {frame + 1} of the picture cannot be decoded: {exc}.") from exc
        return Frame(_bgr(reduced), dpi * max(reduced.size) / max(width, height) if dpi else None)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    if path.stat().st_size == 0:
        raise EmptyDocument("The file has no bytes. Send the document again.")
    with warnings.catch_warnings():
        # Size is bounded here, and by less than Pillow warns of.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(path)
        except Image.DecompressionBombError:
            raise DocumentTooLarge("The picture has more pixels than can be read. Scale it down.") from None
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
            raise BrokenDocument("The picture cannot be read: it is damaged or was cut off. Send it again.") from None
        with image:
            yield image


def _credible_dpi(image: Image.Image) -> float | None:
    try:
        across, down = (float(value) for value in image.info.get("dpi", (0, 0)))
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    low, high = _PLAUSIBLE_DPI
    return across if low <= across <= high and abs(across - down) < 0.02 * across else None


def _upon_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow clips 16 bits to 8 instead of scaling them.
        return image.convert("I").point(lambda value: value / 256).convert("L")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        shown = image.convert("RGBA")
        white = Image.new("RGBA", shown.size, "white")
        white.alpha_composite(shown)
        return white.convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode in ("1", "I", "F") else "RGB")


def _reduced(image: Image.Image, max_pixels: int) -> Image.Image:
    scale = (max_pixels / (image.width * image.height)) ** 0.5
    if scale >= 1:
        return image
    size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
    return image.resize(size, Image.Resampling.BOX, reducing_gap=2.0)


def _bgr(image: Image.Image) -> Pixels:
    import numpy as np

    pixels = np.asarray(image, dtype=np.uint8)
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], 3, axis=2)
    return np.ascontiguousarray(pixels[:, :, ::-1])
