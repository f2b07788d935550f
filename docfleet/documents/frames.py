"""Images: how many frames, and whether they can be decoded. A frame counts as a page."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image

from docfleet.documents.images import check_decoded_size
from docfleet.errors import BrokenDocument, DocfleetError, DocumentTooLarge, HostileDocument

#: Frames of one file.
MAX_FRAMES = 5_000

#: Pillow's names, so that a file is read as what it was recognised as and by no other of its 40 readers.
_FORMATS = {
    "png": "PNG",
    "jpg": "JPEG",
    "tiff": "TIFF",
    "webp": "WEBP",
    "bmp": "BMP",
    "gif": "GIF",
    "jp2": "JPEG2000",
}


def frame_count(path: Path, suffix: str) -> int:
    """Return the number of frames; the first and the last are decoded, the sizes of all are looked at.

    Args:
        path: the image.
        suffix: its type by content.

    Raises:
        DocumentTooLarge: a frame takes more memory than engines give it.
        HostileDocument: there are more than `MAX_FRAMES`.
        BrokenDocument: it is damaged or cut off.
    """
    try:
        with warnings.catch_warnings():
            # Damage that a decoder can pass over is its business, and size is bounded here.
            warnings.simplefilter("ignore")
            return _counted(path, suffix)
    except (DocfleetError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise DocumentTooLarge("The picture has more pixels than can be read. Scale it down.") from None
    except Exception as exc:
        # Decoders answer damage with errors of many types.
        raise BrokenDocument(
            f"The picture is damaged or was cut off on its way ({type(exc).__name__}). Send it again."
        ) from exc


def _counted(path: Path, suffix: str) -> int:
    with Image.open(path, formats=[_FORMATS[suffix]]) as image:
        # JPEG can be decoded at an eighth of its size, which reads every byte all the same.
        image.draft(None, (image.width // 8, image.height // 8))
        check_decoded_size(image, image.size)
        image.load()
        frames = int(getattr(image, "n_frames", 1))
        if frames > MAX_FRAMES:
            raise HostileDocument(f"The picture has {frames} frames; at most {MAX_FRAMES} are read. Send it in parts.")
        for frame in range(1, frames):
            image.seek(frame)
            check_decoded_size(image, image.size)
        if frames > 1:
            image.load()
        return frames
