#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["aiohttp>=3.10", "rich>=13"]
# ///
"""Send documents to a Docfleet server, many at a time, and keep what comes back. One file: copy it anywhere.

    python client.py docs/ 'scans/*.png' paper.pdf --out results

From Python: `mineru_parse_async` for one document, `parse_many` for what the command does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import glob
import hashlib
import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import stat
import sys
import time
import tomllib
import unicodedata
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

import aiohttp
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

DEFAULT_URL = "http://127.0.0.1:8000"
#: What is picked up from folders. A file named by itself is sent whatever it is called: the server looks inside.
KNOWN_SUFFIXES = {".pdf", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".jp2", ".ofd", ".epub"}
KNOWN_SUFFIXES |= {".docx", ".pptx", ".xlsx", ".doc", ".ppt", ".xls", ".rtf", ".odt", ".ods", ".odp", ".csv", ".tsv"}
KNOWN_SUFFIXES |= {".html", ".htm", ".xhtml", ".mhtml", ".mht"}
#: Seconds of the first back-off and of the longest; each is drawn anew between half its bound and its bound, so that
#: six tries last half a minute at least: a server may start anew meanwhile.
BACKOFF_FIRST, BACKOFF_LONGEST = 1.0, 30.0
#: Seconds between two looks at a job under way, where the server names none: the first and the longest.
POLL_FIRST, POLL_LONGEST = 0.5, 5.0
#: Bytes of an answer that are read into memory (Markdown is inside it; images and other files are not).
ANSWER_LIMIT, CHUNK = 512 * 2**20, 256 * 2**10
DOWNLOADS = 4  #: Files of one result that are fetched at the same time.
#: Seconds that a look at the server's progress may take, seconds between two looks at one that does not tell it,
#: bytes of such an answer, and devices and VLM servers that are followed.
LOOK_TIMEOUT, LOOK_AGAIN, LOOK_LIMIT, ROWS = 5.0, 30.0, 2**20, 128
MARKER = "docfleet.json"  #: Stands in every result folder; a folder without it is somebody else's, never replaced.

T = TypeVar("T")
Options = Mapping[str, Any]
AnyPath = str | os.PathLike[str]


# ---- one document over HTTP ------------------------------------------------------------------------------------------


class MineruError(Exception):
    """The server gave no result; the text says the cause and, where known, the remedy.

    Attributes:
        code: the server's code ("busy", "encrypted_document", ...), or this client's own: connection_failed,
            invalid_answer, redirected, http_<status> (an answer without the server's error shape).
        status: HTTP status; None where no answer came.
        retryable: whether sending the document again can help.
        retry_after: seconds that the server asks to wait; None where it names none.
        passing: the way to the server, or its load, is to blame: a job may go on behind it.
    """

    def __init__(self, message: str, code: str, status: int | None = None, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.code, self.status, self.retryable = code, status, retryable
        self.retry_after: float | None = None
        self.passing = retryable and (code in {"connection_failed", "busy", "not_ready"} or code.startswith("http_"))


#: Called before each wait with the reason and the seconds.
OnRetry = Callable[[MineruError, float], None]
#: Status, JSON body and the seconds of Retry-After.
Reply = tuple[int, dict[str, Any], float | None]


async def mineru_parse_async(
    session: aiohttp.ClientSession,
    path: AnyPath,
    url: str = DEFAULT_URL,
    *,
    retries: int = 0,
    on_retry: OnRetry = lambda _error, _delay: None,
    **options: Any,
) -> dict[str, Any]:
    """Parse one document and return the server's answer. The file is streamed, never held in memory.

    An API key belongs in the session's headers (`Authorization: Bearer ...`), a limit on the total time into
    `asyncio.timeout()` around the call. Where the server answers "still working" (202), its job is followed.

    Args:
        session: reused for all documents.
        path: the document.
        url: the server, with or without `/predict`.
        retries: tries after the first where trying again can help, with growing random pauses. With retries, waits
            that a busy server asks for (429 with Retry-After) are obeyed and not counted.
        on_retry: told of each wait.
        options: those of the server (backend, tier, method, ...); lists and None (the default) are understood.

    Returns:
        `job_id, filename, status (completed | partial), pages, failed_pages, tier, engine, markdown, files
        {name: url}, timings, warnings, ...`

    Raises:
        MineruError: no result. OSError: the file cannot be read. ValueError: `url` is no HTTP address.
    """
    base = _base_url(url)

    async def once() -> dict[str, Any]:
        form, file = _form(Path(path), options)
        with file:
            reply = await _exchange(session, "POST", f"{base}/predict", form)
        return await _follow(session, base, reply, retries, on_retry)

    answer = await _persist(once, retries, on_retry)
    if answer.get("status") not in ("completed", "partial") or not isinstance(answer.get("files", {}), dict):
        raise MineruError("the answer is not of the form that a Docfleet server gives", "invalid_answer")
    return answer


def _base_url(url: str) -> str:
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no HTTP address; use for example {DEFAULT_URL}")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/predict').rstrip('/')}"


def _form(path: Path, options: Options) -> tuple[aiohttp.FormData, IO[bytes]]:
    form = aiohttp.FormData(quote_fields=False)  # plain UTF-8 names, as browsers send; servers do not unquote others
    for key, value in options.items():
        if value is not None:
            text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            form.add_field(key, text.lower() if isinstance(value, bool) else text)
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))  # a pipe would block for ever
    file = path.open("rb")
    form.add_field("files", file, filename=_printable(path.name), content_type="application/octet-stream")
    return form, file


async def _follow(
    session: aiohttp.ClientSession, base: str, reply: Reply, retries: int, tell: OnRetry
) -> dict[str, Any]:
    """Wait for a job that goes on at the server. A lost connection is no reason to upload again."""
    (status, body, wait), pause = reply, POLL_FIRST
    job = str(body.get("job_id", ""))
    if status == 202 and re.fullmatch(r"[\w-]{1,128}", job) is None:
        raise MineruError("the server is still working but names no job", "invalid_answer", status)

    async def look() -> Reply:
        return await _exchange(session, "GET", f"{base}/jobs/{job}/result")

    while status == 202:
        await asyncio.sleep(pause if wait is None else wait)
        pause = min(pause * 1.5, POLL_LONGEST)
        try:
            status, body, wait = await _persist(look, max(retries, 3), tell, lambda error: error.passing)
        except MineruError as exc:
            if not exc.passing:
                raise
            message = f"{exc} (the server may still be working on it: GET /jobs/{job}/result)"
            raise MineruError(message, exc.code, exc.status) from exc
    return body


async def _persist(
    call: Callable[[], Awaitable[T]],
    retries: int,
    tell: OnRetry,
    again: Callable[[MineruError], bool] = lambda error: error.retryable,
) -> T:
    """Call until it succeeds, the tries are used up, or the error says that trying again cannot help."""
    tries = 0
    while True:
        try:
            return await call()
        except MineruError as exc:
            if tries >= retries or not again(exc):
                raise
            bound = min(BACKOFF_LONGEST, BACKOFF_FIRST * 2**tries)
            backoff = random.uniform(bound / 2, bound)  # noqa: S311 - no secret
            # On top of what the server asks for, so that all who were told the same do not come back at once.
            delay = backoff + (exc.retry_after or 0.0)
            # A busy server that says when to come back is queueing, not failing; only the time limit ends that.
            tries += not (exc.status == 429 and exc.retry_after is not None)
            tell(exc, delay)
        await asyncio.sleep(delay)


async def _exchange(session: aiohttp.ClientSession, method: str, url: str, data: Any = None) -> Reply:
    with _network():
        async with session.request(method, url, data=data, allow_redirects=False) as response:
            body = await _read(response)
    if response.status not in (200, 202):
        raise _refusal(response, body)
    parsed = _json_object(body)
    if parsed is None:
        raise MineruError("the answer is not a JSON object", "invalid_answer", response.status)
    return response.status, parsed, _retry_after(response.headers)


async def _download(session: aiohttp.ClientSession, url: str, target: Path) -> None:
    with _network():
        async with session.get(url, allow_redirects=False) as response:
            if response.status != 200:
                raise _refusal(response, await _read(response))
            with _create(target) as sink:
                async for chunk in response.content.iter_chunked(CHUNK):
                    sink.write(chunk)


async def _read(response: aiohttp.ClientResponse, limit: int = ANSWER_LIMIT) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK):
        body += chunk
        if len(body) > limit:
            raise MineruError("the answer is too large; ask for fewer pages at once", "invalid_answer")
    return bytes(body)


@contextlib.contextmanager
def _network() -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientError, TimeoutError) as exc:
        certificate = isinstance(exc, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError)
        lost = isinstance(exc, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError | TimeoutError)
        message = f"no connection to the server, or lost on the way: {exc or type(exc).__name__}"
        raise MineruError(_printable(message), "connection_failed", retryable=lost and not certificate) from exc


def _refusal(response: aiohttp.ClientResponse, body: bytes) -> MineruError:
    """Read the server's error shape; the server's own word on retrying goes before the status."""
    status, error = response.status, (_json_object(body) or {}).get("error")
    error = error if isinstance(error, dict) else {}
    code, message, retryable = error.get("code"), error.get("message"), error.get("retryable")
    if 300 <= status < 400:
        code, message = "redirected", f"the server points elsewhere; use {response.headers.get('Location')}"
    message = message or f"HTTP {status} {response.reason}: {body[:200].decode(errors='replace')}"
    code, retryable = (
        code or f"http_{status}",
        status in (429, 502, 503, 504) if retryable is None else retryable is True,
    )
    result = MineruError(_printable(str(message)), _printable(str(code)), status, retryable=retryable)
    result.retry_after = _retry_after(response.headers)
    return result


def _json_object(body: bytes) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError, RecursionError):
        parsed = json.loads(body)
        return parsed if isinstance(parsed, dict) else None
    return None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that Retry-After asks for, given as a number or as an HTTP date."""
    text = headers.get("Retry-After", "")
    with contextlib.suppress(ValueError):
        seconds = float(text)
        return seconds if math.isfinite(seconds) and seconds >= 0 else None
    with contextlib.suppress(ValueError, TypeError):
        moment = parsedate_to_datetime(text)
        return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    return None


def _printable(text: str) -> str:
    """Make text from outside safe for a terminal, a header and a log."""
    text = text.encode("utf-8", "replace").decode()
    return "".join("\ufffd" if unicodedata.category(char) in ("Cc", "Zl", "Zp") else char for char in text)


# ---- which files, and where their results go -------------------------------------------------------------------------


class Input(NamedTuple):
    """A file to parse, or a name that stands for none."""

    path: Path  #: Absolute.
    root: Path  #: The folder below which the results mirror the inputs.
    problem: str | None = None  #: Why there is nothing to parse here.


def find_inputs(paths: Sequence[AnyPath], *, recursive: bool, skip: Path) -> Iterator[Input]:
    """Yield the files that paths, folders and globs name, in a stable order.

    Folders give files of known suffix, without hidden ones and without links to folders. What lies under `skip`
    (the out folder) is no input. A name that stands for nothing comes with its `problem`.
    """
    for each in paths:
        name, path = os.fspath(each), _absolute(Path(each))
        if path.is_dir():
            found, problem = _walk(path, path, recursive, skip), "holds no document of a known type"
        elif os.path.lexists(path) or not glob.has_magic(name):
            found, problem = iter([Input(path, path.parent)]), ""
        else:
            found, problem = _match(name, recursive, skip), "matches no file"
        yield next(found, Input(path, path.parent, problem))
        yield from found


def _absolute(path: Path) -> Path:
    return Path(os.path.normpath(path.absolute()))


def _match(pattern: str, recursive: bool, skip: Path) -> Iterator[Input]:
    parts = Path(pattern).parts
    plain = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    root = _absolute(Path(*parts[:plain]))
    for name in sorted(glob.iglob(pattern, recursive=recursive)):  # noqa: PTH207 - Path.glob knows no absolute ones
        path = _absolute(Path(name))
        if not path.is_dir() and skip not in path.parents:
            yield Input(path, root)


def _walk(folder: Path, root: Path, recursive: bool, skip: Path) -> Iterator[Input]:
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as exc:
        yield Input(folder, root, f"cannot be listed: {exc.strerror}")
        return
    # Folders first: beside a/b.pdf, a.pdf must leave the place "a" to the mirrored folder.
    for entry in entries:
        path = folder / entry.name
        if recursive and entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".") and path != skip:
            yield from _walk(path, root, recursive, skip)
    for entry in entries:
        known = Path(entry.name).suffix.lower() in KNOWN_SUFFIXES and not entry.name.startswith((".", "~$"))
        if known and not entry.is_dir():
            yield Input(folder / entry.name, root)


