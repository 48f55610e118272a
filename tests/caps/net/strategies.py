"""Clauses that often overlap, so that meets are rarely empty."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import strategies as st

from capwasm.caps.net.model import ALL_METHODS, NetClause, NetOperation
from capwasm.caps.net.pattern import (
    ANY_ADDRESS,
    ANY_PATH,
    ExactName,
    HostPattern,
    PathPattern,
    Subdomains,
)

__all__ = ["NAMES", "net_clauses", "net_operations"]

NAMES = ("a.com", "b.a.com", "c.b.a.com", "evila.com", "a.com.evil.org", "d.org")
NETWORKS = [
    ip_network(n)
    for n in (
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.0/24",
        "10.1.2.3/32",
        "127.0.0.0/8",
        "fd12::/32",
        "fd12::1/128",
    )
]
ADDRESSES = [ip_address(a) for a in ("10.1.2.3", "10.9.9.9", "127.0.0.1", "8.8.8.8", "fd12::1")]
PATHS = ("/", "/v1/x", "/v1/x/y", "/v2", "/v1/")

_hosts: st.SearchStrategy[HostPattern] = (
    st.sampled_from(NAMES).map(ExactName)
    | st.sampled_from(("a.com", "b.a.com", "evil.org")).map(Subdomains)
    | st.sampled_from(NETWORKS)
)
_ports = st.sampled_from([(443, 443), (1, 65535), (8000, 8010), (8005, 9000), (80, 80)])
_paths = st.sampled_from(
    [
        ANY_PATH,
        PathPattern("/"),
        PathPattern("/v1/", prefix=True),
        PathPattern("/v1/x/", prefix=True),
        PathPattern("/v1/x"),
        PathPattern("/v1/"),
    ]
)
_methods = st.frozensets(st.sampled_from(sorted(ALL_METHODS)), min_size=1)
_addresses = st.just(ANY_ADDRESS) | st.frozensets(st.sampled_from(NETWORKS), max_size=3)


def net_clauses() -> st.SearchStrategy[NetClause]:
    """Any clause."""
    return st.builds(
        NetClause, st.sampled_from(("http", "https")), _hosts, _ports, _paths, _methods, _addresses
    )


def net_operations() -> st.SearchStrategy[NetOperation]:
    """Any operation, near the clauses."""
    return st.builds(
        NetOperation,
        st.sampled_from(("http", "https")),
        st.sampled_from([*NAMES, *ADDRESSES]),
        st.sampled_from((80, 443, 8000, 8005, 8010, 8011)),
        st.sampled_from(PATHS),
        st.sampled_from(sorted(ALL_METHODS)),
    )
