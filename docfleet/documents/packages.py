"""Tell the types that are zip archives from one another: docx, pptx, xlsx, odt, ods, odp, epub, ofd."""

from __future__ import annotations

import posixpath
import zipfile
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from docfleet.documents.archive import open_archive
from docfleet.errors import BrokenDocument, EncryptedDocument, HostileDocument

#: Main part of an Office file, by the end of its content type (templates, shows and files with macros included).
_OFFICE_TYPES = (
    (("wordprocessingml.document.main+xml", "wordprocessingml.template.main+xml"), "docx"),
    (("ms-word.document.macroenabled.main+xml", "ms-word.template.macroenabledtemplate.main+xml"), "docx"),
    (("presentationml.presentation.main+xml", "presentationml.slideshow.main+xml"), "pptx"),
    (("presentationml.template.main+xml", "ms-powerpoint.template.macroenabled.main+xml"), "pptx"),
    (("powerpoint.presentation.macroenabled.main+xml", "powerpoint.slideshow.macroenabled.main+xml"), "pptx"),
    (("spreadsheetml.sheet.main+xml", "spreadsheetml.template.main+xml"), "xlsx"),
    (("ms-excel.sheet.macroenabled.main+xml", "ms-excel.template.macroenabled.main+xml"), "xlsx"),
)
_MIMETYPES = {
    "application/vnd.oasis.opendocument.text": "odt",
    "application/vnd.oasis.opendocument.text-template": "odt",
    "application/vnd.oasis.opendocument.spreadsheet": "ods",
    "application/vnd.oasis.opendocument.spreadsheet-template": "ods",
    "application/vnd.oasis.opendocument.presentation": "odp",
    "application/vnd.oasis.opendocument.presentation-template": "odp",
    "application/epub+zip": "epub",
}
#: Fonts of a book are often scrambled; that is no password.
_FONT_SCRAMBLERS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
#: Bytes read of a part that describes the package; none needs more.
_DESCRIPTION_LIMIT = 4 * 1024 * 1024


def package_suffix(path: Path) -> str | None:
    """Return the type of a zip archive by the parts that describe it, or None if it is just an archive.

    Raises:
        BrokenDocument: it is damaged.
        EncryptedDocument: it says that its parts are encrypted.
        HostileDocument: a describing part is too large or declares entities.
    """
    with open_archive(path) as archive:
        names = frozenset(archive.namelist())
        if "[Content_Types].xml" in names:
            return _office(archive)
        suffix = _by_mimetype(archive, names)
        if suffix is None and "OFD.xml" in names:
            return "ofd"
        if suffix is not None:
            _refuse_if_encrypted(archive, names)
        return suffix


def _office(archive: zipfile.ZipFile) -> str | None:
    main = _main_part(archive)
    types = _parse(archive, "[Content_Types].xml")
    overrides = {
        _plain(item.get("PartName", "")): item.get("ContentType", "") for item in types if _is(item, "Override")
    }
    defaults = {
        item.get("Extension", "").lower(): item.get("ContentType", "") for item in types if _is(item, "Default")
    }
    content_type = overrides.get(_plain(main)) or defaults.get(posixpath.splitext(main)[1].lstrip(".").lower(), "")
    for endings, suffix in _OFFICE_TYPES:
        if content_type.lower().endswith(endings):
            return suffix
    return None


def _main_part(archive: zipfile.ZipFile) -> str:
    for relation in _parse(archive, "_rels/.rels"):
        if relation.get("Type", "").endswith("/officeDocument"):
            return relation.get("Target", "")
    return ""


def _plain(part: str) -> str:
    return posixpath.normpath("/" + part.lstrip("/")).lower()


def _by_mimetype(archive: zipfile.ZipFile, names: frozenset[str]) -> str | None:
    declared = _read(archive, "mimetype").decode("ascii", "replace").strip() if "mimetype" in names else ""
    if declared in _MIMETYPES:
        return _MIMETYPES[declared]
    if "META-INF/container.xml" in names:
        return "epub"
    if "META-INF/manifest.xml" in names:
        for entry in _parse(archive, "META-INF/manifest.xml"):
            if _attribute(entry, "full-path") == "/":
                return _MIMETYPES.get(_attribute(entry, "media-type"))
    return None


def _refuse_if_encrypted(archive: zipfile.ZipFile, names: frozenset[str]) -> None:
    if "META-INF/manifest.xml" in names:
        manifest = _parse(archive, "META-INF/manifest.xml")
        if any(_is(item, "encryption-data") for item in manifest.iter()):
            raise EncryptedDocument("The file asks for a password. Remove it, and send the file again.")
    if "META-INF/encryption.xml" in names:
        for item in _parse(archive, "META-INF/encryption.xml").iter():
            if _is(item, "EncryptedData") and not _is_scrambled_font(item):
                raise EncryptedDocument("The book is protected against copying. Send a copy without protection.")


def _is_scrambled_font(item: Element) -> bool:
    return any(_is(child, "EncryptionMethod") and child.get("Algorithm") in _FONT_SCRAMBLERS for child in item)


def _parse(archive: zipfile.ZipFile, name: str) -> Element:
    try:
        root: Element = fromstring(_read(archive, name), forbid_dtd=False, forbid_entities=True, forbid_external=True)
        return root
    except DefusedXmlException:
        raise HostileDocument(
            f"{name!r} declares XML entities. Save the document anew with an office program."
        ) from None
    except (ParseError, ValueError, LookupError):
        raise BrokenDocument(f"{name!r} of the file is damaged. Send the file again.") from None


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        with archive.open(name) as stream:
            content = stream.read(_DESCRIPTION_LIMIT + 1)
    except KeyError:
        raise BrokenDocument(f"The file lacks {name!r}: it is damaged. Send it again.") from None
    except RuntimeError:
        raise EncryptedDocument("The file asks for a password. Remove it, and send the file again.") from None
    if len(content) > _DESCRIPTION_LIMIT:
        raise HostileDocument(f"{name!r} of the file is larger than any office program makes it.")
    return content


def _is(item: Element, tag: str) -> bool:
    return str(item.tag).rpartition("}")[2] == tag


def _attribute(item: Element, name: str) -> str:
    for key, value in item.attrib.items():
        if key.rpartition("}")[2] == name:
            return value
    return ""
