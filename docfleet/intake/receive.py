"""From a request to documents on disk, in any of the four forms that a body may have.

JSON with one document or several in base64, a multipart form, or the bytes of one document as they are. All go to disk
in pieces as they arrive, so memory stays bounded whatever arrives; all writing and decoding is done in threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Protocol

from starlette.requests import ClientDisconnect, Request

from docfleet.errors import InvalidRequest
from docfleet.files import DataFolder
from docfleet.intake.jsonbody import JsonReader
from docfleet.intake.multipart import MultipartReader
from docfleet.intake.names import clean_filename
from docfleet.intake.spool import RESERVE, Spool, Upload, too_large

#: Bytes gathered before a thread is asked to take them: the most, and the fewest, of one body.
_PIECE, _LEAST = 512 * 1024, 64 * 1024
#: Bytes that all bodies on their way in may gather together: of many, each gathers less.
_GATHERED = 16 * 1024 * 1024
#: What a form or JSON may have beside its documents.
_SLACK = 1024 * 1024
#: Seconds without a byte after which the caller is taken for gone.
STALL_SECONDS = 120.0


class Crowd:
    """The bodies on their way in. Belongs to one event loop."""

    def __init__(self) -> None:
        self._number = 0

    @property
    def piece(self) -> int:
        """Bytes that each of them may gather."""
        return max(_LEAST, min(_PIECE, _GATHERED // max(1, self._number)))

    def __enter__(self) -> None:
        self._number += 1

    def __exit__(self, *_: object) -> None:
        self._number -= 1


_CROWD = Crowd()


class BodyReader(Protocol):
    """Takes a body in pieces, in threads."""

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        ...

    def finish(self) -> list[Upload]:
        """Take the end; return the documents."""
        ...


class RawReader:
    """Takes the bytes of one document as they are."""

    def __init__(self, spool: Spool, filename: str | None, options: dict[str, Any], *, typed: bool) -> None:
        self._file = spool.new_file()
        self._filename = filename
        self._options = options
        self._typed = typed

    def feed(self, data: bytes) -> None:
        """Take the next piece of the document."""
        self._file.write(data)

    def finish(self) -> list[Upload]:
        """Return the document.

        Raises:
            InvalidRequest: there was no body at all.
        """
        self._file.close()
        if self._file.size == 0 and not self._typed:
            raise InvalidRequest("The request has no body: send a document as JSON, as a form, or as its bytes.")
        return [self._file.upload(clean_filename(self._filename), self._options)]


async def receive(
    request: Request,
    folder: DataFolder,
    limit: int,
    *,
    own_parameters: Collection[str] = (),
    reserve: int = RESERVE,
) -> list[Upload]:
    """Write the documents of a request to `folder.incoming`. On any failure, or if cancelled, nothing stays there.

    Query parameters are options too, for every form; those in the body win. The caller owns the files returned.

    Args:
        request: its body must not have been read.
        folder: the data folder.
        limit: bytes of all documents together; of the body too, apart from what base64 and forms add to it.
        own_parameters: query parameters that are the door's, and no options.
        reserve: bytes of the disk to leave free.

    Raises:
        DocumentTooLarge: over the limit; before anything is read, where the request says its length.
        InvalidRequest: malformed, cut off, or holding nothing.
        StorageFull: no room on the disk.
    """
    spool = Spool(folder, limit, reserve)
    try:
        return await _received(request, spool, limit, own_parameters)
    except BaseException:
        # Shielded: files must go even if this request is cancelled a second time meanwhile.
        await asyncio.shield(asyncio.to_thread(spool.discard))
        raise


async def _received(request: Request, spool: Spool, limit: int, own_parameters: Collection[str]) -> list[Upload]:
    content_type = request.headers.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise InvalidRequest("The body is compressed (Content-Encoding); send it as it is.")
    options = _query_options(request, own_parameters)
    filename = options.pop("filename", None)
    if isinstance(filename, list):
        raise InvalidRequest("filename is given twice in the address.")

    body_limit = _body_limit(media_type, limit)
    length = request.headers.get("content-length", "")
    announced = int(length) if length.isdecimal() else None
    if announced is not None and announced > body_limit:
        raise too_large(limit)
    small = announced is not None and announced < _PIECE
    if not small:
        await asyncio.to_thread(spool.check_room, announced or 0)

    def make_reader() -> BodyReader:
        if small:
            spool.check_room(announced or 0)
        if _is_json(media_type):
            return JsonReader(spool, filename, options)
        if media_type == "multipart/form-data":
            return MultipartReader(spool, content_type, filename, options)
        return RawReader(spool, filename, options, typed=bool(media_type))

    if media_type == "application/x-www-form-urlencoded":
        raise InvalidRequest(
            "Say what the body is: Content-Type application/json, multipart/form-data, or application/octet-stream "
            "for the bytes of a document. (curl says application/x-www-form-urlencoded unless told otherwise.)"
        )
    with _CROWD:
        return await _read(request, spool, make_reader, body_limit, limit)


async def _read(
    request: Request, spool: Spool, make_reader: Callable[[], BodyReader], body_limit: int, limit: int
) -> list[Upload]:
    """Hand the body to the reader. A thread is woken for each large piece, and but once for a small body."""
    received = 0
    gathered = bytearray()
    reader: BodyReader | None = None

    def take(data: bytes) -> BodyReader:
        taker = make_reader() if reader is None else reader
        if data:
            taker.feed(data)
        return taker

    def end(data: bytes) -> list[Upload]:
        return take(data).finish()

    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(STALL_SECONDS):
                chunk = await anext(stream, None)
        except ClientDisconnect as exc:
            raise InvalidRequest("The body was cut off half way. Send the request again.") from exc
        except TimeoutError:
            raise InvalidRequest(f"Nothing arrived for {STALL_SECONDS:.0f} s. Send the request again.") from None
        ended, piece = chunk is None, chunk or b""
        received += len(piece)
        if received > body_limit:
            raise too_large(limit)
        # Of hundreds of bodies each copy is held while a thread is waited for: what is large enough goes on as it is.
        if gathered or len(piece) < _CROWD.piece:
            gathered += piece
            if not ended and len(gathered) < _CROWD.piece:
                continue
            piece = chunk = bytes(gathered)
            gathered.clear()
        if ended:
            return await asyncio.to_thread(spool.step, end, piece)
        reader = await asyncio.to_thread(spool.step, take, piece)


def _is_json(media_type: str) -> bool:
    return media_type == "application/json" or media_type.endswith("+json")


def _body_limit(media_type: str, limit: int) -> int:
    if _is_json(media_type):
        # Four digits of base64 are three bytes.
        return limit * 4 // 3 + _SLACK
    return limit + _SLACK if media_type == "multipart/form-data" else limit


def _query_options(request: Request, own_parameters: Collection[str]) -> dict[str, Any]:
    """Return the query parameters; one that is given several times is a list."""
    found: dict[str, Any] = {}
    for name in request.query_params:
        if name not in own_parameters:
            values = request.query_params.getlist(name)
            found[name] = values[0] if len(values) == 1 else values
    return found
