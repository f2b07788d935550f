"""Addresses of VLM servers, as settings and callers write them. Pure; nothing is looked up.

An address is `http(s)://host[:port][/prefix]`; a `/v1` at its end means the same as none, as in MinerU
(`VlmConfig.server_url`). Several stand in one text, with commas between them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from urllib.parse import urlsplit

#: In the place of named servers: those of the pool.
WHOLE_POOL = "pool"
#: Servers that one request may name.
MAX_NAMED = 32

_DEFAULT_PORTS = {"http": 80, "https": 443}


def split_addresses(text: str) -> tuple[str, ...]:
    """Return the addresses in a text, in order, as they were written."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def canonical(address: str) -> str:
    """Return the one way to write an address: lower-case host, no default port, no `/v1`, no slash at the end.

    Raises:
        ValueError: it is no plain http or https address (a user, query, fragment or blank in it; no host). The
            message does not repeat it: what stands in such an address may be a password.
    """
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        raise ValueError("is no http or https address") from None
    host = parts.hostname
    if parts.scheme not in _DEFAULT_PORTS or not host or any(char.isspace() or ord(char) < 32 for char in address):
        raise ValueError("is no http or https address")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError("must be an address without user, query or fragment")
    host = f"[{host}]" if ":" in host else host
    port_text = "" if port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{port}"
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{host}{port_text}{path}"


def canonical_all(addresses: Iterable[str]) -> tuple[str, ...]:
    """Return the addresses, each canonical and once, in order.

    Raises:
        ValueError: one of them cannot be used.
    """
    return tuple(dict.fromkeys(canonical(address) for address in addresses))


def usable_key(key: str) -> bool:
    """Return whether an API key can be sent in a header; an empty one is none, and is not sent."""
    return key.isascii() and key.isprintable() and " " not in key


def address_id(address: str) -> str:
    """Return a short name of a canonical address for paths: 12 hexadecimal digits."""
    return hashlib.sha256(address.encode()).hexdigest()[:12]


def to_segment(addresses: Iterable[str]) -> str:
    """Return named servers as one segment of a path; the same servers in another order give the same segment."""
    told = "\n".join(sorted(canonical_all(addresses)))
    return base64.urlsafe_b64encode(told.encode()).decode().rstrip("=")


def from_segment(segment: str) -> frozenset[str]:
    """Return the servers that a segment names.

    Raises:
        ValueError: `to_segment` did not make it.
    """
    try:
        told = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)).decode()
    except (binascii.Error, UnicodeError):
        raise ValueError("names no servers") from None
    return frozenset(canonical_all(told.split("\n")))
