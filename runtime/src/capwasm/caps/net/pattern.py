"""The parts of a rule for the network, each with its meet: hosts, addresses and paths.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import Final

from .address import Network
from .url import Address, Host

__all__ = [
    "ANY_ADDRESS",
    "ANY_PATH",
    "ExactName",
    "HostPattern",
    "PathPattern",
    "Subdomains",
    "host_matches",
    "host_meet",
    "host_within",
    "in_networks",
    "networks_meet",
    "networks_of",
    "networks_within",
    "pattern_text",
]


@dataclass(frozen=True, slots=True)
class ExactName:
    """One name and nothing below it."""

    name: str


@dataclass(frozen=True, slots=True)
class Subdomains:
    """All names below `suffix`, at any depth, and not `suffix` itself (NET-16)."""

    suffix: str

    def holds(self, name: str) -> bool:
        """Whether `name` lies below the suffix, label by label."""
        return name.endswith(f".{self.suffix}")


HostPattern = ExactName | Subdomains | IPv4Network | IPv6Network


def host_matches(pattern: HostPattern, host: Host) -> bool:
    """Whether a rule for `pattern` speaks of `host`.  Names and addresses never match each other."""
    if isinstance(pattern, ExactName):
        return host == pattern.name
    if isinstance(pattern, Subdomains):
        return isinstance(host, str) and pattern.holds(host)
    return not isinstance(host, str) and host in pattern


def host_within(inner: HostPattern, outer: HostPattern) -> bool:
    """Whether `outer` holds every host that `inner` holds."""
    if isinstance(outer, Subdomains):
        name = inner.name if isinstance(inner, ExactName) else ""
        if isinstance(inner, Subdomains):
            return inner == outer or outer.holds(inner.suffix)
        return outer.holds(name)
    if isinstance(inner, Network) and isinstance(outer, Network):
        return _subnet(inner, outer)
    return inner == outer


def host_meet(a: HostPattern, b: HostPattern) -> HostPattern | None:
    """The hosts of both: of two patterns, one lies within the other or they share nothing."""
    if host_within(a, b):
        return a
    return b if host_within(b, a) else None


def pattern_text(pattern: HostPattern) -> str:
    """The pattern as a rule spells it."""
    if isinstance(pattern, ExactName):
        return pattern.name
    if isinstance(pattern, Subdomains):
        return f"*.{pattern.suffix}"
    return f"[{pattern}]" if isinstance(pattern, IPv6Network) else str(pattern)


# -- networks ------------------------------------------------------------------------------------

ANY_ADDRESS: Final[frozenset[Network]] = frozenset({IPv4Network("0.0.0.0/0"), IPv6Network("::/0")})
"""What a manifest asks when it says nothing of addresses: whatever the policy gives."""


def _subnet(inner: Network, outer: Network) -> bool:
    return (
        inner.version == outer.version
        and inner.prefixlen >= outer.prefixlen
        and inner.network_address in outer
    )


def networks_of(networks: Iterable[Network]) -> frozenset[Network]:
    """The same addresses in the fewest networks, so that equal sets are equal."""
    nets = list(networks)
    return frozenset(
        [
            *collapse_addresses(n for n in nets if isinstance(n, IPv4Network)),
            *collapse_addresses(n for n in nets if isinstance(n, IPv6Network)),
        ]
    )


def networks_meet(a: frozenset[Network], b: frozenset[Network]) -> frozenset[Network]:
    """The addresses of both."""
    return networks_of(
        x if _subnet(x, y) else y for x in a for y in b if _subnet(x, y) or _subnet(y, x)
    )


def networks_within(a: frozenset[Network], b: frozenset[Network]) -> bool:
    """Whether `b` holds every address of `a`.  Both must be in the form of `networks_of`."""
    return all(any(_subnet(x, y) for y in b) for x in a)


def in_networks(address: Address, networks: Iterable[Network]) -> bool:
    """Whether one of the networks holds the address."""
    return any(address in net for net in networks)


# -- paths ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PathPattern:
    """One path, or all that begin with one that ends in `/`.

    Attributes:
        text: canonical, as `url.canonical_path` makes it; of a prefix, up to and with its last `/`.
        prefix: whether what follows is left open.
    """

    text: str
    prefix: bool = False

    def matches(self, path: str) -> bool:
        """Whether a canonical path is the one, or begins with the prefix."""
        return path.startswith(self.text) if self.prefix else path == self.text

    def within(self, other: PathPattern) -> bool:
        """Whether `other` matches every path that this one does."""
        return other.matches(self.text) if other.prefix else self == other

    def meet(self, other: PathPattern) -> PathPattern | None:
        """The paths of both."""
        if self.within(other):
            return self
        return other if other.within(self) else None

    def __str__(self) -> str:
        """As a rule spells it: nothing for all paths."""
        if self == ANY_PATH:
            return ""
        return f"{self.text}*" if self.prefix else self.text


ANY_PATH: Final = PathPattern("/", prefix=True)
