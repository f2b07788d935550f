from __future__ import annotations

import errno
from zipfile import BadZipFile

import pytest

from docfleet.engine.mineru.failures import short_cause, translated
from docfleet.errors import (
    BrokenDocument,
    Cancelled,
    DocfleetError,
    DocumentTooLarge,
    EncryptedDocument,
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


def outcome(exc: BaseException, *, packaged: bool = False) -> DocfleetError:
    with pytest.raises(DocfleetError) as caught, translated(packaged=packaged):
        raise exc
    return caught.value


def foreign_errors() -> list[tuple[BaseException, type[DocfleetError]]]:
    import httpx
    import pypdfium2
    from docvortex.analyzers.native.epub.errors import EpubEncryptedError, EpubResourceLimitError
    from docvortex.analyzers.native.html.errors import HtmlParseError, HtmlResourceLimitError
    from docvortex.analyzers.native.office.errors import LegacyOfficeEncryptedError, LegacyOfficeMissingPartError
    from docvortex.analyzers.native.office.odf.errors import OdfEncryptedError
    from docvortex.errors import DocumentError
    from docvortex.errors import InvalidRequestError as Unsupported
    from mineru_vl_utils.vlm_client.base_client import HttpResponseError, RequestError, ServerError
    from PIL import UnidentifiedImageError

    return [
        (pypdfium2.PdfiumError("Incorrect password error", 4), EncryptedDocument),
        (pypdfium2.PdfiumError("Data format error", 3), BrokenDocument),
        (LegacyOfficeEncryptedError("x"), EncryptedDocument),
        (OdfEncryptedError("x"), EncryptedDocument),
        (EpubEncryptedError("x"), EncryptedDocument),
        (EpubResourceLimitError("x"), DocumentTooLarge),
        (HtmlResourceLimitError("x"), DocumentTooLarge),
        (HtmlParseError("x"), BrokenDocument),
        (LegacyOfficeMissingPartError("x"), BrokenDocument),
        (DocumentError("open_failed", "x"), BrokenDocument),
        (Unsupported("file_type_unsupported", "x"), UnsupportedType),
        (UnidentifiedImageError("x"), BrokenDocument),
        (BadZipFile("x"), BrokenDocument),
        (ServerError("x"), TierUnavailable),
        (HttpResponseError(401, "x"), TierUnavailable),
        (HttpResponseError(400, "x"), ParseFailed),
        (HttpResponseError(500, "x"), ParseFailed),
        (HttpResponseError(424, "x"), VlmUnavailable),
        (RequestError("Unexpected finish reason: abort"), ParseFailed),
        (RequestError("Expected exactly one model"), TierUnavailable),
        (httpx.ConnectError("x"), TierUnavailable),
        (ModuleNotFoundError("No module named 'vllm'"), TierUnavailable),
        (FileNotFoundError("Model repo A is not ready under /srv/models/A; missing: b.onnx"), TierUnavailable),
        (OSError(errno.ENOSPC, "No space left on device"), StorageFull),
        (PermissionError(errno.EACCES, "Permission denied"), InternalError),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), WorkerLost),
        (TimeoutError("render"), TooSlow),
        (MemoryError(), OutOfDeviceMemory),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"), OutOfDeviceMemory),
        (SystemExit(1), TierUnavailable),
        (RuntimeError("whatever"), ParseFailed),
    ]


def test_each_error_of_the_libraries_becomes_one_with_status_and_remedy() -> None:
    got = [(repr(exc), type(outcome(exc))) for exc, _ in foreign_errors()]
    assert got == [(repr(exc), kind) for exc, kind in foreign_errors()]


def test_what_the_parser_of_a_packaged_format_stumbles_over_is_the_documents_fault() -> None:
    for exc in (KeyError("no item named x"), ValueError("x"), IndexError("x"), OSError("no workbook part")):
        assert type(outcome(exc, packaged=True)) is BrokenDocument
        assert type(outcome(exc)) is ParseFailed
    assert type(outcome(RuntimeError("x"), packaged=True)) is ParseFailed


def test_errors_of_the_family_and_interrupts_pass_unchanged() -> None:
    cancelled = Cancelled("stop")
    assert outcome(cancelled) is cancelled
    with pytest.raises(KeyboardInterrupt), translated():
        raise KeyboardInterrupt


def test_a_message_says_how_to_get_missing_weights_and_shows_no_path() -> None:
    message = outcome(FileNotFoundError("Model repo A is not ready under /srv/secret/A; missing: b.onnx")).message
    assert "--prefetch-backend onnx` or `torch`" in message
    assert "/srv" not in message


def test_a_cause_is_one_line_without_paths_and_short() -> None:
    cause = short_cause(ValueError("cannot open '/data/jobs/ab/source.pdf' nor C:\\data\\x\nsecond line"))
    assert cause.startswith("ValueError: cannot open")
    assert "data" not in cause
    assert "second" not in cause
    assert len(short_cause(ValueError("x" * 5000))) <= 200
    assert short_cause(ValueError()) == "ValueError"
