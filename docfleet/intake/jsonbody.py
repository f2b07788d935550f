"""A JSON request read piece by piece: the documents in it go to disk, and only the little that remains is held.

The scanner knows strings and nothing else of JSON. The string that is the value of a key "file" is decoded to disk,
and a mark stands in its place; the rest, documents left out, is a small text that `json` parses and judges.
"""

from __future__ import annotations

import json
import re
import secrets
from typing import Any, NoReturn

from docfleet.errors import InvalidRequest
from docfleet.intake.encoding import Base64Stream
from docfleet.intake.names import clean_filename
from docfleet.intake.spool import Spool, SpoolFile, Upload

#: Bytes of a request without its documents.
_REST_LIMIT = 1024 * 1024
_BLANKS = b" \t\r\n"
_STOP = re.compile(rb'["\\]')
_SHAPES = (
    'Send {"file": "<base64>", "filename": "a.pdf", "options": {...}} or {"files": [{"file": ..., "filename": ..., '
    '"options": ...}, ...]}.'
)


class JsonReader:
    """Takes a JSON body in pieces."""

    def __init__(self, spool: Spool, filename: str | None, options: dict[str, Any]) -> None:
        """Start reading.

        Args:
            spool: where the documents go.
            filename: name for documents that have none.
            options: what holds for all documents unless the body says otherwise.
        """
        self._spool = spool
        self._filename = filename
        self._options = options
        #: The request without its documents.
        self._rest = bytearray()
        #: Where the text between two strings, and the string before it, begin in `_rest`.
        self._gap_at = 0
        self._string_at = 0
        self._in_string = False
        self._escaped = False
        self._decoder: Base64Stream | None = None
        self._secret = secrets.token_hex(16)
        self._files: list[SpoolFile] = []

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body.

        Raises:
            InvalidRequest: a document is not base64, or the rest is too large.
        """
        place = 0
        while place < len(data):
            if self._decoder is not None:
                place = self._document(data, place)
            elif self._in_string:
                place = self._string(data, place)
            else:
                place = self._gap(data, place)
            if len(self._rest) > _REST_LIMIT:
                raise InvalidRequest(
                    f"The JSON holds more than {_REST_LIMIT // 1024} KB beside its documents. {_SHAPES}"
                )

    def finish(self) -> list[Upload]:
        """Return the documents, in order.

        Raises:
            InvalidRequest: the body is not JSON of one of the shapes that are read.
        """
        try:
            body = json.loads(bytes(self._rest), parse_constant=_no_number)
        except RecursionError:
            raise InvalidRequest(f"The JSON is nested too deeply. {_SHAPES}") from None
        except ValueError as exc:
            cut = " or was cut off" if self._decoder or self._in_string else ""
            raise InvalidRequest(f"The body is not JSON{cut} ({exc}). {_SHAPES}") from None
        uploads = [self._upload(*entry) for entry in self._entries(body)]
        if len({upload.path for upload in uploads}) < len(self._files):
            raise InvalidRequest(f"The JSON has a file where none belongs, or twice the same. {_SHAPES}")
        return uploads

    def _gap(self, data: bytes, place: int) -> int:
        quote = data.find(b'"', place)
        end = len(data) if quote < 0 else quote
        self._rest += data[place:end]
        if quote < 0:
            return end
        if self._follows_key_file():
            file = self._spool.new_file()
            self._files.append(file)
            self._decoder = Base64Stream(file.write)
        else:
            self._string_at = len(self._rest)
            self._in_string = True
            self._rest += b'"'
        return quote + 1

    def _string(self, data: bytes, place: int) -> int:
        if self._escaped:
            self._escaped = False
            self._rest.append(data[place])
            return place + 1
        stop = _STOP.search(data, place)
        end = len(data) if stop is None else stop.end()
        self._rest += data[place:end]
        if stop is not None:
            self._escaped = stop[0] == b"\\"
            if not self._escaped:
                self._in_string = False
                self._gap_at = len(self._rest)
        return end

    def _document(self, data: bytes, place: int) -> int:
        assert self._decoder is not None
        quote = data.find(b'"', place)
        end = len(data) if quote < 0 else quote
        self._decoder.feed(data[place:end])
        if quote < 0:
            return end
        # An escaped quote ends here too: the backslash before it is no base64, and is refused.
        self._decoder.finish()
        self._decoder = None
        self._files[-1].close()
        self._rest += f'"{self._mark(len(self._files) - 1)}"'.encode()
        self._string_at = self._gap_at = len(self._rest)
        return quote + 1

    def _follows_key_file(self) -> bool:
        if bytes(self._rest[self._gap_at :]).strip(_BLANKS) != b":":
            return False
        try:
            return bool(json.loads(bytes(self._rest[self._string_at : self._gap_at])) == "file")
        except ValueError:
            return False

    def _mark(self, index: int) -> str:
        return f"{self._secret}:{index}"

    def _entries(self, body: Any) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Return (document, options that hold for it unless it says otherwise) for each document."""
        if not isinstance(body, dict):
            raise InvalidRequest(f"The JSON must be an object. {_SHAPES}")
        if "files" not in body:
            return [(body, self._options)]
        _refuse_unknown(body, {"files", "options"})
        documents = body["files"]
        if not isinstance(documents, list) or not documents:
            raise InvalidRequest(f"files must be a list of one document or more. {_SHAPES}")
        shared = self._options | option_fields(body.get("options"))
        return [(document, shared) for document in documents]

    def _upload(self, document: Any, shared: dict[str, Any]) -> Upload:
        if not isinstance(document, dict):
            raise InvalidRequest(f"Each of files must be an object. {_SHAPES}")
        _refuse_unknown(document, {"file", "filename", "options"})
        filename = document.get("filename") or self._filename
        if filename is not None and not isinstance(filename, str):
            raise InvalidRequest("filename must be text.")
        content = document.get("file")
        secret, _, index = content.partition(":") if isinstance(content, str) else ("", "", "")
        if secret != self._secret:
            raise InvalidRequest(f"file must be the document's bytes in base64. {_SHAPES}")
        return self._files[int(index)].upload(clean_filename(filename), shared | option_fields(document.get("options")))


def option_fields(value: Any) -> dict[str, Any]:
    """Return options given as an object, as JSON text of one, or not at all.

    Raises:
        InvalidRequest: anything else.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except (ValueError, RecursionError):
            raise InvalidRequest("options must be a JSON object.") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest("options must be a JSON object.")
    return value


def _refuse_unknown(found: dict[str, Any], known: set[str]) -> None:
    unknown = sorted(set(found) - known)
    if unknown:
        names = ascii(unknown[0][:64])
        raise InvalidRequest(f"{names} is not known here; what a document is parsed with goes into options. {_SHAPES}")


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")
