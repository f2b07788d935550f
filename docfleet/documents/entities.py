"""Refuse XML that is built to explode: entities that name other entities, parameter entities, external entities.

Entities can only be declared before the root element. So it is enough to read so far, with expat, which knows every
spelling of a declaration and every encoding that matters, and which expands nothing on the way.
"""

from __future__ import annotations

import re
from xml.parsers import expat

from docfleet.errors import HostileDocument

#: The root element must begin within so many bytes.
PROLOG_LIMIT = 64 * 1024
#: A longer text, named often enough, is a bomb of its own.
_LONGEST_ENTITY = 256

_DECLARATION = re.compile(rb"<!ENTITY", re.IGNORECASE)
#: "<?xml" in EBCDIC, which other parsers take and expat does not.
_EBCDIC = b"\x4c\x6f\xa7\x94\x93"


class _RootReached(Exception):
    pass


def check_prolog(head: bytes, name: str) -> None:
    """Check the beginning of what may be XML; anything else passes.

    Args:
        head: the first `PROLOG_LIMIT` bytes, or all of a shorter file.
        name: named in the error.

    Raises:
        HostileDocument: it declares such entities, or hides what it declares.
    """
    if head.startswith(_EBCDIC):
        raise HostileDocument(f"{name!r} is XML in EBCDIC. Save it as UTF-8.")
    if not _may_be_xml(head):
        return
    parser = expat.ParserCreate()
    parser.StartElementHandler = _root_reached
    parser.EntityDeclHandler = _Declarations(name)
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    try:
        parser.Parse(head, False)
    except _RootReached:
        return
    except (expat.ExpatError, LookupError, ValueError):
        # Not XML to expat; HTML, for instance. Whoever reads it more kindly must not find declarations in it.
        if _DECLARATION.search(head.replace(b"\0", b"")):
            raise _refusal(name) from None
        return
    if len(head) >= PROLOG_LIMIT:
        raise HostileDocument(f"{name!r} has no root element within {PROLOG_LIMIT // 1024} KB.")


def _may_be_xml(head: bytes) -> bool:
    text = head.removeprefix(b"\xef\xbb\xbf").removeprefix(b"\xff\xfe").removeprefix(b"\xfe\xff")
    first = text.replace(b"\0", b"").lstrip()[:1]
    return first == b"<" or (not first and len(head) >= PROLOG_LIMIT)


def _root_reached(name: str, attributes: dict[str, str]) -> None:
    raise _RootReached


class _Declarations:
    """Called by expat for each entity that is declared."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, entity: str, is_parameter: bool, value: str | None, *identifiers: str | None) -> None:
        if is_parameter or value is None or "&" in value or len(value) > _LONGEST_ENTITY:
            raise _refusal(self._name)


def _refusal(name: str) -> HostileDocument:
    return HostileDocument(
        f"{name!r} declares XML entities that could expand without end or fetch other files. Save the document anew "
        "with an office program."
    )
