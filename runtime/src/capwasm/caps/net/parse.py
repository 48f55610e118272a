"""From a `[[net]]` table to its clause; what is refused says what to write instead.  Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from capwasm._model import Model
from capwasm.capability import Parsed, Side
from capwasm.caps._tables import parse_tables

from .address import METADATA, NEVER, Network, classify
from .model import ALL_METHODS, SAFE_METHODS, NetClause
from .pattern import ANY_ADDRESS, ANY_PATH, ExactName, HostPattern, PathPattern, Subdomains
from .url import DEFAULT_PORTS, MAX_URL, UrlError, canonical_path, parse_host, parse_port, unmapped

__all__ = ["NetTable", "parse_net", "parse_pattern"]

MAX_ADDRESSES: Final = 64
# Wider than this is no rule but the lack of one.
_WIDEST: Final = {4: 8, 6: 16}

_UNFIT: Final = re.compile("[\x00-\x20\x7f-\xa0\\\\?#]")
_CIDR: Final = re.compile(r"(?:([0-9.]+)|\[([0-9A-Fa-f:.]+)\])/([0-9]+)(?=[:/]|$)")
_CIDR6: Final = re.compile(r"\[([0-9A-Fa-f:.]+)/([0-9]+)\]")
_PORTS: Final = re.compile(r"([0-9]+)-([0-9]+)")


def parse_pattern(text: str) -> tuple[str, HostPattern, tuple[int, int], PathPattern]:
    """Scheme, hosts, ports and paths of an `allow` word.

    Raises:
        ValueError: with every fault found, each with what to write instead.
    """
    if _UNFIT.search(text):
        raise ValueError(
            "holds a space, a control character, a backslash, a '?' or a '#': a rule is made of"
            " scheme, host, port and path, as in https://api.acme.com:443/v1/*"
        )
    scheme, mark, rest = text.partition("://")
    if not mark:
        scheme, rest = "https", text
    scheme = scheme.lower()
    faults: list[str] = []
    if scheme not in DEFAULT_PORTS:
        faults.append("the scheme must be https or http; it is https if left out")
    host, tail = _split_host(rest, faults)
    ports_text, slash, path_text = tail.partition("/")
    ports = _ports(ports_text, scheme, faults)
    path = _path(slash + path_text, faults)
    if faults or host is None:
        raise ValueError("; ".join(faults))
    return scheme, host, ports, path


# -- hosts ---------------------------------------------------------------------------------------


def _split_host(rest: str, faults: list[str]) -> tuple[HostPattern | None, str]:
    """The host pattern, and what follows it."""
    if "@" in rest.partition("/")[0]:
        faults.append("user names and passwords have no place in a rule")
        return None, ""
    found = _CIDR.match(rest) or _CIDR6.match(rest)
    if found:
        groups = [g for g in found.groups() if g is not None]
        return _network("/".join(groups), faults), rest[found.end() :]
    end = rest.find("]") + 1 if rest.startswith("[") else -1
    if end <= 0:
        end = min((rest.find(c) for c in ":/" if c in rest), default=len(rest))
    return _host(rest[:end], faults), rest[end:]


def _host(text: str, faults: list[str]) -> HostPattern | None:
    if "*" in text:
        return _subdomains(text, faults)
    try:
        host = parse_host(text)
        if not text.isascii() and not _is_canonical(text):
            raise UrlError(f"the host has another canonical form: write {host}")
    except UrlError as exc:
        faults.append(str(exc))
        return None
    if isinstance(host, str):
        return ExactName(host)
    return _network(f"{host}/{host.max_prefixlen}", faults)


def _subdomains(text: str, faults: list[str]) -> Subdomains | None:
    if text == "*":
        faults.append(
            "'*' would allow every host: name the host, or write *.example.com for the names below"
            " example.com"
        )
        return None
    star, _, suffix = text.partition(".")
    if star != "*" or "*" in suffix:
        faults.append("'*' may stand only as the whole first label, as in *.example.com")
        return None
    host = _host(suffix, faults)
    if isinstance(host, ExactName) and "." in host.name:
        return Subdomains(host.name)
    if isinstance(host, ExactName):
        faults.append(
            f"'*.{host.name}' would allow a whole top-level domain: write *.example.{host.name}"
        )
    elif host is not None:
        faults.append("'*' has no meaning before an address: write a network, as in 10.1.0.0/16")
    return None


def _is_canonical(text: str) -> bool:
    """Whether UTS #46 leaves a Unicode name as it stands, so that a reviewer saw what is meant."""
    import idna

    try:
        return str(idna.decode(idna.encode(text, strict=True))) == text
    except idna.IDNAError:
        return False