class Places:
    """Gives every input a folder of its own below the out folder: `a/b` for `a/b.pdf` of the folder asked for.

    The same one in every run, as the journal remembers. Where two inputs want one place, the later one gets its
    type added, or the name of the folder it comes from, or a digest of its path.
    """

    def __init__(self, out: Path, known: Mapping[str, str]) -> None:
        self._out, self._place = out, dict[str, str]()
        #: Who holds a folder; "" where it only holds other places.
        self._used: dict[str, str] = {}
        for source, place in known.items():
            self._take(source, place)

    def assign(self, item: Input) -> str:
        """Return the place, relative to the out folder, with forward slashes."""
        source = str(item.path)
        if source not in self._place:
            self._take(source, next(filter(self._free, self._wishes(item))))
        return self._place[source]

    def _wishes(self, item: Input) -> Iterator[str]:
        folders = [_safe_name(part) for part in item.path.relative_to(item.root).parent.parts]
        stem, suffix = item.path.stem, item.path.suffix
        yield (first := "/".join([*folders, _safe_name(stem)]))
        if Path(self._used.get(_fold(first), "")).parent in (item.path.parent, Path()):
            yield "/".join([*folders, _safe_name(stem + suffix.replace(".", "-"))])
        yield "/".join([_safe_name(item.root.name), first])
        digest = hashlib.sha256(os.fsencode(item.path)).hexdigest()
        yield from (f"{_safe_name(stem)}-{digest[:length]}" for length in (8, 64))

    def _free(self, place: str) -> bool:
        inside = any(self._used.get(_fold(parent)) for parent in PurePosixPath(place).parents)
        return not inside and _fold(place) not in self._used and _replaceable(self._out / place)

    def _take(self, source: str, place: str) -> None:
        self._place[source], self._used[_fold(place)] = place, source
        for parent in PurePosixPath(place).parents:
            self._used.setdefault(_fold(parent), "")


