"""A multipart request read piece by piece: file parts go to disk as they arrive, fields become options."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from docfleet.errors import InvalidRequest
from docfleet.intake.jsonbody import option_fields
from docfleet.intake.names import clean_filename
from docfleet.intake.spool import Spool, SpoolFile, Upload

#: Parts that hold a document.
_FILE_PARTS = frozenset({"file", "files"})
_PLAIN_ENCODINGS = frozenset({"", "7bit", "8bit", "binary"})
_MAX_FIELDS = 100
#: Bytes of one field, and of all fields.
_FIELD_LIMIT = 64 * 1024
_FIELDS_LIMIT = 512 * 1024


class MultipartReader:
    """Takes a multipart body in pieces."""

    def __init__(self, spool: Spool, content_type: str, filename: str | None, options: dict[str, Any]) -> None:
        """Start reading.

        Args:
            spool: where the documents go.
            content_type: the request's, with its boundary.
            filename: name for documents that have none.
            options: what holds for all documents unless a field says otherwise.

        Raises:
            InvalidRequest: there is no usable boundary.
        """
        self._spool = spool
        self._default_name = filename
        self._options = options
        self._headers: dict[str, str] = {}
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._field_name = ""
        self._field = bytearray()
        self._fields: list[tuple[str, str]] = []
        self._fields_size = 0
        self._file: SpoolFile | None = None
        self._documents: list[tuple[SpoolFile, str]] = []
        self._ended = False
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise InvalidRequest("The Content-Type of the multipart body names no boundary.")
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begins,
                    "on_header_field": self._take_header_name,
                    "on_header_value": self._take_header_value,
                    "on_header_end": self._header_ends,
                    "on_headers_finished": self._headers_end,
                    "on_part_data": self._take_data,
                    "on_part_end": self._part_ends,
                    "on_end": self._end,
                },
            )
        except FormParserError as exc:
            raise _malformed(exc) from None

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body.

        Raises:
            InvalidRequest: it is malformed, or has too many or too large fields.
        """
        try:
            self._parser.write(data)
        except FormParserError as exc:
            raise _malformed(exc) from None

    def finish(self) -> list[Upload]:
        """Return the documents, in order, each with all options.

        Raises:
            InvalidRequest: the body was cut off, or holds no document.
        """
        if not self._ended:
            raise InvalidRequest("The multipart body ends before its last boundary: it was cut off. Send it again.")
        if not self._documents:
            raise InvalidRequest("The form holds no document: send it as a file part named files.")
        options = self._options | self._form_options()
        return [file.upload(name, dict(options)) for file, name in self._documents]

    def _form_options(self) -> dict[str, Any]:
        whole: dict[str, Any] = {}
        single: dict[str, list[str]] = {}
        for name, value in self._fields:
            if name == "options":
                whole |= option_fields(value)
            else:
                single.setdefault(name, []).append(value)
        return whole | {name: values[0] if len(values) == 1 else values for name, values in single.items()}

    def _part_begins(self) -> None:
        self._headers.clear()
        self._file = None
        self._field.clear()

    def _take_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _take_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_ends(self) -> None:
        name = self._header_name.decode("latin-1").lower()
        # The parser reads header text as Latin-1 and gives it back so: names keep their bytes until they are decoded.
        self._headers[name] = self._header_value.decode("latin-1")
        self._header_name.clear()
        self._header_value.clear()

    def _headers_end(self) -> None:
        parameters = parse_options_header(self._headers.get("content-disposition", ""))[1]
        if b"name" not in parameters:
            raise InvalidRequest("A part of the form has no name.")
        self._field_name = parameters[b"name"].decode("utf-8", "replace")
        encoding = self._headers.get("content-transfer-encoding", "").strip().lower()
        if encoding not in _PLAIN_ENCODINGS:
            raise InvalidRequest(f"Parts of the form must be sent as they are, not in {encoding[:32]!a}.")
        if self._field_name in _FILE_PARTS:
            self._file = self._spool.new_file()
            self._documents.append((self._file, self._name(parameters.get(b"filename"))))
        elif b"filename" in parameters:
            raise InvalidRequest(f"File part {self._field_name[:64]!a} is not known; name it files.")
        elif len(self._fields) >= _MAX_FIELDS:
            raise InvalidRequest(f"The form has more than {_MAX_FIELDS} fields.")

    def _name(self, raw: bytes | None) -> str:
        if not raw:
            return clean_filename(self._default_name)
        name = raw.decode("utf-8", "replace")
        # Browsers write %22 for a quote, and aiohttp writes everything that is not ASCII so.
        return clean_filename(unquote(name))

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(memoryview(data)[start:end])
            return
        self._fields_size += end - start
        if len(self._field) + end - start > _FIELD_LIMIT or self._fields_size > _FIELDS_LIMIT:
            raise InvalidRequest("The fields of the form are too large; documents go into parts named files.")
        self._field += data[start:end]

    def _part_ends(self) -> None:
        if self._file is not None:
            self._file.close()
            return
        try:
            self._fields.append((self._field_name, self._field.decode("utf-8")))
        except UnicodeDecodeError:
            raise InvalidRequest(f"Field {self._field_name[:64]!a} of the form is not UTF-8.") from None

    def _end(self) -> None:
        self._ended = True


def _malformed(exc: Exception) -> InvalidRequest:
    return InvalidRequest(f"The multipart body is malformed: {exc}.")
