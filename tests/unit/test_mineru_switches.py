from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from docfleet.engine.mineru.switches import apply_switches
from docfleet.options import ParseOptions
from tests.mineru_support import loaded_engine

if TYPE_CHECKING:
    from mineru.types import MiddleJson

NO_FORMULAS = ParseOptions(formula_enable=False)
NO_TABLES = ParseOptions(table_enable=False)


def middle_from(dumped: str) -> MiddleJson:
    loaded_engine()
    from mineru.types import MiddleJson

    return MiddleJson.model_validate_json(dumped)


def render_markdown(middle: MiddleJson) -> str:
    from mineru.render import render_markdown

    return render_markdown(middle)


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "content": content}


def formula(content: str) -> dict[str, Any]:
    return {"type": "equation_inline", "content": content}


def paragraph(*spans: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "text", "content": list(spans), **more}


def table(markup: str) -> dict[str, Any]:
    return {
        "type": "table",
        "content": [
            {"type": "table_body", "content": markup},
            {"type": "table_caption", "content": [text("Yield "), formula("kg^2")]},
        ],
    }


def document(*pages: list[dict[str, Any]]) -> MiddleJson:
    numbered = []
    for number, blocks in enumerate(pages):
        for index, block in enumerate(blocks):
            block["index"] = index
            for child in block["content"] if isinstance(block["content"], list) else []:
                if str(child["type"]).endswith("_body"):
                    child["index"] = index
        numbered.append({"page_idx": number, "blocks": blocks})
    return middle_from(
        json.dumps(
            {
                "schema": "docvortex.middle",
                "schema_version": "2.0",
                "metadata": {"file_suffix": "docx", "producer": {"name": "test", "version": "1"}},
                "is_full_document": True,
                "pages": numbered,
            }
        )
    )


def harvest() -> MiddleJson:
    return document(
        [
            paragraph(text("where "), formula("x_1"), text(" is the yield")),
            {"type": "equation", "content": "E = mc^2"},
            table("<table><tr><td>a</td><td><eq>y^2</eq>b</td></tr></table>"),
            {
                "type": "list",
                "sub_type": "text",
                "content": [paragraph(text("first")), paragraph(formula("z"))],
            },
            paragraph({"type": "hyperlink", "url": "https://example.org/", "content": [formula("w")]}, text("after")),
        ]
    )


def test_with_both_switches_on_the_document_is_the_same_object() -> None:
    middle = harvest()
    assert apply_switches(middle, ParseOptions()) is middle


def test_without_formulas_neither_blocks_nor_inline_nor_table_formulas_remain() -> None:
    slim = apply_switches(harvest(), NO_FORMULAS)
    dumped = slim.to_json()
    for trace in ("equation", "mc^2", "x_1", "y^2", "kg^2", '"z"', '"w"', "<eq"):
        assert trace not in dumped
    rendered = render_markdown(slim)
    assert "where is the yield" in rendered
    assert "first" in rendered
    assert "after" in rendered
    assert "<td>b</td>" in slim.to_json() or "| a | b |" in rendered


def test_without_tables_the_formulas_stay() -> None:
    slim = apply_switches(harvest(), NO_TABLES)
    assert [str(block.type) for block in slim.pages[0].blocks] == ["text", "equation", "list", "text"]
    assert "x_1" in render_markdown(slim)


def test_the_result_is_a_valid_document_and_the_original_is_untouched() -> None:
    middle = harvest()
    before = middle.to_json()
    both_off = ParseOptions(formula_enable=False, table_enable=False)
    slim = apply_switches(middle, both_off)
    assert middle.to_json() == before
    assert middle_from(slim.to_json()) == slim


def test_text_that_continues_a_dropped_formula_does_not_join_an_earlier_paragraph() -> None:
    middle = document(
        [paragraph(text("First paragraph.")), paragraph(formula("a+b"))],
        [paragraph(text("Second paragraph."), continues_prev=True)],
    )
    assert render_markdown(apply_switches(middle, NO_FORMULAS)).split("\n\n") == [
        "First paragraph.",
        "Second paragraph.",
    ]


def test_text_that_continues_text_still_joins_it() -> None:
    middle = document(
        [paragraph(text("The orchard gave "), formula("n"))],
        [paragraph(text("many apples."), continues_prev=True)],
    )
    assert render_markdown(apply_switches(middle, NO_FORMULAS)) == "The orchard gave many apples."
