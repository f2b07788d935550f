"""One family of errors: each carries a stable code, an HTTP status and whether trying again can help.

DocfleetError
├── the request          InvalidRequest, InvalidOption, InvalidPageRange, NotFound, Forbidden
├── the document         EmptyDocument, DocumentTooLarge, UnsupportedType, EncryptedDocument,
│                        BrokenDocument, HostileDocument
├── what can run here    TierUnavailable (ReaderUnavailable), EngineMissing, NotReady, VlmUnavailable
├── the work             ParseFailed (OutOfDeviceMemory), WorkerLost, TooSlow, Cancelled, KeyReused
└── the server           Busy, StorageFull, StorageUnavailable, InternalError, ConfigurationError

The message tells the remedy. An error crosses processes and the store as `record()`, and comes back with
`from_record()`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final


class DocfleetError(Exception):
    """Root of the family. Raise a subclass."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        #: Seconds after which trying again is worth it; None where unknown.
        self.retry_after = retry_after

    def record(self) -> dict[str, Any]:
        """Return the JSON shape that doors answer with and the store keeps."""
        return {"code": self.code, "message": self.message, "retryable": self.retryable}


class InvalidRequest(DocfleetError):
    """The request cannot be understood (malformed JSON, bad base64, body cut off)."""

    code = "invalid_request"
    status = 400


class InvalidOption(DocfleetError):
    """An option is unknown or its value is out of bounds."""

    code = "invalid_option"
    status = 422


class InvalidPageRange(DocfleetError):
    """The page range lies outside the document."""

    code = "invalid_page_range"
    status = 422


class NotFound(DocfleetError):
    """There is no such job or file."""

    code = "not_found"
    status = 404


class Forbidden(DocfleetError):
    """The server's settings do not allow this."""

    code = "forbidden"
    status = 403


class EmptyDocument(DocfleetError):
    """The file has no bytes or no pages."""

    code = "empty_document"
    status = 422


class DocumentTooLarge(DocfleetError):
    """The body, or what it unpacks to, is over the limit."""

    code = "document_too_large"
    status = 413


class UnsupportedType(DocfleetError):
    """No engine reads this type of file here."""

    code = "unsupported_type"
    status = 415


class EncryptedDocument(DocfleetError):
    """The file asks for a password."""

    code = "encrypted_document"
    status = 422


class BrokenDocument(DocfleetError):
    """The file says it is of a type that can be read, and cannot be read."""

    code = "broken_document"
    status = 422


class HostileDocument(DocfleetError):
    """The file is built to exhaust the machine (an archive that unpacks to far more than it weighs)."""

    code = "hostile_document"
    status = 422


class TierUnavailable(DocfleetError):
    """The tier that was asked for cannot run here; the message says what is missing."""

    code = "tier_unavailable"
    status = 503


class ReaderUnavailable(TierUnavailable):
    """No worker has the engine and tier any more that began to read the document."""

    code = "reader_unavailable"
    retryable = True


class EngineMissing(DocfleetError):
    """No engine of that name is installed."""

    code = "engine_missing"
    status = 503


class NotReady(DocfleetError):
    """No worker has loaded its engine yet."""

    code = "not_ready"
    status = 503
    retryable = True


class VlmUnavailable(DocfleetError):
    """No VLM server that may read the document was alive for longer than pages wait."""

    code = "vlm_unavailable"
    status = 503
    retryable = True


class ParseFailed(DocfleetError):
    """The engine gave up on this document."""

    code = "parse_failed"
    status = 422


class OutOfDeviceMemory(ParseFailed):
    """Memory ran out, of the device or the machine, however little the engine took at once."""

    code = "out_of_memory"
    status = 503
    retryable = True


class WorkerLost(DocfleetError):
    """The workers that held the document died, as often as attempts are allowed."""

    code = "worker_lost"
    status = 503
    retryable = True


class Poisoned(DocfleetError):
    """Every page asked for has killed workers before; the document is not tried again for a while."""

    code = "poisoned_document"
    status = 422


class TooSlow(DocfleetError):
    """The work did not end within its time limit."""

    code = "deadline_exceeded"
    status = 504
    retryable = True


class Cancelled(DocfleetError):
    """The job was cancelled by its caller."""

    code = "cancelled"
    status = 409


class KeyReused(DocfleetError):
    """The Idempotency-Key was sent before, with another document or other options."""

    code = "idempotency_key_reused"
    status = 409


class Busy(DocfleetError):
    """The server has as much work as it takes on."""

    code = "busy"
    status = 429
    retryable = True


class StorageFull(DocfleetError):
    """There is no room left on the disk for another document."""

    code = "storage_full"
    status = 507
    retryable = True


class StorageUnavailable(DocfleetError):
    """The data folder cannot be written or read now: its disk is read-only, gone or broken."""

    code = "storage_unavailable"
    status = 503
    retryable = True


class InternalError(DocfleetError):
    """A fault of the server's own; its log has the cause."""

    code = "internal_error"
    status = 500


class ConfigurationError(DocfleetError):
    """A setting cannot be used; the server does not start with it."""

    code = "configuration_error"
    status = 500


#: What a store raises that can do nothing now and may later: the machine's trouble, never a document's.
STORE_TROUBLE: Final = (Busy, StorageFull, StorageUnavailable)


def _family(root: type[DocfleetError]) -> dict[str, type[DocfleetError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _family(child)
    return found


def code_of(record: dict[str, Any]) -> str:
    """Return the code that `record()` told, or "other" for one that the family does not know: an engine's own."""
    code = str(record.get("code"))
    return code if code in _family(DocfleetError) else "other"


def from_record(record: dict[str, Any]) -> DocfleetError:
    """Rebuild the error that `record()` described; an unknown code becomes an InternalError."""
    kind = _family(DocfleetError).get(str(record.get("code")), InternalError)
    return kind(str(record.get("message", "")))
