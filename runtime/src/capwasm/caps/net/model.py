"""Which requests a plugin may send: one box of them a clause.  Pure.

[[net]]
allow = "https://api.acme.com/v1/*"     # scheme, host, ports and path
methods = ["GET"]                       # GET and HEAD if left out; ["*"] for all
addresses = ["10.1.0.0/16"]             # where the name may lead besides public addresses
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Self

from capwasm.lattice import Clause, ClauseSet

from .address import NEVER, PUBLIC, Network, classify
from .pattern import (
    ANY_ADDRESS,
    ANY_PATH,
    ExactName,
    HostPattern,
    PathPattern,
    Subdomains,
    host_matches,
    host_meet,
    host_within,
    in_networks,
    networks_meet,
    networks_of,
    networks_within,
    pattern_text,
)
from .url import DEFAULT_PORTS, Address, Host, lax_paths

__all__ = ["ALL_METHODS", "SAFE_METHODS", "NetClause", "NetOperation", "is_denied"]

ALL_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SAFE_METHODS: Final = frozenset({"GET", "HEAD"})

_ORDER: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@dataclass(frozen=True, slots=True)
class NetOperation:
    """One hop of a request, in canonical parts (see `url`)."""

    scheme: str
    host: Host
    port: int
    path: str
    method: str


@dataclass(frozen=True, slots=True)
class NetClause(Clause):
    """Requests to one kind of origin, path and method.

    Attributes:
        scheme: `https` or `http`; one never stands for the other.
        host: a name, the names below one, or a network of addresses.
        ports: lowest and highest.
        path: which paths.
        methods: which methods; never empty.
        addresses: for names, the networks that they may lead into besides public addresses;
            `ANY_ADDRESS` leaves it to the other sides, and is no grant by itself.
    """

    scheme: str
    host: HostPattern
    ports: tuple[int, int]
    path: PathPattern = ANY_PATH
    methods: frozenset[str] = SAFE_METHODS
    addresses: frozenset[Network] = frozenset()

    def __post_init__(self) -> None:
        """Hold the canonical form, on which equality of clauses rests."""
        low, high = self.ports
        if self.scheme not in DEFAULT_PORTS or not 1 <= low <= high <= 65535:
            raise ValueError("no such scheme, or no such ports")
        if not self.methods or not self.methods <= ALL_METHODS:
            raise ValueError("methods must be some of ALL_METHODS")
        if isinstance(self.host, Network):
            object.__setattr__(self, "addresses", frozenset())
        else:
            object.__setattr__(self, "addresses", networks_of(self.addresses))

    # -- the lattice ---------------------------------------------------------------------------

    def meet(self, other: Self) -> Self | None:
        """The requests that both allow."""
        host = host_meet(self.host, other.host)
        path = self.path.meet(other.path)
        methods = self.methods & other.methods
        low, high = max(self.ports[0], other.ports[0]), min(self.ports[1], other.ports[1])
        if host is None or path is None or not methods or low > high:
            return None
        if self.scheme != other.scheme:
            return None
        nets = networks_meet(self.addresses, other.addresses)
        return type(self)(self.scheme, host, (low, high), path, methods, nets)

    def within(self, other: Self) -> bool:
        """Whether `other` allows every request, to every address, that this clause allows."""
        return self._asks_within(other) and networks_within(self.addresses, other.addresses)

    def satisfied_by(self, granted: Self) -> bool:
        """Whether `granted` allows every request asked for; where names lead is the policy's word."""
        if not self._asks_within(granted):
            return False
        return self.addresses == ANY_ADDRESS or networks_within(self.addresses, granted.addresses)

    def _asks_within(self, other: Self) -> bool:
        return (
            self.scheme == other.scheme
            and host_within(self.host, other.host)
            and other.ports[0] <= self.ports[0]
            and self.ports[1] <= other.ports[1]
            and self.path.within(other.path)
            and self.methods <= other.methods
        )

    # -- decisions -----------------------------------------------------------------------------

    def allows(self, op: NetOperation) -> bool:
        """Whether the clause speaks of this request.  Where its name leads is another question."""
        return (
            op.scheme == self.scheme
            and op.method in self.methods
            and self.ports[0] <= op.port <= self.ports[1]
            and host_matches(self.host, op.host)
            and self.path.matches(op.path)
        )

    def allows_address(self, address: Address) -> bool:
        """Whether a request that the clause allows may be sent to this address.

        A clause for names reaches public addresses and its `addresses`; one for a network reaches
        that network.  Some classes of address nothing opens (`address.NEVER`).
        """
        kind = classify(address)
        if kind in NEVER:
            return False
        if isinstance(self.host, Network):
            return address in self.host
        return kind == PUBLIC or in_networks(address, self.addresses)

    def names_address(self, address: Address) -> bool:
        """Whether the clause opens this address by a network that somebody wrote."""
        if isinstance(self.host, Network):
            return address in self.host
        return self.addresses != ANY_ADDRESS and in_networks(address, self.addresses)

    # -- words ---------------------------------------------------------------------------------

    @property
    def pattern(self) -> str:
        """The `allow` word: `https://api.acme.com/v1/*`, the port only if it is not the scheme's."""
        low, high = self.ports
        ports = "" if low == high == DEFAULT_PORTS[self.scheme] else f":{low}"
        if low != high:
            ports = f":{low}-{high}"
        host, path = pattern_text(self.host), str(self.path)
        # One address needs no length, where what follows can't be taken for one.
        if isinstance(self.host, Network) and self.host.num_addresses == 1 and (ports or not path):
            host = host.replace("/32", "").replace("/128", "")
        return f"{self.scheme}://{host}{ports}{path}"

    def describe(self) -> str:
        """One line for a person."""
        methods = "any method" if self.methods == ALL_METHODS else ", ".join(_sorted(self.methods))
        line = f"send {methods} to {self.pattern}"
        if isinstance(self.host, Subdomains):
            line += f" (every name below {self.host.suffix})"
        if self.addresses == ANY_ADDRESS or isinstance(self.host, Network):
            return line
        nets = ", ".join(sorted(map(str, self.addresses)))
        return f"{line}, also where the name leads into {nets}" if nets else line

    def to_toml(self) -> dict[str, Any]:
        """The table."""
        every = self.methods == ALL_METHODS
        table: dict[str, Any] = {
            "allow": self.pattern,
            "methods": ["*"] if every else _sorted(self.methods),
        }
        if isinstance(self.host, ExactName | Subdomains) and self.addresses != ANY_ADDRESS:
            table["addresses"] = sorted(map(str, self.addresses))
        return table


def _sorted(methods: frozenset[str]) -> list[str]:
    return [m for m in _ORDER if m in methods]


def is_denied(deny: ClauseSet[NetClause], op: NetOperation) -> bool:
    """Whether a denial speaks of it, or of what a lax server would make of it (`url.lax_paths`).

    What may not even be read may not be sent to: a denial of GET and HEAD, which is what one
    without methods means, is one of every method.
    """
    ops = [op, *(replace(op, path=path) for path in lax_paths(op.path))]

    def denies(clause: NetClause) -> bool:
        method = "GET" if clause.methods >= SAFE_METHODS else op.method
        return any(clause.allows(replace(o, method=method)) for o in ops)

    return deny.any(denies) is not None
