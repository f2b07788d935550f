"""Page stage: MinerU's analysis of a range of pages, kept as files that any process can gather later.

MinerU works in windows of MINERU_PROCESSING_WINDOW_SIZE pages that know nothing of each other. A part holds one file
for each window, `pages-<first page>.json`; a part without any is that of a document whose pages need no model, which
flash reads as a whole at the document stage.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from docfleet.engine.interface import ParseRequest, Progress
from docfleet.engine.mineru.failures import translated
from docfleet.engine.mineru.sources import (
    IMAGE_SUFFIXES,
    PdfRange,
    classify,
    image_to_pdf,
    pdf_range,
    properties_of,
    without_broken_pages,
    without_pages,
)
from docfleet.errors import BrokenDocument, InternalError, OutOfDeviceMemory, ParseFailed
from docfleet.options import Method, Tier

if TYPE_CHECKING:
    from docvortex.schema import DocumentProperties
    from mineru.backend.analysis.contracts import AnalysisResult
    from mineru.config import VlmConfig
    from mineru.types import ModelJson

#: MinerU's inner word for each tier.
_EFFORTS = {Tier.FLASH: "flash", Tier.BASIC: "medium", Tier.STANDARD: "high", Tier.ADVANCED: "xhigh"}
_WINDOW_PAGES = 64


@dataclass(frozen=True, kw_only=True)
class GatheredPages:
    """The pages of all parts, in order."""

    model: ModelJson
    #: Pages that cannot be opened; not in `model`.
    broken: tuple[int, ...]


def wanted_range(request: ParseRequest) -> tuple[int, int]:
    """Return the range that the caller asked for; a shard's own range may be smaller."""
    return request.options.page_range(request.pages)


def page_method(request: ParseRequest, data: bytes) -> Literal["txt", "ocr"]:
    """Decide where the text comes from, the same for every shard: judged by all pages that the caller wants."""
    if request.suffix in IMAGE_SUFFIXES:
        return "ocr"
    decided = request.decisions.get("method")
    if decided is not None:
        return "ocr" if decided == "ocr" else "txt"
    method = request.options.method
    if method is not Method.AUTO:
        return "ocr" if method is Method.OCR else "txt"
    wanted = wanted_range(request)
    answer = classify(pdf_range(data, wanted).data)
    if answer == "ocr":
        # MinerU answers so, too, where it stumbles over a page that cannot be opened; the others shall decide.
        rest = without_broken_pages(data, wanted)
        answer = answer if rest is None else classify(rest.data)
    return answer


def analyse_windows(
    request: ParseRequest,
    data: bytes,
    tier: Tier,
    method: Literal["txt", "ocr"],
    part: Path,
    progress: Progress,
    vlm: VlmConfig | None,
) -> None:
    """Analyse `request.first_page..last_page` of a PDF or image into the folder `part`, one file for each window.

    Windows come from the shelf where it has the same ones, and go there as soon as they are analysed.

    Args:
        request: the document and the range.
        data: the bytes of `request.source`.
        tier: flash only together with method "ocr", or where a result without its document-wide steps will do.
        method: the answer of `page_method`.
        part: an empty folder.
        progress: called with the pages of each window; may raise to stop the work.
        vlm: how to reach the VLM of tiers standard and advanced; None for the others.

    Raises:
        DocfleetError: the document cannot be read, or weights are missing.
    """
    with translated():
        properties = _properties(request, data)
    for first, last in _windows(request):
        if request.skipped.issuperset(range(first, last + 1)):
            progress(last - first + 1)
            continue
        piece = _piece(request, first, last, method)
        kept = request.shelf.get(piece)
        if kept is None:
            with translated():
                window = _window_of(request, data, first, last)
                model, lost = _analyse(window, data, (first, last), tier, method, vlm, properties)
                payload = {"broken": sorted({*window.broken, *lost}), "model": model.to_dict(skip_defaults=False)}
                kept = json.dumps(payload, ensure_ascii=False).encode()
            request.shelf.put(piece, kept)
        with translated():
            (part / f"pages-{first:06d}.json").write_bytes(kept)
        progress(last - first + 1)


def window_starts(request: ParseRequest) -> frozenset[int]:
    """Return the pages of the request at which MinerU's windows begin."""
    return frozenset(first for first, _ in _windows(request))


def unread_pages(request: ParseRequest, method: str) -> frozenset[int]:
    """Return the pages of the request that lie in windows which the shelf does not have."""
    return frozenset(
        page
        for first, last in _windows(request)
        if not request.shelf.holds(_piece(request, first, last, method))
        for page in range(first, last + 1)
    )


