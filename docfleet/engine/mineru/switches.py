"""The options `formula_enable` and `table_enable`, which MinerU 4 does not have: drop those blocks from its result.

Works on the MiddleJson, before any file is rendered, so that every format agrees. Nothing is changed in place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from docfleet.options import ParseOptions

if TYPE_CHECKING:
    from mineru.types import MiddleJson

#: MinerU writes formulas inside the HTML of tables and charts as <eq>LaTeX</eq>.
_MARKUP_FORMULA = re.compile(r"<eq\b[^>]*>.*?</eq\s*>", re.IGNORECASE | re.DOTALL)
#: Blocks that a visual block cannot be without, even where nothing is left in them.
_BODIES = frozenset({"image_body", "table_body", "chart_body", "code_body", "algorithm_body"})


def apply_switches(middle: MiddleJson, options: ParseOptions) -> MiddleJson:
    """Return the document without what the options switch off; the same object where they switch off nothing."""
    dropped = set()
    if not options.formula_enable:
        dropped.add("equation")
    if not options.table_enable:
        dropped.add("table")
    if not dropped:
        return middle
    pages = []
    orphaned: set[str] = set()
    for page in middle.pages:
        blocks = [block for block in page.blocks if str(block.type) not in dropped]
        if "equation" in dropped:
            blocks = _without_formulas(blocks, orphaned)
        pages.append(page.model_copy(update={"blocks": blocks}))
    return middle.model_copy(update={"pages": pages})


def _without_formulas(blocks: Iterable[Any], orphaned: set[str]) -> list[Any]:
    """`orphaned` holds the types of text whose last block fell away: what continues it must not join an earlier one."""
    kept = []
    for block in blocks:
        kind = str(block.type)
        continues = getattr(block, "continues_prev", None) is True
        slim = _slim(block)
        if slim is None:
            if not continues:
                orphaned.add(kind)
            continue
        if kind in orphaned:
            orphaned.discard(kind)
            if continues:
                slim = slim.model_copy(update={"continues_prev": None})
        kept.append(slim)
    return kept


def _slim(block: Any) -> Any | None:
    """Return the block without formulas, or None if it was nothing else. An empty block stays as it is."""
    content = getattr(block, "content", None)
    if not content:
        return block
    if isinstance(content, str):
        shorter: Any = _MARKUP_FORMULA.sub("", content) if "<eq" in content.lower() else content
    elif _is_block(content[0]):
        shorter = [child for child in (_slim(child) for child in content) if child is not None]
    else:
        shorter = _spans_without_formulas(content)
    if not shorter and str(block.type) not in _BODIES:
        return None
    return block.model_copy(update={"content": shorter})


def _is_block(item: Any) -> bool:
    return hasattr(item, "bbox")


def _spans_without_formulas(spans: Iterable[Any]) -> list[Any]:
    from mineru.types import parse_inline_spans

    kept: list[Any] = []
    for span in spans:
        if span.type == "equation_inline":
            continue
        if span.type == "hyperlink":
            inner = [child for child in span.content if child.type != "equation_inline"]
            if not inner:
                continue
            span = span.model_copy(update={"content": inner})
        elif span.type == "text" and kept and kept[-1].type == "text" and kept[-1].content.endswith(" "):
            # "where $x$ holds" must not become "where  holds".
            text = span.content.removeprefix(" ")
            if not text:
                continue
            span = span.model_copy(update={"content": text})
        kept.append(span)
    if not any(span.type != "text" or span.content.strip() for span in kept):
        return []
    return list(parse_inline_spans(kept))
