"""Tell HTML, MHTML, RTF, CSV and TSV from one another and from text that nobody needs to parse.

These have no signature that they must carry, so the rules look at how the text begins and at its columns. The file's
name counts here and only here, to choose between readings that the content allows.
"""

from __future__ import annotations

import codecs
import csv
import re

from docfleet.errors import EmptyDocument

_RTF = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,64}\{\\rtf\d")
_MIME_HEADERS = re.compile(r"(?:[!-9;-~]+:[^\n]*\n(?:[ \t][^\n]*\n)*)+", re.MULTILINE)
_MHTML = re.compile(r"^content-type:\s*multipart/related\b", re.IGNORECASE | re.MULTILINE)

#: What may stand before the first tag.
_PROLOG = re.compile(r"(?:\s+|<\?xml\b[^>]*\?>|<!--.*?-->)+", re.DOTALL)
_FIRST_TAG = re.compile(
    r"<!doctype\s+html\b|<(?:html|head|body|title|meta|link|style|script|base|div|span|p|h[1-6]|table|ul|ol|article|"
    r"section|main|header|nav|img|a|br|b|i|center|font|form|pre)\b",
    re.IGNORECASE,
)
_ANY_TAG = re.compile(r"<[a-z][a-z0-9]*(?:\s[^<>]*)?/?>", re.IGNORECASE)

_NAMED_HTML = frozenset({"html", "htm", "shtml", "xhtml"})
_NAMED_TABLE = {"csv": "csv", "tsv": "tsv", "tab": "tsv"}
#: Names that say nothing against a table; `notes.md` or `events.log` is none, however regular its commas.
_OPEN_NAMES = frozenset({"", "txt", "dat", "data", "bin", "part", "tmp"})
_DELIMITERS = ((",", "csv"), ("\t", "tsv"), (";", "csv"))
#: Rows from which columns count as columns.
_ROWS = 2
_ROWS_READ = 50

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
#: Control characters that text has: tab, line ends, form feed, escape, and the end-of-file of old systems.
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x19\x1c-\x1f]")


def text_suffix(head: bytes, extension: str, *, complete: bool) -> str | None:
    """Return rtf, mhtml, html, csv or tsv, or None where the bytes are none of these.

    Args:
        head: the beginning of the file.
        extension: what the name ends with, lower-case, without dot.
        complete: whether `head` is the whole file.

    Raises:
        EmptyDocument: a text of blanks.
    """
    if _RTF.match(head):
        return "rtf"
    text = _decoded(head)
    if text is None:
        return None
    if complete and not text.strip():
        raise EmptyDocument("The file holds nothing but blanks.")
    if _is_mhtml(text):
        return "mhtml"
    if _is_html(text, extension):
        return "html"
    if text.lstrip()[:1] == "<":
        return None
    return _table(text, extension, complete=complete)


def _decoded(head: bytes) -> str | None:
    """Return the head as text, or None if it is binary."""
    for bom, encoding in _BOMS:
        if head.startswith(bom):
            text = head[len(bom) :].decode(encoding, "replace")
            break
    else:
        # Which of the older encodings it is does not matter here: their markup and delimiters are ASCII.
        text = head.decode("latin-1")
    return None if _CONTROLS.search(text) else text


def _is_mhtml(text: str) -> bool:
    headers = _MIME_HEADERS.match(text.lstrip().replace("\r\n", "\n"))
    return headers is not None and _MHTML.search(headers[0]) is not None


def _is_html(text: str, extension: str) -> bool:
    prolog = _PROLOG.match(text)
    if _FIRST_TAG.match(text, prolog.end() if prolog else 0):
        return True
    return extension in _NAMED_HTML and _ANY_TAG.search(text) is not None


def _table(text: str, extension: str, *, complete: bool) -> str | None:
    if extension in _NAMED_TABLE:
        return _NAMED_TABLE[extension]
    # A name that was given to another type by mistake ("table.pdf") is no reason against a table either.
    if extension not in _OPEN_NAMES and not _is_binary_name(extension):
        return None
    # Each line of a JSON log has the same commas.
    if text.lstrip()[:1] in ("{", "["):
        return None
    lines = text.splitlines()
    if not complete:
        lines = lines[:-1]
    for delimiter, suffix in _DELIMITERS:
        if _has_columns(lines, delimiter):
            return suffix
    return None


def _is_binary_name(extension: str) -> bool:
    return extension in {"pdf", "xls", "xlsx", "doc", "docx", "ods", "png", "jpg", "jpeg"}


def _has_columns(lines: list[str], delimiter: str) -> bool:
    """Return whether every row has the same number of fields, two at least."""
    widths = set()
    rows = 0
    try:
        for row in csv.reader(lines, delimiter=delimiter, strict=True):
            if not row:
                continue
            widths.add(len(row))
            rows += 1
            if rows == _ROWS_READ:
                break
    except csv.Error:
        return False
    return rows >= _ROWS and len(widths) == 1 and widths.pop() > 1
