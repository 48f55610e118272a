"""Origins: one spelling of each, so that "the same origin" is `==` (SEC-05, SEC-09)."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

__all__ = ["canonical_origin"]

_ORIGIN: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::(?P<port>[1-9][0-9]{0,4}))?",
    re.ASCII | re.IGNORECASE,
)
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMERIC: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_DEFAULT_PORT: Final = {"https": 443, "http": 80}
_LOOPBACK: Final = ("127.0.0.1", "[::1]")


def canonical_origin(text: str) -> str:
    """The one spelling of an origin: `https://host` or `https://host:port`.

    A secret goes over TLS, or nowhere: plain `http:` is for this very machine, written as an
    address.  No wildcard, no path, no user, no name in Unicode (write its punycode), no address
    in any but its usual form.

    Raises:
        ValueError: it is none; says what would be one.
    """
    found = _ORIGIN.fullmatch(text)
    if found is None:
        raise ValueError(
            "not an exact origin: write https://host or https://host:port, without user, path,"
            " wildcard or trailing slash; a name in Unicode as punycode"
        )
    scheme, host = found["scheme"].lower(), _host(found["host"].lower())
    port = int(found["port"] or _DEFAULT_PORT[scheme])
    if port > 65535:
        raise ValueError("a port is at most 65535")
    if scheme == "http" and host not in _LOOPBACK:
        raise ValueError("a secret goes over https; http is only for 127.0.0.1 and [::1]")
    return f"{scheme}://{host}" + ("" if port == _DEFAULT_PORT[scheme] else f":{port}")


def _host(host: str) -> str:
    try:
        if host.startswith("["):
            return f"[{IPv6Address(host[1:-1]).compressed}]"
        if _NUMERIC.fullmatch(host.rpartition(".")[2]):
            # What a resolver may take for an address must be one in its usual form (NET-01).
            return str(IPv4Address(host))
    except AddressValueError:
        raise ValueError("not an address in its usual form") from None
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise ValueError("not a host name; labels of letters, digits and hyphens, no final dot")
    return host
