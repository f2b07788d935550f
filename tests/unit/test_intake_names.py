from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from docfleet.intake.names import DEFAULT, MAX_BYTES, clean_filename

ANY_TEXT = st.text(st.characters(), max_size=400) | st.text(alphabet="./\\ \u202e\ud800a中\u0301\n", max_size=60)


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("report.pdf", "report.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\ada\\a.pdf", "a.pdf"),
        ("/", DEFAULT),
        ("a/..", DEFAULT),
        ("", DEFAULT),
        (None, DEFAULT),
        ("a\x00b\nc\x7f.pdf", "abc.pdf"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("报告 第一季度.pdf", "报告 第一季度.pdf"),
        ("cafe\u0301.pdf", "café.pdf"),
        ("👨\u200d👩\u200d👧.png", "👨\u200d👩\u200d👧.png"),
        ("half\ud83d.pdf", "half.pdf"),
        ("  spaced.pdf  ", "spaced.pdf"),
        (".htaccess", ".htaccess"),
        ("中" * 200 + ".pdf", "中" * 83 + ".pdf"),
        ("a" * 300, "a" * 255),
        ("a." + "b" * 300, "a." + "b" * 253),
    ],
)
def test_a_name_is_made_fit_for_people(name: str | None, clean: str) -> None:
    assert clean_filename(name) == clean


@given(ANY_TEXT)
@example("." * 300)
@example("a" * 250 + ". .pdf")
def test_whatever_comes_the_name_is_safe(name: str) -> None:
    clean = clean_filename(name)
    assert clean
    assert clean not in (".", "..")
    assert len(clean.encode("utf-8")) <= MAX_BYTES
    assert not set(clean) & set("/\\\0\n\r\u202e\u2066")
    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in clean)
    assert clean == clean.strip()


@given(ANY_TEXT)
def test_cleaning_twice_changes_nothing(name: str) -> None:
    assert clean_filename(clean_filename(name)) == clean_filename(name)


@given(st.text("abcdefgh 中文éß-_()", min_size=1, max_size=40).map(str.strip).filter(bool))
def test_ordinary_names_are_kept(stem: str) -> None:
    name = unicodedata.normalize("NFC", f"{stem}.pdf")
    assert clean_filename(name) == name