def gather(
    request: ParseRequest, parts: Sequence[Path], pages_wanted: tuple[int, int] | None = None
) -> GatheredPages | None:
    """Join the page files of all parts into one document, or return None if there are none.

    Args:
        request: the document; pages given up count as broken, whether a part holds them or not.
        parts: in any order.
        pages_wanted: the range that the parts shall hold; by default all that the caller wants.

    Raises:
        InternalError: a page of the wanted range is in no part, or in two.
    """
    from mineru.types import ModelJson

    pages: list[list[dict[str, Any]]] = []
    numbers: list[int] = []
    broken: list[int] = []
    geometry: list[dict[str, Any]] = []
    last: ModelJson | None = None
    for path in sorted((file for part in parts for file in part.glob("pages-*.json")), key=lambda file: file.name):
        held = json.loads(path.read_bytes())
        last = ModelJson.from_dict(held["model"])
        broken += held["broken"]
        kept = [page not in request.skipped for page in last.resolved_page_indices]
        pages += compress(last.pages, kept)
        numbers += compress(last.resolved_page_indices, kept)
        geometry += [page for page in _geometry(last) if page["page_idx"] not in request.skipped]
    if last is None:
        return None
    first_wanted, last_wanted = pages_wanted or wanted_range(request)
    wanted = list(range(first_wanted, last_wanted + 1))
    broken = sorted({*broken, *(page for page in request.skipped if first_wanted <= page <= last_wanted)})
    if sorted(numbers + broken) != wanted:
        raise InternalError("The parts of this document do not hold each of its pages once; send it again.")
    model = ModelJson(
        pages=pages,
        # As MinerU writes it: no map where the document is whole.
        page_index_map=[] if numbers == list(range(request.pages)) else numbers,
        metadata=last.metadata,
        extensions={**last.extensions, **({_layout_name(): {"version": 1, "pages": geometry}} if geometry else {})},
    )
    return GatheredPages(model=model, broken=tuple(broken))


def _windows(request: ParseRequest) -> Iterator[tuple[int, int]]:
    """Yield ranges that end where MinerU's windows over the wanted range end, so that shards change nothing.

    After memory ran out they are smaller: a window's pages are held as pictures, and its batches made of them.
    """
    try:
        size = max(1, int(os.environ.get("MINERU_PROCESSING_WINDOW_SIZE", _WINDOW_PAGES)))
    except ValueError:
        size = _WINDOW_PAGES
    size = max(1, int(size * request.memory_share))
    start = wanted_range(request)[0] if request.counted_from is None else request.counted_from
    first = request.first_page
    while first <= request.last_page:
        end = start + ((first - start) // size + 1) * size - 1
        yield first, min(end, request.last_page)
        first = end + 1


def _window_of(request: ParseRequest, data: bytes, first: int, last: int) -> PdfRange:
    if request.suffix not in IMAGE_SUFFIXES:
        if not request.skipped.isdisjoint(range(first, last + 1)):
            return without_pages(data, (first, last), request.skipped)
        return pdf_range(data, (first, last))
    numbers = None if request.pages == 1 else list(range(first, last + 1))
    return PdfRange(data=image_to_pdf(data, (first, last)), numbers=numbers)


def _analyse(
    window: PdfRange,
    data: bytes,
    pages: tuple[int, int],
    tier: Tier,
    method: Literal["txt", "ocr"],
    vlm: VlmConfig | None,
    properties: DocumentProperties,
) -> tuple[ModelJson, tuple[int, ...]]:
    try:
        with translated():
            return _model_of(window, tier, method, vlm, properties), ()
    except OutOfDeviceMemory:
        raise
    except (BrokenDocument, ParseFailed):
        # One page that cannot be opened must not take the others with it.
        rest = without_broken_pages(data, pages) if data.startswith(b"%PDF") else None
        if rest is None:
            raise
        return _model_of(rest, tier, method, vlm, properties), rest.broken


def _model_of(
    window: PdfRange,
    tier: Tier,
    method: Literal["txt", "ocr"],
    vlm: VlmConfig | None,
    properties: DocumentProperties,
) -> ModelJson:
    """MinerU's `doc_analyze` without its document stage, which is due once for all windows together."""
    from mineru.backend.analysis.pdf.pipeline import analyze_pdf

    result = analyze_pdf(window.data, effort=_EFFORTS[tier], parse_mode=method, vlm_config=vlm)
    return model_json_of(result, window.numbers, properties)


def model_json_of(result: AnalysisResult, numbers: list[int] | None, properties: DocumentProperties) -> ModelJson:
    """Return MinerU's analysis of a PDF as the ModelJson that its `doc_analyze` makes of it.

    Args:
        result: of all pages of the PDF, in order.
        numbers: for each its number in the document; None where they are the document's own.
        properties: what the file declares.
    """
    from docvortex.document.pdf.layout import remap_layout_geometry
    from docvortex.schema import DocumentMetadata, Producer
    from mineru.integrations.docvortex import build_metadata
    from mineru.types import ModelJson
    from mineru.version import __version__

    extensions = build_metadata(effort=result.effort, parse_mode=result.parse_mode)
    if result.layout_geometry is not None:
        extensions[_layout_name()] = remap_layout_geometry(result.layout_geometry, numbers)
    return ModelJson(
        pages=result.model_list,
        page_index_map=numbers or [],
        metadata=DocumentMetadata(
            file_suffix="pdf", producer=Producer(name="mineru", version=__version__), document=properties
        ),
        extensions=extensions,
    )


def _properties(request: ParseRequest, data: bytes) -> DocumentProperties:
    from docvortex.schema import DocumentProperties

    return DocumentProperties() if request.suffix in IMAGE_SUFFIXES else properties_of(data, "pdf")


def _layout_name() -> str:
    from docvortex.document.pdf.layout import LAYOUT_EXTENSION

    return str(LAYOUT_EXTENSION)


def _geometry(model: ModelJson) -> list[dict[str, Any]]:
    layout = model.extensions.get(_layout_name())
    return list(layout["pages"]) if isinstance(layout, dict) else []


def _piece(request: ParseRequest, first: int, last: int, method: str) -> dict[str, Any]:
    """Return the name of a window on its document's shelf: all that its analysis depends on.

    Formulas and tables are switched off at the document stage, and no language is used at all.
    """
    return {
        "window": [first, last],
        "method": method,
        "left out": sorted(request.skipped.intersection(range(first, last + 1))),
        "server": request.options.server_url,
    }
