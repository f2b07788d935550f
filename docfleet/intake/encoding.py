"""Base64 decoded piece by piece, as the inside of a JSON string brings it."""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable

from docfleet.errors import InvalidRequest

_BLANKS = b" \t\r\n"
_URLSAFE = bytes.maketrans(b"-_", b"+/")
#: A data URL says before its comma what follows.
_SCHEME = b"data:"
_LONGEST_HEADER = 1024

#: Escapes that serialisers really make of base64: slashes (PHP), plus and equals signs (.NET, Gson), line ends.
_COMMON = (
    (rb"\/", b"/"),
    (rb"\u002B", b"+"),
    (rb"\u002b", b"+"),
    (rb"\u003D", b"="),
    (rb"\u003d", b"="),
    (rb"\n", b""),
    (rb"\r", b""),
    (rb"\t", b""),
)
_RARE = re.compile(rb"\\u00([0-7][0-9A-Fa-f])")
#: An escape that may go on in the next piece.
_PARTIAL = re.compile(rb"\\(?:u[0-9A-Fa-f]{0,3})?\Z")


class Base64Stream:
    """Feed it the raw inside of a JSON string; it hands on the decoded bytes.

    Standard and URL-safe alphabet, with blanks and line ends anywhere, with or without padding, as a data URL or bare.
    Everything else is refused.
    """

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._escape = b""
        #: Undecided beginning; None once it is clear whether this is a data URL.
        self._head: bytes | None = b""
        #: Digits that do not make a group yet, or may be the last.
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take the next piece.

        Raises:
            InvalidRequest: it is not base64.
        """
        data = self._unescaped(self._escape + data)
        if self._head is not None:
            data = self._without_header(data)
        self._decode(data, last=False)

    def finish(self) -> None:
        """Take the end of the string.

        Raises:
            InvalidRequest: it ends too early.
        """
        if self._escape:
            raise _refusal("it ends in the middle of an escape")
        if self._head is not None:
            head, self._head = self._head, None
            if head.startswith(_SCHEME):
                raise _refusal("a data URL has a comma before its data")
            self._decode(head, last=False)
        self._decode(b"", last=True)

    def _unescaped(self, data: bytes) -> bytes:
        self._escape = b""
        if b"\\" not in data:
            return data
        partial = _PARTIAL.search(data)
        if partial:
            self._escape = partial[0]
            data = data[: partial.start()]
        # An escaped backslash would make what follows it look like an escape; no base64 has one.
        if rb"\\" in data:
            raise _refusal("it holds a backslash")
        for escape, plain in _COMMON:
            data = data.replace(escape, plain)
        if b"\\" in data:
            data = _RARE.sub(lambda match: bytes.fromhex(match[1].decode()), data)
        return data

    def _without_header(self, data: bytes) -> bytes:
        self._head = head = ((self._head or b"") + data).lstrip(_BLANKS)
        if len(head) < len(_SCHEME):
            return b""
        if head[: len(_SCHEME)].lower() != _SCHEME:
            self._head = None
            return head
        header, comma, rest = head.partition(b",")
        if len(header) > _LONGEST_HEADER:
            raise _refusal("a data URL has a comma before its data")
        if not comma:
            return b""
        if not header.lower().endswith(b";base64"):
            raise _refusal("of data URLs only those in base64 are read")
        self._head = None
        return rest

    def _decode(self, data: bytes, *, last: bool) -> None:
        digits = self._rest + data.translate(_URLSAFE, _BLANKS)
        if last:
            missing = 0 if b"=" in digits else -len(digits) % 4
            ready, self._rest = digits + b"=" * missing, b""
        else:
            # The last group may hold padding, which is right only at the very end.
            cut = max(len(digits) - 1, 0) // 4 * 4
            ready, self._rest = digits[:cut], digits[cut:]
            if b"=" in ready:
                raise _refusal("it has padding before its end")
        if ready:
            try:
                self._write(binascii.a2b_base64(ready, strict_mode=True))
            except binascii.Error as exc:
                raise _refusal(str(exc).lower()) from None


def _refusal(cause: str) -> InvalidRequest:
    return InvalidRequest(f"The document is not base64: {cause}.")