def _network(text: str, faults: list[str]) -> Network | None:
    """A network that may stand in a rule."""
    try:
        net = ip_network(text, strict=False)
        base, _, bits = text.partition("/")
        if str(int(bits)) != bits or (net.version == 4 and str(IPv4Address(base)) != base):
            raise ValueError
    except ValueError:
        faults.append("not a network: write such as 10.1.0.0/16 or [fd12:3456::/32]")
        return None
    if isinstance(net, IPv6Network) and net.network_address.ipv4_mapped is not None:
        faults.append("write the IPv4 network itself, not its IPv4-mapped form")
        return None
    if net.prefixlen < _WIDEST[net.version]:
        faults.append(
            f"{net} is too wide to be a rule: at least /{_WIDEST[net.version]}; name the networks"
        )
        return None
    if int(net.network_address) != int(ip_address(base)):
        one = f"{base}/{net.max_prefixlen}"
        faults.append(f"the address has bits below the prefix: write {net}, or {one} for one")
        return None
    single = net.num_addresses == 1
    kinds = {classify(unmapped(net[0])), classify(unmapped(net[-1]))}
    if kinds & NEVER:
        faults.append(f"{net} holds addresses that nothing may open ({min(kinds & NEVER)})")
        return None
    hidden = [a for a in METADATA if a in net]
    if hidden and not single:
        faults.append(
            f"{net} would open the cloud's metadata address {min(hidden, key=int)}, which gives"
            " credentials to whoever asks: write narrower networks"
        )
        return None
    return net


def _networks(texts: Sequence[str]) -> list[Network]:
    faults: list[str] = []
    nets = [_network(text.strip("[]"), faults) for text in texts]
    if faults:
        raise ValueError("; ".join(faults))
    return [net for net in nets if net is not None]


# -- ports, paths, methods -----------------------------------------------------------------------


def _ports(text: str, scheme: str, faults: list[str]) -> tuple[int, int]:
    if not text:
        port = DEFAULT_PORTS.get(scheme, 443)
        return port, port
    found = _PORTS.fullmatch(text[1:])
    try:
        if not text.startswith(":"):
            raise UrlError("after the host may follow only a port and a path")
        low, high = (found[1], found[2]) if found else (text[1:], text[1:])
        ports = parse_port(low), parse_port(high)
        if ports[0] > ports[1]:
            raise UrlError("the range of ports must begin with the lower")
    except UrlError as exc:
        faults.append(str(exc))
        return 1, 1
    return ports


def _path(text: str, faults: list[str]) -> PathPattern:
    if not text:
        return ANY_PATH
    fixed, prefix = text.removesuffix("*"), text.endswith("*")
    try:
        if "*" in fixed or (prefix and not fixed.endswith("/")):
            raise UrlError("'*' in a path may stand only as its whole last part, as in /v1/*")
        path = canonical_path(fixed)
        if path.count("/") != fixed.count("/"):
            raise UrlError(f"the path has another canonical form: write {path}")
    except UrlError as exc:
        faults.append(str(exc))
        return ANY_PATH
    return PathPattern(path, prefix=prefix)


def _methods(words: Sequence[str]) -> frozenset[str]:
    if tuple(words) == ("*",):
        return ALL_METHODS
    unknown = sorted(set(words) - ALL_METHODS)
    if unknown:
        valid = ", ".join(sorted(ALL_METHODS))
        raise ValueError(f'unknown method; valid: {valid}, or ["*"] alone for all')
    return frozenset(words)


# -- tables --------------------------------------------------------------------------------------


def _checked_by(parse: Callable[[Any], object]) -> Callable[[Any], Any]:
    """A validator that keeps the words as written once `parse` takes them."""

    def check(words: Any) -> Any:
        parse(words)
        return words

    return check


class NetTable(Model):
    """A `[[net]]` table, the same on each side."""

    allow: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_URL,
            description="Where to: https://api.acme.com/v1/*, https://*.acme.com:8443,"
            " https://10.1.0.0/16:8443.",
        ),
        AfterValidator(_checked_by(parse_pattern)),
    ]
    methods: Annotated[
        tuple[str, ...],
        Field(min_length=1, max_length=16, description='GET and HEAD; ["*"] is every method.'),
        AfterValidator(_checked_by(_methods)),
    ] = tuple(sorted(SAFE_METHODS))
    addresses: Annotated[
        tuple[str, ...] | None,
        Field(
            max_length=MAX_ADDRESSES,
            description="Networks that the name may lead into besides public addresses.",
        ),
        AfterValidator(_checked_by(lambda nets: _networks(nets or ()))),
    ] = None


def parse_net(tables: Sequence[Mapping[str, Any]], side: Side) -> Parsed[NetClause]:
    """The clauses of these tables, or all their faults.

    A manifest that is silent about addresses takes what the policy gives; a policy that is silent
    gives public ones alone.
    """
    silent: frozenset[Network] = frozenset() if side == "policy" else ANY_ADDRESS

    def clause(table: NetTable) -> list[NetClause]:
        scheme, host, ports, path = parse_pattern(table.allow)
        nets = silent if table.addresses is None else frozenset(_networks(table.addresses))
        return [NetClause(scheme, host, ports, path, _methods(table.methods), nets)]

    return parse_tables(tables, NetTable, clause, repeated=True)
