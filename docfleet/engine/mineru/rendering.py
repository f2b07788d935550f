"""Result files of a parsed document. Images become files under `images/`; no text holds them as data URIs.

| format | file | what it is |
|---|---|---|
| markdown | document.md | the text, always made |
| content_list, content_list_v2 | content_list.json, content_list_v2.json | MinerU's flat and by-page lists |
| middle_json | middle.json | typed blocks with boxes, after joining over pages |
| structured_content | structured_content.json | the document as a tree |
| model_output | model_output.json | what each page's analysis said, untouched by any switch |
| html, latex, docx | document.html, document.tex, document.docx | the document rendered |
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from loguru import logger

from docfleet.engine.mineru.failures import short_cause
from docfleet.errors import ParseFailed
from docfleet.options import Format

if TYPE_CHECKING:
    from docvortex.assets import AssetStore
    from mineru.types import MiddleJson, ModelJson

#: Name of the file that holds each format.
FILE_NAMES = {
    Format.MARKDOWN: "document.md",
    Format.CONTENT_LIST: "content_list.json",
    Format.CONTENT_LIST_V2: "content_list_v2.json",
    Format.MIDDLE_JSON: "middle.json",
    Format.STRUCTURED_CONTENT: "structured_content.json",
    Format.MODEL_OUTPUT: "model_output.json",
    Format.HTML: "document.html",
    Format.LATEX: "document.tex",
    Format.DOCX: "document.docx",
}

#: Formats that can fail on one formula or table; the others still come, with a warning.
_RENDITIONS = frozenset({Format.HTML, Format.LATEX, Format.DOCX})


def render(
    middle: MiddleJson, model: ModelJson | None, formats: Sequence[Format], output: Path, title: str
) -> tuple[list[str], list[str]]:
    """Write the files into `output`, `document.md` and the images whatever the formats.

    Returns:
        Names relative to `output` (`document.md` first, images last), and warnings for what could not be made.

    Raises:
        ParseFailed: model_output is asked for and `model` is None.
        Exception: whatever MinerU's renderers raise; `translated()` around this makes it a ParseFailed.
    """
    from docvortex.export import materialize_middle

    document, assets = materialize_middle(middle)
    writers = _writers(document, model, assets, title)
    files: list[str] = []
    warnings: list[str] = []
    for kind in dict.fromkeys((Format.MARKDOWN, *formats)):
        name = FILE_NAMES[kind]
        try:
            payload = writers[kind]()
        except Exception as exc:
            if kind not in _RENDITIONS:
                raise
            logger.warning("format {} could not be made: {}", kind, short_cause(exc))
            warnings.append(f"format {kind} could not be made of this document ({short_cause(exc)})")
            continue
        (output / name).write_bytes(payload)
        files.append(name)
    for name in sorted(assets):
        # Names come from DocVortex, which lets no absolute path and no ".." through.
        target = output / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(assets[name])
        files.append(name)
    return files, warnings


def _writers(
    document: MiddleJson, model: ModelJson | None, assets: AssetStore, title: str
) -> dict[Format, Callable[[], bytes]]:
    from mineru import render as mineru_render
    from mineru.parser.base import ParseResult

    def model_output() -> bytes:
        if model is None:
            raise ParseFailed("Format model_output cannot be made of this document: its engine keeps no model output.")
        return _json(model.to_dict(skip_defaults=False))

    def text(made: str) -> bytes:
        return made.encode("utf-8")

    return {
        Format.MARKDOWN: lambda: text(mineru_render.render_markdown(document)),
        Format.CONTENT_LIST: lambda: _json(mineru_render.render_content_list(document)),
        Format.CONTENT_LIST_V2: lambda: _json(mineru_render.render_content_list_v2(document)),
        Format.MIDDLE_JSON: lambda: _json(ParseResult(document).to_dict()),
        Format.STRUCTURED_CONTENT: lambda: _json(mineru_render.render_structured_content(document)),
        Format.MODEL_OUTPUT: model_output,
        Format.HTML: lambda: text(mineru_render.render_html(document, document_title=title)),
        Format.LATEX: lambda: text(mineru_render.render_latex(document, document_title=title)),
        Format.DOCX: lambda: _timeless(mineru_render.render_docx(document, asset_resolver=assets.__getitem__)),
    }


def _timeless(package: bytes) -> bytes:
    """Give every entry of a ZIP package the same date: the same document shall make the same bytes tomorrow."""
    buffer = BytesIO()
    with ZipFile(BytesIO(package)) as old, ZipFile(buffer, "w", ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(ZipInfo(name), old.read(name), compress_type=ZIP_DEFLATED)
    return buffer.getvalue()


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=2).encode("utf-8")
