"""The readers of JSON and base64, fed in pieces of any size."""

from __future__ import annotations

import base64
import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docfleet.errors import DocfleetError, DocumentTooLarge, InvalidRequest
from docfleet.files import DataFolder
from docfleet.intake.encoding import Base64Stream
from docfleet.intake.jsonbody import JsonReader
from docfleet.intake.multipart import MultipartReader
from docfleet.intake.spool import MAX_FILES, Spool, Upload

CUTS = st.lists(st.integers(0, 10_000), max_size=12)
CONTENT = st.binary(max_size=400)
ENCODED = base64.b64encode(b"hello").decode()


def pieces(data: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(places):
        yield data[start:end]


def decoded(data: bytes, cuts: Iterable[int] = ()) -> bytes:
    out = bytearray()
    stream = Base64Stream(out.extend)
    for piece in pieces(data, cuts):
        stream.feed(piece)
    stream.finish()
    return bytes(out)


def escaped_by_php(text: str) -> str:
    return text.replace("/", r"\/")


def escaped_by_dotnet(text: str) -> str:
    return text.replace("+", r"\u002B").replace("=", r"\u003d")


def escaped_wholly(text: str) -> str:
    return "".join(f"\\u{ord(character):04x}" for character in text)


def in_lines(text: str) -> str:
    return r"\r\n".join(text[place : place + 60] for place in range(0, len(text), 60))


SPELLINGS = [
    str,
    escaped_by_php,
    escaped_by_dotnet,
    escaped_wholly,
    in_lines,
    lambda text: text.rstrip("="),
    lambda text: text.replace("+", "-").replace("/", "_"),
    lambda text: f"data:application/pdf;name=a.pdf;base64,{text}",
    lambda text: escaped_by_php(f"  DATA:application/pdf;BASE64,{text} "),
]


@given(CONTENT, CUTS, st.sampled_from(SPELLINGS))
def test_base64_is_decoded_in_every_spelling_however_it_is_cut(content: bytes, cuts: list[int], spell: Any) -> None:
    assert decoded(spell(base64.b64encode(content).decode()).encode(), cuts) == content


@pytest.mark.parametrize(
    "text",
    [
        "%%%",
        "a",
        "abcde",
        "ab=",
        "ab==cd==",
        "ab=c",
        "====",
        "ab===",
        "abcd\u00e9",
        "http://example.org/a.pdf",
        r"abcd\\n",
        r"abcd\q",
        "abcd\\",
        r"abcd\u00",
        r"abcd\u12ab",
        "data:application/pdf,abcd",
        "data:application/pdf;base64",
        "data:" + "x" * 5000 + ";base64,abcd",
    ],
)
@given(cuts=CUTS)
def test_what_is_no_base64_is_refused_however_it_is_cut(text: str, cuts: list[int]) -> None:
    with pytest.raises(InvalidRequest, match="not base64"):
        decoded(text.encode(), cuts)


@given(st.text(max_size=60), CUTS)
def test_any_text_is_decoded_as_the_standard_library_does_or_refused(text: str, cuts: list[int]) -> None:
    try:
        found = decoded(text.encode(), cuts)
    except InvalidRequest:
        return
    plain = json.loads(f'"{text}"', strict=False).translate(str.maketrans("-_", "+/", " \t\r\n"))
    assert found == base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)


@contextmanager
def spooled(limit: int = 10_000) -> Iterator[tuple[Spool, Path]]:
    with tempfile.TemporaryDirectory() as root:
        folder = DataFolder(Path(root))
        folder.create()
        spool = Spool(folder, limit)
        try:
            yield spool, folder.incoming
        finally:
            spool.discard()
            assert list(folder.incoming.iterdir()) == []


def read(body: bytes, cuts: Sequence[int] = (), **more: Any) -> list[tuple[str, bytes, dict[str, Any]]]:
    """Name, content and options of each document in the body."""
    with spooled() as (spool, incoming):
        reader = JsonReader(spool, more.get("filename"), more.get("options", {}))
        for piece in pieces(body, cuts):
            reader.feed(piece)
        uploads = reader.finish()
        assert {upload.path for upload in uploads} == set(incoming.iterdir())
        return [(upload.filename, checked(upload), upload.options) for upload in uploads]