def _fold(place: object) -> str:
    """Two places with one fold are one folder on some file systems."""
    return unicodedata.normalize("NFC", str(place)).casefold()


def _safe_name(text: str) -> str:
    text = text.encode("utf-8", "replace").decode()
    text = re.sub(r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*]', "_", text).strip(" .") or "_"
    if len(text.encode()) > 120:
        text = f"{text.encode()[:100].decode(errors='ignore')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return text


def _replaceable(place: Path) -> bool:
    """Return whether a result may stand here: nothing does, or an earlier result."""
    if place.is_symlink() or not place.is_dir():
        return not os.path.lexists(place)
    return (place / MARKER).is_file() or not any(place.iterdir())


# ---- results on disk -------------------------------------------------------------------------------------------------

_PART = re.compile(r"\w[\w .()+,=@-]{0,199}(?<![ .])")
_LINK = re.compile(r'(\]\(\s*<?|\b(?:src|href)\s*=\s*["\'])([^)>"\'\s]+)')


def local_names(files: Mapping[str, Any], name: str) -> dict[str, str]:
    """Return where each of the server's files goes in the result folder: its Markdown becomes `name`.md.

    A name that would leave the folder, hide in it or overwrite another one is a MineruError.
    """
    markdown = next((each for each in files if each.endswith(".md") and "/" not in each), None)
    for each in files:
        parts = each.split("/")
        if len(parts) > 4 or not all(_PART.fullmatch(part) for part in parts):
            raise MineruError(f"the server names a file {_printable(each)!r}: refused", "invalid_answer")
    local = {each: f"{name}.md" if each == markdown else each for each in files}
    if len({_fold(MARKER), *map(_fold, local.values())}) <= len(local):
        raise MineruError("the server names two files alike: refused", "invalid_answer")
    return local


async def save_result(
    session: aiohttp.ClientSession, url: str, answer: Mapping[str, Any], folder: Path, *, retries: int, tell: OnRetry
) -> None:
    """Write an answer into the new folder: Markdown, images, the other formats, and what is known of the document."""
    base, page, files = _base_url(url), f"{folder.name}.md", answer.get("files", {})
    local, gate = local_names(files, folder.name), asyncio.Semaphore(DOWNLOADS)
    links = {each: _link_url(base, str(link)) for each, link in files.items()}

    async def fetch(each: str) -> None:
        async with gate:
            await _persist(lambda: _download(session, links[each], folder / local[each]), retries, tell)

    inline = isinstance(answer.get("markdown"), str)
    try:
        async with asyncio.TaskGroup() as group:
            for each in files:
                if not (inline and local[each] == page):
                    group.create_task(fetch(each))
    except ExceptionGroup as several:
        raise several.exceptions[0] from None
    targets: dict[str, str] = {}
    for each, name in local.items():
        targets |= dict.fromkeys((each, quote(each), str(files[each]), links[each]), quote(name))
    _write_texts(folder, answer, targets)


