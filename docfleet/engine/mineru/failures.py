"""Errors of MinerU and DocVortex, told in the server's own words.

The libraries raise plain exceptions from a dozen modules; here each becomes one of the family with the status and the
remedy that the caller shall see. What they say never carries a path: paths are the server's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC
from struct import error as StructError
from zipfile import BadZipFile
from zlib import error as DeflateError

from loguru import logger

from docfleet.engine.memory import is_out_of_memory
from docfleet.errors import (
    BrokenDocument,
    DocfleetError,
    DocumentTooLarge,
    EncryptedDocument,
    HostileDocument,
    InternalError,
    OutOfDeviceMemory,
    ParseFailed,
    StorageFull,
    TierUnavailable,
    TooSlow,
    UnsupportedType,
    VlmUnavailable,
    WorkerLost,
)

#: PDFium's number for "asks for a password" (FPDF_ERR_PASSWORD).
_PDFIUM_PASSWORD = 4
_PATH = re.compile(r"(?:[A-Za-z]:)?[/\\][^\s'\"<>]+")
_LONGEST_CAUSE = 200

#: How to get weights; every message about missing ones ends with it.
WEIGHTS_REMEDY = (
    "Fetch them with `python server.py --prefetch` (on another machine with `--prefetch-backend onnx` or `torch`, as "
    "their name says), or set MINERU_MODEL_SOURCE to huggingface or modelscope where the server may fetch them itself."
)
#: The same where the server would have fetched them.
UNREACHED_REMEDY = (
    "No model hub could be reached when the server started: start it again once the network is there, or fetch them "
    "with `python server.py --prefetch`."
)


#: What parsers of packaged formats stumble with when a package does not hold what it should.
_STUMBLES = (ValueError, LookupError, SyntaxError, StructError, OSError)

#: With which a VLM server, or the router of several, says that it is the page and not the server.
_PAGE_STATUSES = frozenset({400, 413, 422, 500})
#: With which the router says that no server is alive.
_NO_SERVER = 424

#: Libraries that talk to model hubs and VLM servers.
_NETWORK_LIBRARIES = frozenset(
    {
        "httpx",
        "httpcore",
        "requests",
        "urllib3",
        "huggingface_hub",
        "modelscope",
        "modelscope_hub",
        "mineru_vl_utils",
    }
)


@contextmanager
def translated(*, packaged: bool = False) -> Iterator[None]:
    """Let nothing but the family of DocfleetError out of the block (and what is no Exception at all).

    `packaged` says that the block does nothing but read a format that is not drawn but written (Office, EPUB, HTML,
    CSV): whatever its parser stumbles over is then the document's fault.
    """
    try:
        yield
    except DocfleetError:
        raise
    except SystemExit as exc:
        # MinerU calls exit() where a model does not initialise; a worker must outlive that.
        raise TierUnavailable(f"MinerU could not initialise its models. {WEIGHTS_REMEDY}") from exc
    except Exception as exc:
        raise _translate(exc, packaged) from exc


def short_cause(exc: BaseException) -> str:
    """Return kind and first line of an error, without paths and at most 200 characters long."""
    text = str(exc).strip()
    line = _PATH.sub("…", text.splitlines()[0]) if text else ""
    return f"{type(exc).__name__}: {line}"[:_LONGEST_CAUSE].rstrip(": ")


def _translate(exc: Exception, packaged: bool) -> DocfleetError:
    cause = short_cause(exc)
    logger.opt(exception=exc).debug("engine error behind: {}", cause)
    kinds = {kind.__name__ for kind in type(exc).__mro__}
    if is_out_of_memory(exc):
        return OutOfDeviceMemory(f"The document needs more memory than there is ({cause}); send fewer pages at once.")
    named = _by_name(exc, kinds, cause)
    if named is not None:
        return named
    if isinstance(exc, ImportError):
        return TierUnavailable(
            f"A package that this tier needs is not installed ({cause}). Install it with `pip install 'docfleet[gpu]'`."
        )
    if isinstance(exc, FileNotFoundError) and "is not ready" in str(exc):
        return TierUnavailable(f"Model weights are missing ({cause}). {WEIGHTS_REMEDY}")
    if isinstance(exc, OSError) and exc.errno in (ENOSPC, EDQUOT):
        return StorageFull("The disk is full; free some room and send the document again.")
    if isinstance(exc, TimeoutError):
        return TooSlow("Drawing the pages took longer than MINERU_PDF_RENDER_TIMEOUT allows; send fewer pages at once.")
    if isinstance(exc, ConnectionError | EOFError):
        return WorkerLost("A process that draws pages died on this document; send the pages by smaller ranges.")
    if isinstance(exc, OSError) and exc.errno is not None:
        logger.opt(exception=exc).error("the server's own files cannot be read or written: {}", cause)
        return InternalError("The server could not read or write its own files; its log has the cause.")
    if packaged and isinstance(exc, _STUMBLES):
        return BrokenDocument(f"The document is damaged and cannot be read ({cause}).")
    return ParseFailed(f"MinerU gave up on this document ({cause}).")


def _by_name(exc: Exception, kinds: set[str], cause: str) -> DocfleetError | None:
    # By class name: the classes live in a dozen lazily imported modules, and importing all of them costs seconds.
    if any(kind.endswith("EncryptedError") for kind in kinds) or getattr(exc, "err_code", None) == _PDFIUM_PASSWORD:
        return EncryptedDocument("The document asks for a password; remove the protection and send it again.")
    status = getattr(exc, "status_code", 0) if "HttpResponseError" in kinds else 0
    # RequestError is also what a wrong setting leads to; of an answer only the way it ended is judged so.
    cut_short = "RequestError" in kinds and "finish reason" in str(exc)
    if status in _PAGE_STATUSES or cut_short:
        return ParseFailed(f"No VLM server could read a page ({cause}).")
    if status == _NO_SERVER:
        return VlmUnavailable("No VLM server answers. GET /vlm/endpoints says why; send the document again in a while.")
    if type(exc).__module__.partition(".")[0] in _NETWORK_LIBRARIES:
        return TierUnavailable(
            f"The VLM server or the model hub does not answer as it should ({cause}). Check that it can be reached."
        )
    limit = any(kind.endswith(("ResourceLimitError", "ImageLimitError")) for kind in kinds)
    if limit or ("XMLSyntaxError" in kinds and "Resource limit" in str(exc)):
        return DocumentTooLarge(f"What the document unpacks to is over MinerU's limit ({cause}).")
    if "DecompressionBombError" in kinds:
        return HostileDocument(f"The image unpacks to far more than it weighs ({cause}).")
    if "PdfiumError" in kinds or "UnidentifiedImageError" in kinds or isinstance(exc, BadZipFile | DeflateError):
        return BrokenDocument(f"The document is damaged and cannot be opened ({cause}).")
    if kinds & {
        "LegacyOfficeError",
        "EpubError",
        "HtmlParseError",
        "OdfParseError",
        "OfdParseError",
        "MhtmlParseError",
    }:
        return BrokenDocument(f"The document is damaged and cannot be read ({cause}).")
    if kinds & {"DocumentError", "MineruError"}:
        code = getattr(exc, "code", "")
        if code == "file_type_unsupported":
            return UnsupportedType(f"MinerU does not read this type of file ({cause}).")
        return BrokenDocument(f"The document cannot be read ({cause}).")
    return None
