"""What was asked and is not done, or is done less well than could be: said in every report, never passed over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docfleet.engine.interface import ParseRequest
from docfleet.engine.mineru.sources import IMAGE_SUFFIXES, MODEL_SUFFIXES, canonical
from docfleet.options import VLM_TIERS, Method, Tier

if TYPE_CHECKING:
    from mineru.types import MiddleJson

_MOST_PAGES_NAMED = 10


def warnings_of(request: ParseRequest, asked: Tier, used: Tier, middle: MiddleJson) -> tuple[str, ...]:
    """Return one line for each thing; `asked` is the tier the engine was called with, `used` what it ran at."""
    options = request.options
    found: list[str] = []
    if canonical(request.suffix) not in MODEL_SUFFIXES:
        if asked is not used:
            found.append(f"{request.suffix} files are always read at tier flash; tier {asked} was not used")
        if options.method is Method.OCR:
            found.append(f"method ocr does not apply to {request.suffix} files; their own text was used")
        if options.end_page_id is not None or options.start_page_id:
            found.append(f"page ranges do not apply to {request.suffix} files; the whole document was read")
    elif request.suffix in IMAGE_SUFFIXES and options.method is Method.TXT:
        found.append("method txt does not apply to images, which have no text of their own; ocr was used")
    if options.lang is not None:
        found.append(f"lang {options.lang!r} was not used: recognition is multilingual and takes no language")
    if options.server_url is not None and used not in VLM_TIERS:
        found.append(f"server_url was not used: tier {used} reads no page with a vision-language model")
    if used is Tier.FLASH and request.suffix == "pdf":
        found += _pages_not_recognised(middle)
    found += _images_elsewhere(middle)
    return tuple(found)


def _images_elsewhere(middle: MiddleJson) -> list[str]:
    from docvortex.content.tree import iter_image_payloads

    blocks = (block for page in middle.pages for block in page.blocks)
    links = sum(1 for block in blocks for image in iter_image_payloads(block) if image.image_url)
    return [f"{links} image(s) lie on other servers; they were not fetched and stay links"] if links else []


def _pages_not_recognised(middle: MiddleJson) -> list[str]:
    """Name pages that are nothing but pictures in a result of the file's own text."""
    if middle.extensions.get("mineru", {}).get("parse_mode") == "ocr":
        return []
    pictures = [page.page_idx for page in middle.pages if page.blocks and all(b.type == "image" for b in page.blocks)]
    if not pictures:
        return []
    named = ", ".join(str(page) for page in pictures[:_MOST_PAGES_NAMED])
    more = f" and {len(pictures) - _MOST_PAGES_NAMED} more" if len(pictures) > _MOST_PAGES_NAMED else ""
    return [f"pages {named}{more} (counted from 0) hold pictures and no text of their own; they were not recognised"]