def _link_url(base: str, link: str) -> str:
    """Only the path of a link counts: documents and keys go to no other server than the one asked."""
    server, parts = urlsplit(base), urlsplit(link)
    path = parts.path if parts.path.startswith(f"{server.path}/") else f"{server.path}/{parts.path.lstrip('/')}"
    return urlunsplit((server.scheme, server.netloc, path, parts.query, ""))


def _write_texts(folder: Path, answer: Mapping[str, Any], targets: Mapping[str, str]) -> None:
    page, markdown = folder / f"{folder.name}.md", answer.get("markdown")
    if not isinstance(markdown, str) and page.exists():
        markdown = page.read_text(encoding="utf-8", errors="replace")
    if isinstance(markdown, str):
        text = _LINK.sub(lambda match: match[1] + targets.get(match[2], match[2]), markdown)
        with _create(page) as sink:
            sink.write(text.encode("utf-8", "replace"))
    with _create(folder / MARKER) as sink:
        facts = {key: value for key, value in answer.items() if key not in ("markdown", "files")}
        sink.write(json.dumps(facts, indent=1).encode())


def _create(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("wb")


class OutFolderBusy(Exception):
    """Another client writes into this out folder; wait for it or choose another one."""


#: What decides whether an input is the same as before: size, time of change in ns, digest of the options.
State = tuple[int, int, str]
Past = tuple[str, str | None, State | None]  #: Status, output and state of an earlier run.


class OutFolder:
    """The out folder, held by one client at a time. `.docfleet/` in it has the journal, the lock and scratch space.

    Each outcome is one line of the journal, forced to the disk before it is shown. A line torn by a crash is ignored.
    """

    def __init__(self, root: Path, journal: IO[bytes]) -> None:
        self.root, self._journal = root, journal
        self.past: dict[str, Past] = {}  #: By absolute path of the input.
        line = b"\n"
        journal.seek(0)
        for line in journal:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                state = entry["state"] and (int(entry["state"][0]), int(entry["state"][1]), str(entry["state"][2]))
                self.past[entry["source"]] = entry["status"], entry["output"], state
        if not line.endswith(b"\n"):
            journal.write(b"\n")

    @classmethod
    @contextlib.contextmanager
    def hold(cls, root: Path) -> Iterator[OutFolder]:
        """Open the out folder, alone; OutFolderBusy if another client has it."""
        own = _absolute(root) / ".docfleet"
        own.mkdir(parents=True, exist_ok=True)
        with (own / "lock").open("a+") as lock, (own / "journal.jsonl").open("a+b") as journal:
            if not _lock(lock):
                lock.seek(0)
                holder = f"another client (process {lock.read(20).strip()})"
                raise OutFolderBusy(f"{holder} writes into {root}; wait for it, or choose another out folder")
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            shutil.rmtree(own / "tmp", ignore_errors=True)
            try:
                yield cls(own.parent, journal)
            finally:
                journal.flush()
                os.fsync(journal.fileno())

    def done(self, source: str, state: State) -> bool:
        """Return whether this input, unchanged and with these options, has its result here."""
        status, output, before = self.past.get(source, ("failed", None, None))
        return status != "failed" and before == state and (self.root / (output or "") / MARKER).is_file()

    def record(self, entry: Mapping[str, Any], *, durably: bool) -> None:
        """Append a line to the journal; `durably`: it survives a power cut, not only the end of this process."""
        self._journal.write(json.dumps(entry).encode() + b"\n")
        self._journal.flush()
        if durably:
            os.fsync(self._journal.fileno())

    @contextlib.contextmanager
    def new_result(self, place: str) -> Iterator[Path]:
        """Give a fresh folder to fill; if that succeeds it is moved to its place, whole, else removed."""
        scratch, target = self.root / ".docfleet" / "tmp" / uuid.uuid4().hex, self.root / place
        made = scratch / target.name
        made.mkdir(parents=True)
        try:
            yield made
            if not _replaceable(target):
                raise FileExistsError(errno.EEXIST, "not a result of this client, left alone", str(target))
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                target.rename(scratch / "earlier")
            made.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _lock(file: IO[str]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


# ---- what the server tells of itself ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A device or VLM server, and what it did since the first look: for all callers together."""

    kind: str  #: device, or endpoint (a VLM server).
    name: str
    doing: str  #: For people: "1/2 busy", "3 under way, up".
    pages: int
    failed: int
    pages_per_second: float  #: Lately, as the server measures it.


@dataclass
class Server:
    """The server's own progress as of the last look. Empty where it does not tell."""

    note: str | None = None  #: Why nothing is known.
    rows: tuple[Row, ...] = ()
    running: int = 0  #: Documents of all callers.
    waiting: int = 0
    pages_per_second: float = 0.0
    seconds: float = 0.0  #: From the first look that told something to the last.
    silent: float = 0.0  #: Seconds since the last look that told something, where a later one did not.


class Looks:
    """Looks at `/status`. Whatever it answers, or whether it does, documents are sent all the same."""

    def __init__(self, session: aiohttp.ClientSession, url: str, server: Server) -> None:
        self._session, self._url, self._server = session, f"{_base_url(url)}/status", server
        self._totals: dict[tuple[str, str], tuple[int, int]] | None = None
        self._first = self._last = self._next = 0.0

    async def look(self, limit: float) -> None:
        """Look, unless the server did not tell anything a moment ago; at most `limit` seconds."""
        if (now := time.monotonic()) < self._next:
            return
        try:
            with _network():
                async with asyncio.timeout(limit), self._session.get(self._url, allow_redirects=False) as response:
                    body = await _read(response, LOOK_LIMIT)
            if response.status != 200:
                raise _refusal(response, body)
            self.take((_json_object(body) or {}).get("progress"))
        except Exception as exc:  # the run does not depend on it
            self._next = now + (LOOK_AGAIN if self._totals is None else 0)
            cause = exc if isinstance(exc, MineruError) else f"{type(exc).__name__}: {exc}"
            self._server.note = self._server.note or f"nothing is shown of the server's devices: {cause}"
            self._server.silent = now - self._last if self._totals is not None else 0.0

    def take(self, progress: object) -> None:
        """Take what `/status` tells as `progress`; MineruError if that is nothing."""
        if not isinstance(progress, dict):
            raise MineruError("it does not tell what they do", "invalid_answer")
        server, now, before = self._server, time.monotonic(), self._totals
        self._first, self._last = self._first if before is not None else now, now
        known, rows = dict[tuple[str, str], tuple[int, int]](), dict[tuple[str, str], Row]()
        earlier = {(row.kind, row.name): row for row in server.rows}
        for row in _rows(progress):
            key, total = (row.kind, row.name), (row.pages, row.failed)
            old = total if before is None else before.get(key, (0, 0))
            # A count that fell began anew: those of devices outlive the server, those of VLM servers do not.
            pages, failed = (new - was if new >= was else new for new, was in zip(total, old, strict=True))
            if had := earlier.get(key):
                pages, failed = pages + had.pages, failed + had.failed
            known[key], rows[key] = total, replace(row, pages=pages, failed=failed)
        gone = [replace(row, doing="gone", pages_per_second=0.0) for key, row in earlier.items() if key not in rows]
        worth = [
            row for row in (*rows.values(), *gone) if row.pages or row.failed or row.doing not in ("gone", "unused")
        ]
        server.rows, self._totals = tuple(worth[:ROWS]), dict([*((before or {}) | known).items()][-4 * ROWS :])
        documents = _mapping(progress.get("documents"))
        server.running, server.waiting = _count(documents.get("running")), _count(documents.get("waiting"))
        server.pages_per_second = _number(progress.get("pages_per_second"))
        server.note, server.seconds, server.silent = None, now - self._first, 0.0


def _rows(progress: Mapping[str, Any]) -> Iterator[Row]:
    """Read the rows, whatever stands there: it comes from outside."""
    for kind, key, failed in (("device", "device", "pages_failed"), ("endpoint", "url", "failures")):
        listed = progress.get(f"{kind}s")
        for each in map(_mapping, listed[:ROWS] if isinstance(listed, list) else ()):
            workers = _count(each.get("workers"))
            doing = f"{_count(each.get('busy'))}/{workers} busy" if workers else "unused"
            if kind == "endpoint":
                doing = f"{_count(each.get('outstanding'))} under way, {_printable(str(each.get('state')))[:12]}"
            if isinstance(name := each.get(key), str):
                yield Row(
                    kind=kind,
                    name=_printable(name.rpartition("@")[2].removeprefix("http://"))[:80],
                    doing=doing,
                    pages=_count(each.get("pages_done")),
                    failed=_count(each.get(failed)),
                    pages_per_second=_number(each.get("pages_per_second")),
                )


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e15 else 0.0


def _count(value: object) -> int:
    return int(_number(value))


def server_lines(server: Server, width: int, most: int) -> list[str]:
    """Return what is known of the server, at most `most` lines of `width` columns."""
    every = server.rows  # once: the picture is drawn by a thread of its own
    if not every or most < 1:
        return []
    head = (
        f"server: {server.running} documents running, {server.waiting} waiting, {server.pages_per_second:.1f} pages/s"
    )
    rows = every if len(every) < most else every[: max(0, most - 2)]
    names = min(32, max(16, width - 46), max(len(row.name) for row in every))
    lines = [head + (f" ({server.silent:.0f} s ago)" if server.silent else "")]
    for row in rows:
        name = row.name if len(row.name) <= names else f"{row.name[: names - 1]}…"
        facts = f"{row.pages_per_second:6.1f}/s {row.pages:7,} pages {row.failed:4,} failed  {row.doing}"
        lines.append(f"  {name:<{names}} {facts}")
    if rest := every[len(rows) :]:
        pages, failed = sum(row.pages for row in rest), sum(row.failed for row in rest)
        lines.append(f"  and {len(rest)} more: {pages:,} pages, {failed:,} failed")
    return [line if len(line) <= width else f"{line[: width - 1]}…" for line in lines[:most]]


# ---- many documents --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How `parse_many` works."""

    url: str = DEFAULT_URL
    concurrency: int = 8  #: Documents under way at the same time.
    options: Options = field(default_factory=dict)  #: Of every document; see `mineru_parse_async`.
    #: Options by file name or pattern ("scan-*.png", "old/*.pdf"); of several that fit, the later goes first.
    per_file: Mapping[str, Options] = field(default_factory=dict)
    timeout: float | None = 3600.0  #: Seconds a document may take in all, waits and downloads included.
    retries: int = 6  #: Tries after the first.
    recursive: bool = True  #: Whether folders are searched in depth.
    resume: bool = False  #: Leave out what the journal says is done (same path, size, time of change, options).
    retry_failed: bool = False  #: Do only what the journal says failed; without paths, all of that.
    api_key: str | None = field(default=None, repr=False)  #: Sent as `Authorization: Bearer`, never written.
    look_every: float = 0.0  #: Seconds between two looks at the server's `/status`; 0: none.

    def options_for(self, path: Path) -> dict[str, Any]:
        """Return the options of one document."""
        fitting = [options for pattern, options in self.per_file.items() if path.match(pattern)]
        return {key: value for options in (self.options, *fitting) for key, value in options.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one input."""

    source: str
    status: str  #: completed, partial (some pages failed), failed, or skipped (done by an earlier run).
    output: str | None = None  #: The result's folder, relative to the out folder.
    pages: int = 0  #: Delivered by this run.
    seconds: float = 0.0
    job_id: str | None = None
    tier: str | None = None
    cached: bool = False  #: Served with a result that the server had.
    code: str | None = None  #: Why it failed: a stable code, and below the cause for people.
    cause: str | None = None


@dataclass
class Summary:
    """What became of all inputs: `inputs == succeeded + failed`, always."""

    total: int | None = None  #: Inputs to come in all; known some time after the start.
    inputs: int = 0
    succeeded: int = 0  #: Completed, partial and skipped.
    partial: int = 0
    cached: int = 0  #: Of the succeeded, those that the server had a result of.
    skipped: int = 0
    failed: int = 0
    not_started: int = 0  #: Failed because the run was stopped before their turn; not in `failures`.
    pages: int = 0
    refusals: int = 0  #: How often the server said that it is busy; these were tried again.
    seconds: float = 0.0
    interrupted: bool = False
    failures: list[Outcome] = field(default_factory=list)
    server: Server = field(default_factory=Server)

    @property
    def pages_per_second(self) -> float:
        """Pages of this run by its seconds."""
        return self.pages / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """What the inputs to come take at the speed so far; None while that is not known."""
        done, timed = self.succeeded + self.failed, self.succeeded + self.failed - self.skipped
        if self.total is None or timed <= 0:
            return 0.0 if self.total == done else None
        return max(0, self.total - done) * self.seconds / timed

    @property
    def line(self) -> str:
        """The state of the run for people."""
        left = "?" if self.seconds_left is None else timedelta(seconds=round(self.seconds_left))
        done = f"{self.succeeded + self.failed}/{'?' if self.total is None else self.total}"
        busy = f"{self.refusals} refusals, " if self.refusals else ""
        pages = f"{self.pages} pages, {self.pages_per_second:.1f} pages/s"
        times = f"{timedelta(seconds=round(self.seconds))} gone, {left} left"
        return f"{done}, {self.succeeded} ok, {self.failed} failed, {busy}{pages}, {times}"

    def add(self, outcome: Outcome) -> None:
        """Count an input's outcome."""
        self.pages += outcome.pages
        self.cached += outcome.cached
        self.partial += outcome.status == "partial"
        self.skipped += outcome.status == "skipped"
        self.succeeded += outcome.status != "failed"
        if outcome.status == "failed":
            self.failed += 1
            self.failures.append(outcome)


#: Called with a line for people, the state of the run, and an input's outcome (None: the line tells of something else,
#: and where it is empty only the state is new).
Watch = Callable[[str, Summary, Outcome | None], None]


async def parse_many(
    paths: Sequence[AnyPath],
    out: AnyPath,
    settings: Settings | None = None,
    *,
    watch: Watch = lambda _line, _summary, _outcome: None,
    stop: asyncio.Event | None = None,
) -> Summary:
    """Parse files, folders and globs into `out`, one result folder for each document.

    `watch` is told of every outcome (it is in the journal by then) and every retry. Once `stop` is set, what is under
    way is cancelled, counts as failed, and the summary is returned.

    Raises:
        OutFolderBusy: another client is at work in `out`. ValueError: the address or a number in the settings is
            unusable. OSError: `out` cannot be written.
    """
    settings = settings or Settings()
    _base_url(settings.url)
    if settings.concurrency < 1 or settings.retries < 0 or (settings.timeout is not None and settings.timeout <= 0):
        raise ValueError("concurrency must be at least 1, retries at least 0, timeout more than 0")
    headers = {"Authorization": f"Bearer {settings.api_key.strip()}"} if settings.api_key else {}
    # An idle connection is dropped before the server drops it (5 s is usual): no upload is lost on a dead one.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4)
    limits = aiohttp.ClientTimeout(total=None, sock_connect=30)
    with OutFolder.hold(Path(out)) as folder:
        async with aiohttp.ClientSession(connector=connector, timeout=limits, headers=headers) as session:
            return await _Batch(paths, folder, settings, watch, session).run(stop or asyncio.Event())


@dataclass
class _Batch:
    """One run. Workers take inputs from one iterator, so that a million files are never a million tasks."""

    paths: Sequence[AnyPath]
    folder: OutFolder
    settings: Settings
    watch: Watch
    session: aiohttp.ClientSession
    summary: Summary = field(default_factory=Summary)
    begun: float = field(default_factory=time.monotonic)
    over: bool = False
    #: By status, None where no answer came: documents that wait and were not told of, and when one was.
    waits: dict[int | None, tuple[int, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {source: output for source, (_, output, _) in self.folder.past.items() if output}
        self.places = Places(self.folder.root, known)
        self.looks = Looks(self.session, self.settings.url, self.summary.server)

    async def run(self, stop: asyncio.Event) -> Summary:
        items, summary = self._wanted(), self.summary
        follower = asyncio.create_task(self._follow())  # its first look is sent before the first document
        workers = [asyncio.create_task(self._work(items)) for _ in range(self.settings.concurrency)]
        tasks = [*workers, follower, asyncio.create_task(self._count()), asyncio.create_task(_cancel_on(stop, workers))]
        try:
            await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            self.over = True
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end
        summary.not_started = sum(1 for _ in items)  # none, unless stopped
        summary.interrupted = stop.is_set()
        summary.inputs += summary.not_started
        summary.failed += summary.not_started
        summary.seconds = time.monotonic() - self.begun
        if self.settings.look_every and not summary.server.silent:
            await self.looks.look(2.0)
        return summary

    async def _follow(self) -> None:
        """Look at the server from time to time."""
        told = False
        while self.settings.look_every:
            self.watch("", self.summary, None)
            await self.looks.look(LOOK_TIMEOUT)
            if (note := self.summary.server.note) and not told:
                self.watch(note, self.summary, None)
                told = True
            await asyncio.sleep(self.settings.look_every)
            self.summary.seconds = time.monotonic() - self.begun

    async def _count(self) -> None:
        items = itertools.takewhile(lambda _: not self.over, self._wanted())
        self.summary.total = await asyncio.to_thread(lambda: sum(1 for _ in items))

    def _wanted(self) -> Iterator[Input]:
        past, seen, chosen = self.folder.past, set[str](), self.settings.retry_failed
        found = find_inputs(self.paths, recursive=self.settings.recursive, skip=self.folder.root)
        if chosen and not self.paths:
            found = (Input(Path(source), Path(source).parent) for source in past)
        for item in found:
            source = str(item.path)
            failed = source in past and past[source][0] == "failed"
            if source not in seen and (failed or not chosen):
                seen.add(source)
                yield item

    async def _work(self, items: Iterator[Input]) -> None:
        for item in items:
            self.summary.inputs += 1
            await self._one(item)
            await asyncio.sleep(0)  # a long row of skipped inputs must not hold up the others

    async def _one(self, item: Input) -> None:
        begun, place, state = time.monotonic(), None, None
        facts: dict[str, Any] = {"status": "failed"}
        try:
            if item.problem is not None:
                raise MineruError(item.problem, "no_input")
            place, options = self.places.assign(item), self.settings.options_for(item.path)
            state = _state(item.path, options)
            if self.settings.resume and self.folder.done(str(item.path), state):
                facts = {"status": "skipped"}
            else:
                facts = await self._parse(item.path, place, options)
        except asyncio.CancelledError:
            facts |= {"code": "interrupted", "cause": "the run was stopped"}
            raise
        except Exception as exc:  # one document's trouble, whatever it is, is not the others'
            facts |= _describe(exc)
        finally:
            seconds = round(time.monotonic() - begun, 3)
            outcome = Outcome(source=str(item.path), output=place, seconds=seconds, **facts)
            if outcome.status != "skipped" and item.problem is None:
                entry = {"at": datetime.now(UTC).isoformat(), **asdict(outcome), "state": state}
                # Hundreds may be interrupted at once, and one that the journal does not know is done again anyway.
                self.folder.record(entry, durably=outcome.code != "interrupted")
            self.summary.add(outcome)
            self.summary.seconds = time.monotonic() - self.begun
            self.watch(_line(outcome), self.summary, outcome)

    async def _parse(self, path: Path, place: str, options: Options) -> dict[str, Any]:
        session, url, retries, last = self.session, self.settings.url, self.settings.retries, ""

        def tell(error: MineruError, delay: float) -> None:
            nonlocal last
            last = f"; last: {error}"
            self.summary.refusals += error.status == 429
            # Hundreds are told the same at once: a line a second is enough.
            others, at = self.waits.get(error.status, (0, -math.inf))
            if (now := time.monotonic()) - at < 1:
                self.waits[error.status] = others + 1, at
                return
            more = f" (and {others} others)" if others else ""
            self.waits[error.status] = 0, now
            self.watch(f"waiting {path}: {error.code}: {error}; again in {delay:.1f} s{more}", self.summary, None)

        try:
            async with asyncio.timeout(self.settings.timeout):
                answer = await mineru_parse_async(session, path, url, retries=retries, on_retry=tell, **options)
                with self.folder.new_result(place) as made:
                    await save_result(session, url, answer, made, retries=retries, tell=tell)
        except TimeoutError:
            raise MineruError(f"no result within {self.settings.timeout:g} s{last}", "timed_out") from None
        facts = {key: _printable(str(answer[key])) for key in ("status", "job_id", "tier") if answer.get(key)}
        pages = answer.get("pages")
        return {**facts, "pages": pages if isinstance(pages, int) else 0, "cached": answer.get("cached") is True}


async def _cancel_on(stop: asyncio.Event, workers: Sequence[asyncio.Task[None]]) -> None:
    await stop.wait()
    for worker in workers:
        worker.cancel()


def _state(path: Path, options: Options) -> State:
    facts = path.stat()
    digest = hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode()).hexdigest()
    return facts.st_size, facts.st_mtime_ns, digest[:16]


def _describe(exc: Exception) -> dict[str, str]:
    if isinstance(exc, MineruError):
        return {"code": exc.code, "cause": str(exc)}
    code, text = "client_error", f"{type(exc).__name__}: {exc}"
    if isinstance(exc, OSError):
        code, text = "file_error", f"{exc.strerror or exc} ({exc.filename or 'no name'})"
    return {"code": code, "cause": _printable(text)}


def _line(outcome: Outcome) -> str:
    what = f"{outcome.pages} pages, tier {outcome.tier}, {outcome.seconds:.1f} s, in {outcome.output}"
    if outcome.status in ("failed", "skipped"):
        what = f"{outcome.code}: {outcome.cause}" if outcome.status == "failed" else "done by an earlier run"
    return _printable(f"{outcome.status} {outcome.source}: {what}")


# ---- the command -----------------------------------------------------------------------------------------------------


class Screen:
    """Shows the run on standard error: lines above a small live picture, or lines alone where nobody watches."""

    def __init__(self, *, live: bool, keep: bool) -> None:
        self.outcomes: list[Outcome] = []
        self._keep, self._console = keep, Console(stderr=True, highlight=False, soft_wrap=True)
        self._summary = Summary()
        self.live = Live(get_renderable=self._picture, console=self._console) if live else None

    def show(self, line: str, summary: Summary, outcome: Outcome | None) -> None:
        """Print a line, and the state of the run where no picture shows it."""
        self._summary = summary
        if self._keep and outcome:
            self.outcomes.append(outcome)
        if self.live is None and (outcome or (not line and summary.seconds)):
            told = "; ".join(" ".join(each.split()) for each in server_lines(summary.server, 120, 9))
            line = f"[{summary.line}] {line or told}".rstrip()
        if line:
            self._console.print(Text(line))

    def _picture(self) -> Text:
        summary, (width, height) = self._summary, self._console.size
        filled = width * (summary.succeeded + summary.failed) // (summary.total or 1) if summary.total else 0
        rows = server_lines(summary.server, width, min(12, height - 4))
        picture = Text("\n".join((summary.line, *rows)), no_wrap=True, overflow="ellipsis")
        return Text.assemble(("━" * filled, "green"), ("━" * (width - filled) + "\n", "dim"), picture, no_wrap=True)


def show_summary(summary: Summary, out: str) -> None:
    """Print the cause of every failure and the closing tables."""
    console = Console(highlight=False, soft_wrap=True)
    for failure in summary.failures:
        console.print(Text(_printable(f"FAILED {failure.source}: {failure.code}: {failure.cause}")))
    table = Table(title="Interrupted" if summary.interrupted else "Done", show_header=False)
    counts = ("inputs", "succeeded", "partial", "cached", "skipped", "failed", "not_started", "refusals", "pages")
    for name in counts:
        table.add_row(name.replace("_", " "), str(getattr(summary, name)))
    table.add_row("seconds", f"{summary.seconds:.1f}")
    table.add_row("pages/s", f"{summary.pages_per_second:.2f}")
    console.print(table)
    if rows := summary.server.rows:
        server = Table("", "pages", "failed", "pages/s", title="The server meanwhile, for all callers", min_width=40)
        for row in rows:
            rate = row.pages / summary.server.seconds if summary.server.seconds else 0.0
            server.add_row(row.name, str(row.pages), str(row.failed), f"{rate:.2f}")
        console.print(server)
    console.print(Text(_printable(f"results in {out}")))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="client.py", description="Parse documents by a Docfleet server, many at a time.", allow_abbrev=False
    )
    add = parser.add_argument
    add("paths", nargs="*", metavar="PATH", help="file, folder or quoted glob")
    add("--out", required=True, metavar="DIR", help="folder of the results")
    add("--url", default=DEFAULT_URL, help="the server (default: %(default)s)")
    add("--api-key", default=os.environ.get("DOCFLEET_API_KEY"), help="better: environment DOCFLEET_API_KEY")
    add("--concurrency", type=int, default=8, metavar="N", help="documents at the same time (default: %(default)s)")
    add("--timeout", type=float, default=3600.0, metavar="S", help="seconds for a document (default: %(default)s)")
    add("--retries", type=int, default=6, metavar="N", help="tries after the first (default: %(default)s)")
    add("--recursive", action=argparse.BooleanOptionalAction, default=True, help="search folders in depth")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="leave out what is done, unchanged, with these options")
    again.add_argument("--retry-failed", action="store_true", help="do only what failed; PATHs may be left out")
    add("--json", metavar="REPORT", type=Path, help="write the outcome of every document to this file")
    add("--quiet", action="store_true", help="only a line for each document, no picture of the run")
    add("--options-file", type=Path, metavar="FILE", help="JSON or TOML: options by file name or pattern")
    group = parser.add_argument_group("options of every document (the server's defaults where not given)")
    for name in ("backend", "tier", "method", "lang", "server-url", "shards"):
        group.add_argument(f"--{name}")
    for name in ("start-page-id", "end-page-id"):
        group.add_argument(f"--{name}", type=int, metavar="N", help="counted from 0, inclusive")
    for name in ("formula-enable", "table-enable"):
        group.add_argument(f"--{name}", action=argparse.BooleanOptionalAction)
    group.add_argument("--formats", help="comma-separated: markdown,content_list,middle_json,html,docx,...")
    return parser


def _settings(args: argparse.Namespace) -> Settings:
    given = {name: value for name, value in vars(args).items() if name in Settings.__dataclass_fields__}
    other = {*given, "paths", "out", "json", "quiet", "options_file"}
    options = {name: value for name, value in vars(args).items() if name not in other and value is not None}
    per_file = _read_options(args.options_file) if args.options_file else {}
    look_every = 0.0 if args.quiet else 2.0 if sys.stderr.isatty() else 10.0
    return Settings(options=options, per_file=per_file, look_every=look_every, **given)


def _read_options(path: Path) -> dict[str, dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    found = tomllib.loads(text) if path.suffix.lower() == ".toml" else json.loads(text)
    if not isinstance(found, dict) or not all(key and isinstance(value, dict) for key, value in found.items()):
        raise ValueError(f'{path} must map file names or patterns to options: {{"scan-*.png": {{"method": "ocr"}}}}')
    return found


def _room_for_files(concurrency: int) -> int:
    """Raise the limit of open files as far as wanted and allowed; return how many documents it lets be under way."""
    if sys.platform == "win32":
        return concurrency
    import resource

    # A document under way holds up to nine files and sockets; the usual soft limit is 1024 (macOS: 256).
    each, other = 2 * DOWNLOADS + 1, 64
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most, wanted = (2**20 if hard < 0 else hard), concurrency * each + other
    if 0 <= soft < wanted:
        soft = min(wanted, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return concurrency if soft < 0 else min(concurrency, max(1, (soft - other) // each))


async def _run(args: argparse.Namespace, settings: Settings) -> int:
    """Return the exit status: 0, 1 if anything failed, 128 + the signal if stopped by one (Ctrl-C: 130)."""
    loop, stop, caught = asyncio.get_running_loop(), asyncio.Event(), list[int]()

    def on_signal(number: int, _frame: object) -> None:
        caught.append(number)
        loop.call_soon_threadsafe(stop.set)
        signal.signal(number, signal.SIG_DFL)  # the second one ends it at once

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    if (room := _room_for_files(settings.concurrency)) < settings.concurrency:
        print(f"client.py: {room} documents at the same time: the limit of open files allows no more", file=sys.stderr)
        settings = replace(settings, concurrency=room)
    screen = Screen(live=sys.stderr.isatty() and not args.quiet, keep=args.json is not None)
    with screen.live or contextlib.nullcontext():
        summary = await parse_many(args.paths, args.out, settings, watch=screen.show, stop=stop)
    show_summary(summary, args.out)
    if args.json:
        report = asdict(summary) | {"pages_per_second": summary.pages_per_second}
        report["results"] = [asdict(outcome) for outcome in screen.outcomes]
        args.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return 128 + caught[0] if caught else int(summary.failed > 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if not args.paths and not args.retry_failed:
        parser.error("name at least one file, folder or glob")
    try:
        return asyncio.run(_run(args, _settings(args)))
    except (OutFolderBusy, ValueError) as exc:
        parser.error(_printable(str(exc)))
    except OSError as exc:
        print(_printable(f"client.py: {exc.strerror or exc}: {exc.filename or ''}"), file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
