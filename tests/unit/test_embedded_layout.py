"""Order of writing, sizes of type, and what is told to the caller."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from docfleet.engine.embedded.lines import Line
from docfleet.engine.embedded.notices import warnings_of
from docfleet.engine.embedded.ordering import aligned_rows, column_order
from docfleet.engine.embedded.parts import LineRecord, PageRecord, PageState, PictureRecord
from docfleet.engine.embedded.typography import alike_sizes, find_print, type_size
from docfleet.options import ParseOptions
from tests.mineru_support import request_for


def _line(text: str, size: float) -> Line:
    return Line(text=text, confidence=1.0, box=(0, 0, 100, size), size=size)


def test_two_columns_below_a_title_are_written_one_after_the_other() -> None:
    title = [(50.0, 10.0, 500.0, 30.0)]
    left = [(50.0, 50.0 + 14 * row, 250.0, 60.0 + 14 * row) for row in range(5)]
    right = [(300.0, 50.0 + 14 * row, 500.0, 60.0 + 14 * row) for row in range(5)]
    interleaved = title + [box for pair in zip(left, right, strict=True) for box in pair]
    written = [interleaved[index] for index in column_order(interleaved)]
    assert written == title + left + right


def test_a_row_of_few_cells_is_written_from_left_to_right() -> None:
    cells = [(300.0, 10.0, 380.0, 20.0), (50.0, 10.0, 120.0, 20.0), (180.0, 11.0, 250.0, 21.0)]
    assert column_order(cells) == [1, 2, 0]


def test_cells_of_a_row_that_the_detector_set_apart_come_to_one_height_and_other_rows_stay() -> None:
    boxes = [(50.0, 10.0, 120.0, 20.0), (180.0, 11.5, 250.0, 21.5), (50.0, 24.0, 120.0, 34.0)]
    moved = aligned_rows(boxes)
    assert moved[0][1] == moved[1][1]
    assert moved[2] == boxes[2]


def test_lines_printed_over_one_another_are_no_row() -> None:
    boxes = [(50.0, 10.0, 120.0, 20.0), (60.0, 11.0, 90.0, 21.0)]
    assert aligned_rows(boxes) == boxes


def test_a_table_without_rules_is_written_row_by_row() -> None:
    cells = [(x, y, x + 40.0, y + 10.0) for y in (10.0, 30.0, 50.0, 70.0) for x in (50.0, 200.0, 350.0)]
    by_column = sorted(range(len(cells)), key=lambda index: cells[index][0])
    shuffled = [cells[index] for index in by_column]
    assert [shuffled[index] for index in column_order(shuffled)] == cells


@given(
    st.lists(
        st.tuples(st.floats(0, 500), st.floats(0, 800), st.floats(1, 300), st.floats(1, 40)).map(
            lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
        ),
        max_size=40,
    )
)
def test_every_line_is_written_exactly_once(boxes: list[tuple[float, float, float, float]]) -> None:
    assert sorted(column_order(boxes)) == list(range(len(boxes)))


def test_lines_whose_boxes_differ_by_chance_get_one_size_and_a_heading_keeps_its_own() -> None:
    sizes = alike_sizes([_line("body text", 20.0), _line("more body text", 21.2), _line("Title", 34.0)])
    assert sizes[0] == sizes[1]
    assert sizes[2] == pytest.approx(34.0)


def test_the_size_of_chinese_type_follows_the_print_where_the_box_is_too_high() -> None:
    crop = np.full((60, 200, 3), 255, np.uint8)
    crop[15:43, 20:180] = 0
    found = find_print(crop)
    assert found is not None
    assert (found.left, found.top, found.right, found.bottom) == (20, 15, 180, 43)
    # 60 pixels high, the box alone would make it a heading of 49.
    assert type_size(60.0, found, "承担者") == pytest.approx(60 * 0.62)


def test_white_print_on_black_is_found() -> None:
    crop = np.zeros((40, 100, 3), np.uint8)
    crop[10:30, 30:70] = 255
    found = find_print(crop)
    assert found is not None
    assert (found.left, found.right) == (30, 70)


def _read_page(number: int, **more: object) -> PageRecord:
    line = LineRecord(text="a line of text", confidence=0.99, box=(0, 0, 1, 1), size=10)
    return PageRecord(**{"page": number, "state": PageState.RECOGNISED, "lines": (line,), **more})  # type: ignore[arg-type]


def test_warnings_name_the_pages_as_people_count_them(tmp_path) -> None:
    request = request_for(tmp_path / "a.pdf", pages=9)
    kept = PictureRecord(box=(0, 0, 1, 1), file="pictures/0.jpg")
    pages = [_read_page(0), _read_page(1, turned=90), _read_page(2, pictures=(kept,)), _read_page(6, lines=())]
    texts = warnings_of(request, pages)
    assert texts[0].startswith("pages 1-3 and 7 recognised without models")
    assert "page 3: a picture, drawing or unread region kept as an image" in texts
    assert "page 7: no text was found" in texts
    assert "page 2: turned upright" in texts


def test_a_document_that_keeps_its_own_text_needs_no_warning(tmp_path) -> None:
    assert warnings_of(request_for(tmp_path / "a.pdf"), []) == []


def test_lang_and_txt_on_a_picture_are_said_to_have_no_effect(tmp_path) -> None:
    request = request_for(tmp_path / "a.png", options=ParseOptions(method="txt", lang="ch"))  # type: ignore[arg-type]
    texts = " ".join(warnings_of(request, [_read_page(0)]))
    assert "method txt does not apply" in texts
    assert "lang=ch has no effect" in texts