def checked(upload: Upload) -> bytes:
    content = upload.path.read_bytes()
    assert (upload.size, upload.sha256) == (len(content), sha256(content).hexdigest())
    return content


NAMES = st.text('abc"\\/é中 \n', min_size=1, max_size=12).filter(lambda name: name.strip('/\\ \n."'))
OPTIONS = st.dictionaries(st.sampled_from(["tier", "lang", "x"]), st.none() | st.integers() | st.text(max_size=9))
DOCUMENT = st.tuples(CONTENT, OPTIONS)


@given(st.lists(DOCUMENT, min_size=1, max_size=4), st.booleans(), st.sampled_from([None, 1]), CUTS)
def test_documents_come_out_of_json_as_they_went_in(
    documents: list[tuple[bytes, dict[str, Any]]], ascii_only: bool, indent: int | None, cuts: list[int]
) -> None:
    entries = [
        {"filename": f'{number} "é" {{}}.pdf', "file": base64.b64encode(content).decode(), "options": options}
        for number, (content, options) in enumerate(documents)
    ]
    body = json.dumps({"files": entries}, ensure_ascii=ascii_only, indent=indent).encode()
    expected = [(f'{n} "é" {{}}.pdf', content, options) for n, (content, options) in enumerate(documents)]
    assert read(body, cuts) == expected


@pytest.mark.parametrize("cut", range(60))
def test_a_document_is_found_by_its_key_wherever_it_stands_and_however_it_is_written(cut: int) -> None:
    body = r'{"filename" : "file", "\u0066ile"' + f'\n :\t"{ENCODED}" , "options": {{"lang": ":\\"file\\":"}} }}'
    assert read(body.encode(), [cut]) == [("file", b"hello", {"lang": ':"file":'})]


def test_options_of_the_address_hold_unless_the_body_says_otherwise() -> None:
    body = {"files": [{"file": ENCODED}, {"file": ENCODED, "options": {"c": 4}}], "options": {"b": 2, "c": 3}}
    found = read(json.dumps(body).encode(), options={"a": 0, "b": 0}, filename="q.pdf")
    assert found == [
        ("q.pdf", b"hello", {"a": 0, "b": 2, "c": 3}),
        ("q.pdf", b"hello", {"a": 0, "b": 2, "c": 4}),
    ]
    assert read(json.dumps({"file": ENCODED, "options": '{"a": 1}'}).encode()) == [("document", b"hello", {"a": 1})]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        '"text"',
        "{}",
        '{"files": []}',
        '{"files": {}}',
        '{"files": ["aGVsbG8="]}',
        '{"file": null}',
        '{"file": 5}',
        '{"file": ["aGVsbG8="]}',
        '{"file": "aGVsbG8="',
        '{"file": "aGVsbG8',
        '{"file": "aGVsbG8="} x',
        '{"file": "aGVsbG8=",}',
        '{"file": "aGVsbG8=", "file": "aGVsbG8="}',
        '{"file": "aGVsbG8=", "options": {"file": "aGVsbG8="}}',
        '{"file": "aGVsbG8=", "files": [{"file": "aGVsbG8="}]}',
        '{"file": "aGVsbG8=", "options": []}',
        '{"file": "aGVsbG8=", "options": "x"}',
        '{"file": "aGVsbG8=", "filename": 5}',
        '{"file": "aGVsbG8=", "start_page_id": 5}',
        '{"file": "aGVsbG8=", "options": {"x": NaN}}',
        '{"file": "aGVsbG8\\""}',
        '{"file": "aGVsbG8=" "filename": "x"}',
        '{"x":' + "[" * 100_000,
        '{"x": ' + "9" * 5000 + "}",
        '{"x": "' + "y" * 2_000_000 + '"}',
        " " * 2_000_000 + "{}",
        "\xff\xfe",
    ],
    ids=lambda body: body[:40],
)
def test_json_that_is_no_request_is_refused_and_leaves_nothing(body: str) -> None:
    with pytest.raises(InvalidRequest):
        read(body.encode("latin-1"))


def test_json_of_any_encoding_but_utf_8_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        read(json.dumps({"file": ENCODED}).encode("utf-16"))


