"""Tell a file's type by its content.

Signature libraries (filetype, puremagic) know hundreds of types that nobody reads here, and take any zip archive with
the right names for an Office file; models that guess (magika) take longer to load than all of this. The few types
that count have signatures of a line each, and the containers among them are opened.
"""

from __future__ import annotations

import re
from pathlib import Path

from docfleet.documents import archive, compound
from docfleet.documents.packages import package_suffix
from docfleet.documents.text import text_suffix
from docfleet.errors import EmptyDocument, UnsupportedType

IMAGES = frozenset({"png", "jpg", "tiff", "webp", "bmp", "gif", "jp2"})
PACKAGES = frozenset({"docx", "pptx", "xlsx", "odt", "ods", "odp", "epub", "ofd"})
COMPOUNDS = frozenset({"doc", "xls", "ppt"})
TEXTS = frozenset({"rtf", "html", "mhtml", "csv", "tsv"})
#: Every type that is told apart, as the suffixes that engines know.
KINDS = frozenset({"pdf"}) | IMAGES | PACKAGES | COMPOUNDS | TEXTS

_READ = (
    "PDF; images (PNG, JPEG, TIFF, WebP, BMP, GIF, JPEG 2000); Word, PowerPoint and Excel old and new; RTF; "
    "OpenDocument; EPUB; OFD; HTML and MHTML; CSV and TSV"
)

_HEAD = 64 * 1024
_SIGNATURES = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "png"),
    (re.compile(rb"\xff\xd8\xff"), "jpg"),
    (re.compile(rb"II\*\0|MM\0\*|II\+\0|MM\0\+"), "tiff"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "webp"),
    (re.compile(rb"GIF8[79]a"), "gif"),
    # Two letters would be any text that begins with them: the size of the second header says more.
    (re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), "bmp"),
    (re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"), "jp2"),
    (re.compile(rb"(?:\xef\xbb\xbf)?\s*%PDF-"), "pdf"),
)
#: Readers of PDF look for its beginning among the first 1,024 bytes; printers put job headers there.
_LATE_PDF = re.compile(rb"%PDF-\d\.\d")
_LATE_PDF_WITHIN = 1024

_NOT_READ = (
    (re.compile(rb"Rar!|7z\xbc\xaf|\x1f\x8b|BZh|\xfd7zXZ"), "an archive; send the documents in it one by one"),
    (re.compile(rb"%!PS"), "PostScript; save it as PDF"),
    (re.compile(rb"AT&TFORM"), "DjVu; save it as PDF"),
    (re.compile(rb"....ftyp(?:hei|mif|avi|msf)", re.DOTALL), "a HEIC or AVIF image; save it as JPEG or PNG"),
    (re.compile(rb"SQLite format|\x7fELF|MZ|\xca\xfe\xba\xbe"), "a program or database"),
)


def kind_of(path: Path, filename: str) -> str:
    """Return the type as a suffix out of `KINDS`.

    Args:
        path: the file.
        filename: the caller's name; chooses between kinds of text, and nothing else.

    Raises:
        EmptyDocument: no bytes.
        UnsupportedType: none of `KINDS`.
        EncryptedDocument, BrokenDocument, HostileDocument: found while looking into a container.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
        complete = not file.read(1)
    if not head:
        raise EmptyDocument("The file has no bytes. Send the document again.")
    extension = filename.rpartition(".")[2].lower() if "." in filename else ""
    for pattern, suffix in _SIGNATURES:
        if pattern.match(head):
            return suffix
    found = _contained(path, head)
    if found is None and not head.startswith((archive.SIGNATURE, compound.SIGNATURE)):
        found = text_suffix(head, extension, complete=complete)
        if found is None and _LATE_PDF.search(head[:_LATE_PDF_WITHIN]):
            found = "pdf"
    if found is None:
        raise UnsupportedType(f"The file is {_described(head)}. These are read: {_READ}.")
    return found


def _contained(path: Path, head: bytes) -> str | None:
    if head.startswith(archive.SIGNATURE):
        return package_suffix(path)
    if head.startswith(compound.SIGNATURE):
        return compound.compound_suffix(path)
    return None


def _described(head: bytes) -> str:
    if head.startswith((archive.SIGNATURE, b"PK\x05\x06")):
        return "a zip archive, and no document; send the documents in it one by one"
    if head.startswith(compound.SIGNATURE):
        return "of a program that is not Word, Excel or PowerPoint"
    for pattern, description in _NOT_READ:
        if pattern.match(head):
            return description
    return "of no type that is read here (plain text needs no parsing)"
