"""Who sends a request. The one place that decides it: work is shared out between callers.

Today the caller is the address at the other end of the connection. The host puts what a proxy says in its place only
for proxies that the settings name (`trusted_proxies`); from anybody else `X-Forwarded-For` is only text. An API key,
once there are any, names its caller here, before the address does.

The name stays in the store while its caller has work under way; it is no part of any answer or log line.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.requests import Request

#: Bits of an IPv6 address that belong to one customer: whoever has 2^64 addresses must not be as many callers.
_IPV6_NETWORK = 64


def caller_of(request: Request) -> str:
    """Return the name under which the caller's work is counted."""
    host = request.client.host if request.client else ""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        # A Unix socket has no address, and a trusted proxy may give a name.
        return f"host {host}"
    return f"address {_network(address)}"


def _network(address: IPv4Address | IPv6Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> (128 - _IPV6_NETWORK) << (128 - _IPV6_NETWORK)))