@given(st.binary(max_size=80) | st.text(alphabet='{}[]":,\\ufile0a=', max_size=80).map(str.encode), CUTS)
def test_no_bytes_make_the_reader_fail_in_a_way_of_its_own(body: bytes, cuts: list[int]) -> None:
    with suppress(DocfleetError):
        read(body, cuts)


def test_the_limit_counts_what_is_decoded_from_all_documents() -> None:
    half = base64.b64encode(b"x" * 6000).decode()
    assert len(read(json.dumps({"files": [{"file": half}]}).encode())) == 1
    with pytest.raises(DocumentTooLarge, match="10000 bytes"):
        read(json.dumps({"files": [{"file": half}, {"file": half}]}).encode())


def test_a_request_may_hold_so_many_documents_and_no_more() -> None:
    assert len(read(json.dumps({"files": [{"file": ""}] * MAX_FILES}).encode())) == MAX_FILES
    with pytest.raises(InvalidRequest, match="more than 100"):
        read(json.dumps({"files": [{"file": ""}] * (MAX_FILES + 1)}).encode())


def form(*parts: tuple[str, bytes], end: bytes = b"--b--\r\n") -> bytes:
    return b"".join(b"--b\r\n" + head.encode() + b"\r\n\r\n" + body + b"\r\n" for head, body in parts) + end


def part(name: str, filename: str | None = None, more: str = "") -> str:
    named = "" if filename is None else f'; filename="{filename}"'
    return f'Content-Disposition: form-data; name="{name}"{named}{more}'


def read_form(body: bytes, cuts: Sequence[int] = (), **more: Any) -> list[tuple[str, bytes, dict[str, Any]]]:
    with spooled() as (spool, _):
        reader = MultipartReader(spool, "multipart/form-data; boundary=b", None, more)
        for piece in pieces(body, cuts):
            reader.feed(piece)
        return [(upload.filename, checked(upload), upload.options) for upload in reader.finish()]


@given(st.lists(CONTENT | st.just(b"\r\n--b\r\r\n--"), min_size=1, max_size=3), CUTS)
def test_documents_come_out_of_a_form_as_they_went_in(contents: list[bytes], cuts: list[int]) -> None:
    contents = [content.replace(b"--b", b"--c") for content in contents]
    body = form(*((part("files", f"é{number}.pdf"), content) for number, content in enumerate(contents)))
    assert read_form(body, cuts) == [(f"é{number}.pdf", content, {}) for number, content in enumerate(contents)]


def test_fields_of_a_form_are_options_of_all_its_documents() -> None:
    body = form(
        (part("tier"), b"flash"),
        (part("file", "%E4%B8%AD.pdf"), b"one"),
        (part("options"), '{"lang": "中", "tier": "basic", "q": 2}'.encode()),
        (part("formats"), b"html"),
        (part("formats"), b"markdown"),
        (part("file"), b"two"),
    )
    options = {"lang": "中", "tier": "flash", "formats": ["html", "markdown"], "q": 2, "p": 1}
    assert read_form(body, p=1, q=1) == [("中.pdf", b"one", options), ("document", b"two", options)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form",
        form(),
        form((part("tier"), b"flash")),
        form((part("files", "a"), b"x"), end=b""),
        form((part("files", "a"), b"x"), end=b"--b"),
        form((part("other", "a"), b"x")),
        form(("Content-Disposition: form-data", b"x")),
        form(("No-Colon", b"x")),
        form((part("files", "a", "\r\nContent-Transfer-Encoding: base64"), b"eA==")),
        form((part("tier"), b"\xff"), (part("files"), b"x")),
        form((part("tier"), b"x" * 70_000), (part("files"), b"x")),
        form(*[(part(f"f{number}"), b"x") for number in range(101)], (part("files"), b"x")),
        form((part("files", "a" * 9000), b"x")),
        form((part("options"), b"[]"), (part("files"), b"x")),
    ],
    ids=lambda body: repr(body[:60]),
)
def test_a_form_that_is_no_request_is_refused_and_leaves_nothing(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_form(body)


def test_a_form_without_a_boundary_is_refused() -> None:
    with spooled() as (spool, _):
        for content_type in ("multipart/form-data", f"multipart/form-data; boundary={'x' * 500}"):
            with pytest.raises(InvalidRequest):
                MultipartReader(spool, content_type, None, {})
