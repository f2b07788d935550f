from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docfleet.errors import InvalidOption, InvalidPageRange
from docfleet.intake.reuse import reuse_key
from docfleet.options import DEFAULT_FORMATS, Format, Method, ParseOptions, Tier, parse_options, tier_of_backend
from docfleet.records import Document


@pytest.mark.parametrize(
    ("word", "tier"),
    [
        ("pipeline", Tier.BASIC),
        ("hybrid-auto-engine", Tier.STANDARD),
        ("vlm-vllm-async-engine", Tier.ADVANCED),
        ("vlm-http-client", Tier.ADVANCED),
        ("flash", Tier.FLASH),
        ("AUTO", Tier.AUTO),
        ("", Tier.AUTO),
    ],
)
def test_backend_words_of_every_mineru_version_are_mapped(word: str, tier: Tier) -> None:
    assert tier_of_backend(word) is tier


def test_a_tier_wins_over_a_backend() -> None:
    assert parse_options({"backend": "pipeline", "tier": "flash"}).wanted_tier is Tier.FLASH


def test_form_fields_are_understood_as_older_clients_write_them() -> None:
    options = parse_options(
        {
            "formula_enable": "True",
            "table_enable": "false",
            "start_page_id": "",
            "end_page_id": "99999",
            "server_url": "",
            "lang": "ch",
            "method": "ocr",
            "formats": "markdown, html",
        }
    )
    assert options == ParseOptions(
        table_enable=False, lang="ch", method=Method.OCR, formats=(Format.MARKDOWN, Format.HTML)
    )


def test_formats_may_be_a_json_list_in_a_form_field() -> None:
    assert parse_options({"formats": '["docx", "docx"]'}).formats == (Format.DOCX,)
    assert parse_options({}).formats == DEFAULT_FORMATS


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        ({"colour": "red"}, "colour"),
        ({"tier": "turbo"}, "tier"),
        ({"shards": "turbo"}, "shards"),
        ({"backend": "tesseract"}, "backend"),
        ({"start_page_id": -1}, "start_page_id"),
        ({"start_page_id": 3, "end_page_id": 2}, "end_page_id"),
        ({"formats": []}, "formats"),
        ({"formats": "pdf"}, "formats"),
        ({"formats": "[1"}, "formats|options"),
        ({"formula_enable": "perhaps"}, "formula_enable"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(raw: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidOption, match=word):
        parse_options(raw)


def test_a_field_of_a_form_that_was_left_empty_is_one_that_was_not_given() -> None:
    assert parse_options(dict.fromkeys(ParseOptions.model_fields, "")) == parse_options({})
    with pytest.raises(InvalidOption, match="colour"):
        parse_options({"colour": ""})


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"start_page_id": 3, "end_page_id": 2}, "end_page_id (2) lies before start_page_id (3)."),
        ({"formats": []}, "option 'formats': name at least one."),
        ({"server_url": ",".join(f"http://host{n}" for n in range(200))}, "option 'server_url': names more than"),
    ],
)
def test_a_refusal_is_told_in_words_for_callers(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        parse_options(raw)
    assert refused.value.message.startswith(message)


def test_a_format_that_is_not_known_is_the_only_thing_complained_of() -> None:
    with pytest.raises(InvalidOption) as refused:
        parse_options({"formats": "pdf"})
    assert refused.value.message.count("option ") == 1


def test_a_range_is_clamped_at_the_end_and_refused_beyond_it() -> None:
    assert parse_options({"start_page_id": 2, "end_page_id": 50}).page_range(10) == (2, 9)
    assert parse_options({}).page_range(10) == (0, 9)
    with pytest.raises(InvalidPageRange, match="10 page"):
        parse_options({"start_page_id": 10}).page_range(10)


@given(
    st.dictionaries(
        st.sampled_from([*ParseOptions.model_fields, "other"]),
        st.one_of(st.none(), st.text(max_size=12), st.integers(), st.booleans(), st.lists(st.text(max_size=5))),
    )
)
def test_any_json_gives_options_or_a_clear_refusal(raw: dict[str, Any]) -> None:
    try:
        options = parse_options(raw)
    except InvalidOption as exc:
        assert exc.message
    else:
        assert ParseOptions.model_validate_json(options.model_dump_json()) == options


def test_results_of_fast_shards_are_stored_apart_from_exact_ones() -> None:
    document = Document(filename="a.pdf", suffix="pdf", size=1, sha256="0" * 64, pages=9)
    keys = {reuse_key(document, parse_options({"shards": word})) for word in ("fast", "exact")}
    assert len(keys) == 2
    assert reuse_key(document, parse_options({})) in keys


def test_a_document_without_pages_that_was_read_whole_for_a_range_serves_only_who_named_one() -> None:
    letter = Document(filename="a.docx", suffix="docx", size=1, sha256="0" * 64, pages=1)
    whole, ranged = (reuse_key(letter, parse_options(raw)) for raw in ({}, {"end_page_id": 0}))
    assert whole != ranged, "its warning would be shown to the wrong caller"
    book = replace(letter, suffix="pdf", pages=9)
    assert reuse_key(book, parse_options({})) == reuse_key(book, parse_options({"end_page_id": 8}))
