"""What kind of place an IP address is.  A table of our own: Python's differs by patch level.

After the IANA special-purpose registries (RFC 6890 and its updates).  For IPv6 the table is turned
round: only 2000::/3 is public, less what is set aside within it.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from .url import Address, unmapped

__all__ = ["METADATA", "NEVER", "PUBLIC", "Network", "classify", "parse_address"]

Network = IPv4Network | IPv6Network

PUBLIC: Final = "public"

NEVER: Final = frozenset(
    {
        "unspecified",
        "multicast",
        "broadcast",
        "ipv4-compatible",
        "ipv4-translated",
        "nat64",
        "6to4",
        "teredo",
        "isatap",
    }
)
"""Classes that no rule opens: not one host, or an IPv4 address in disguise, which a rule for the
IPv6 form would let past the rules for IPv4 (NET-05)."""

METADATA: Final = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
    )
)
"""Where clouds hand credentials to whoever asks.  A rule opens one only by naming just it."""

# First match wins.
_V4: Final = tuple(
    (IPv4Network(net), word)
    for net, word in (
        ("255.255.255.255/32", "broadcast"),
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "6to4"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_V6: Final = tuple(
    (IPv6Network(net), word)
    for net, word in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::/96", "ipv4-compatible"),
        ("::ffff:0:0:0/96", "ipv4-translated"),
        ("64:ff9b::/96", "nat64"),
        ("64:ff9b:1::/48", "nat64"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
        ("2001::/32", "teredo"),
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("3fff::/20", "documentation"),
    )
)
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")


def parse_address(text: str) -> Address:
    """The address that a resolver's answer names; an IPv4-mapped one is the IPv4 address.

    Raises:
        ValueError: it is none.
    """
    # A zone is a way to a link, not part of the address; link-local is refused by class anyway.
    return unmapped(ip_address(text.partition("%")[0]))


def classify(address: Address) -> str:
    """`public`, or the word for why the address is not."""
    address = unmapped(address)
    if address in METADATA:
        return "metadata"
    if isinstance(address, IPv4Address):
        return next((word for net, word in _V4 if address in net), PUBLIC)
    word = next((word for net, word in _V6 if address in net), None)
    if word is not None:
        return word
    if _is_isatap(address):
        return "isatap"
    return PUBLIC if address in _GLOBAL_UNICAST else "reserved"


def _is_isatap(address: IPv6Address) -> bool:
    """RFC 5214: an interface id of `0000:5efe` or `0200:5efe` and an IPv4 address."""
    return (int(address) >> 32) & 0xFDFF_FFFF == 0x0000_5EFE
