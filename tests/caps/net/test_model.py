"""The rules of the network: words, laws, decisions."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capwasm.capability import Risk
from capwasm.caps.net import Net, NetClause, NetOperation
from capwasm.caps.net.model import ALL_METHODS
from capwasm.caps.net.parse import parse_net
from capwasm.lattice import ClauseSet

from .strategies import ADDRESSES, net_clauses, net_operations


def one(allow: str, side: Any = "policy", **words: Any) -> NetClause:
    parsed = parse_net([{"allow": allow, **words}], side)
    assert not parsed.faults, parsed.faults
    return parsed.clauses[0]


def op(url: str, method: str = "GET") -> NetOperation:
    from capwasm.caps.net.url import parse_url

    u = parse_url(url)
    return NetOperation(u.scheme, u.host, u.port, u.path, method)


# -- words ---------------------------------------------------------------------------------------


@pytest.mark.case("MAN-11", "NET-17")
@pytest.mark.parametrize(
    ("allow", "hint"),
    [
        ("*", "*.example.com"),
        ("https://*", "*.example.com"),
        ("*.com", "*.example.com"),
        ("*foo", "whole first label"),
        ("*foo.com", "whole first label"),
        ("a.*.com", "whole first label"),
        ("*.*.com", "whole first label"),
        ("10.0.0.0/0", "too wide"),
        ("0.0.0.0/0", "too wide"),
        ("[::]/0", "too wide"),
        ("[fd00::]/8", "too wide"),
        ("10.0.0.0/7", "too wide"),
        ("10.1.0.5/16", "write 10.1.0.0/16"),
        ("[fd12::5/32]", "write fd12::/32"),
        ("127.1", "four plain decimal"),
        ("0x7f000001", "four plain decimal"),
        ("127.0.0.1/33", "not a network"),
        ("127.0.0.1/08", "not a network"),
        ("169.254.0.0/16", "metadata"),
        ("100.64.0.0/10", "metadata"),
        ("[fd00:ec2::/32]", "metadata"),
        ("[2002::/16]", "6to4"),
        ("[64:ff9b::/96]", "nat64"),
        ("224.0.0.0/8", "multicast"),
        ("[::ffff:10.0.0.0/104]", "IPv4 network itself"),
        ("*.10.0.0.1", "10.1.0.0/16"),
        ("user@a.com", "user names"),
        ("user:pw@a.com", "user names"),
        ("a.com?x=1", "'?'"),
        ("a.com/#x", "'#'"),
        ("a.com\\x", "backslash"),
        ("a .com", "space"),
        ("a.com:080", "1 to 65535"),
        ("a.com:0", "1 to 65535"),
        ("a.com:65616", "1 to 65535"),
        ("a.com:８０", "1 to 65535"),
        ("a.com:", "1 to 65535"),
        ("a.com:90-80", "lower"),
        ("a.com:*", "1 to 65535"),
        ("ftp://a.com", "https or http"),
        ("file:///etc", "https or http"),
        ("a.com/v1*", "/v1/*"),
        ("a.com/*/x", "/v1/*"),
        ("a.com/v1/../x", "write /x"),
        ("a.com/%2e%2e/x", "write /x"),
        ("a.com/v1/..%2fx", "dot segment"),
        ("BÜcher.de", "xn--bcher-kva.de"),
        ("ｇood.com", "good.com"),
        ("xn--a.com", "punycode"),
        ("a_b.com", "letters, digits"),
        ("[::1]evil.com", "port and a path"),
        ("[internal]", "no IPv6"),
        ("", ""),
    ],
)
def test_refuses_a_rule_and_says_what_to_write(allow: str, hint: str) -> None:
    for side in ("manifest", "policy", "consent"):
        parsed = parse_net([{"allow": "a.com"}, {"allow": allow}], side)  # type: ignore[arg-type]
        assert parsed.clauses == ()
        assert [f.path for f in parsed.faults] == ["[1].allow"]
        assert hint in parsed.faults[0].message


@pytest.mark.parametrize(
    ("allow", "pattern"),
    [
        ("https://api.acme.com:443/v1/*", "https://api.acme.com/v1/*"),
        ("api.acme.com", "https://api.acme.com"),
        ("API.Acme.COM.", "https://api.acme.com"),
        ("bücher.de", "https://xn--bcher-kva.de"),
        ("http://a.com:80", "http://a.com"),
        ("http://a.com:443", "http://a.com:443"),
        ("*.acme.com:8000-8010/x", "https://*.acme.com:8000-8010/x"),
        ("a.com/*", "https://a.com"),
        ("a.com/", "https://a.com/"),
        ("https://10.1.0.0/16:8443", "https://10.1.0.0/16:8443"),
        ("https://10.1.2.3", "https://10.1.2.3"),
        ("10.1.2.3/32/16", "https://10.1.2.3/32/16"),
        ("[::1]:8443/v1/*", "https://[::1]:8443/v1/*"),
        ("[fd12:3456::/32]", "https://[fd12:3456::/32]"),
        ("[fd12::]/32", "https://[fd12::/32]"),
        ("[::ffff:10.1.2.3]", "https://10.1.2.3"),
        ("169.254.169.254/32", "https://169.254.169.254"),
        ("localhost", "https://localhost"),
    ],
)
def test_allows_a_rule_in_one_canonical_form(allow: str, pattern: str) -> None:
    clause = one(allow)
    assert clause.pattern == pattern
    assert one(pattern) == clause


def test_tells_all_faults_at_once() -> None:
    parsed = parse_net(
        [{"allow": "ftp://*:0/../", "methods": ["get"], "addresses": ["x", "10.0.0.0/0"]}, {}],
        "policy",
    )
    text = "\n".join(map(str, parsed.faults))
    assert {f.path for f in parsed.faults} == {
        "[0].allow",
        "[0].methods",
        "[0].addresses",
        "[1].allow",
    }
    for part in (
        "https or http",
        "every host",
        "1 to 65535",
        "valid: DELETE",
        "too wide",
        "not a network",
    ):
        assert part in text


@pytest.mark.parametrize(
    "methods", [[], ["get"], ["CONNECT"], ["TRACE"], ["*", "GET"], ["GET\r\n"]]
)
def test_refuses_unknown_methods(methods: list[str]) -> None:
    assert parse_net([{"allow": "a.com", "methods": methods}], "policy").faults


def test_a_rule_without_methods_allows_only_reading() -> None:
    assert one("a.com").methods == {"GET", "HEAD"}
    assert one("a.com", methods=["*"]).methods == ALL_METHODS


@pytest.mark.parametrize("side", ["manifest", "policy", "consent"])
def test_refuses_words_it_does_not_know(side: Any) -> None:
    faults = parse_net([{"allow": "a.com", "host": "b.com"}], side).faults
    assert "valid: addresses, allow, methods" in faults[0].message


# -- decisions -----------------------------------------------------------------------------------


@pytest.mark.case("NET-16")
@pytest.mark.parametrize(
    ("rule", "url", "allowed"),
    [
        ("*.example.com", "https://a.example.com/", True),
        ("*.example.com", "https://a.b.example.com/", True),
        ("*.example.com", "https://example.com/", False),
        ("*.example.com", "https://evilexample.com/", False),
        ("*.example.com", "https://example.com.evil.com/", False),
        ("*.example.com", "https://a.example.com.evil.com/", False),
        ("*.example.com", "https://10.0.0.1/", False),
        ("example.com", "https://example.com/", True),
        ("example.com", "https://a.example.com/", False),
        ("example.com", "http://example.com/", False),
        ("http://example.com", "https://example.com/", False),
        ("example.com", "https://example.com:444/", False),
        ("example.com:440-450", "https://example.com:444/", True),
        ("example.com:440-450", "https://example.com:451/", False),
        ("example.com/v1/*", "https://example.com/v1/x", True),
        ("example.com/v1/*", "https://example.com/v1/", True),
        ("example.com/v1/*", "https://example.com/v1", False),
        ("example.com/v1/*", "https://example.com/v10/x", False),
        ("example.com/v1/*", "https://example.com/v1/../admin", False),
        ("example.com/v1/*", "https://example.com/v1/%2e%2e/admin", False),
        ("example.com/v1/*", "https://example.com/V1/x", False),
        ("example.com/v1", "https://example.com/v1", True),
        ("example.com/v1", "https://example.com/v1/x", False),
        ("10.1.0.0/16", "https://10.1.255.255/", True),
        ("10.1.0.0/16", "https://[::ffff:10.1.2.3]/", True),
        ("10.1.0.0/16", "https://10.2.0.0/", False),
        ("10.1.0.0/16", "https://[::10.1.0.1]/", False),
        ("[fd12::/32]", "https://[fd12::1]/", True),
        ("[fd12::/32]", "https://[fd13::1]/", False),
    ],
)
def test_a_rule_allows_just_what_it_says(rule: str, url: str, allowed: bool) -> None:
    assert one(rule).allows(op(url)) is allowed


def test_allows_the_methods_named_and_refuses_others() -> None:
    clause = one("a.com", methods=["POST"])
    assert clause.allows(op("https://a.com/", "POST"))
    assert not clause.allows(op("https://a.com/", "GET"))


@pytest.mark.case("NET-06", "NET-07")
def test_a_name_leads_to_public_addresses_and_those_named() -> None:
    public, wider = one("a.com"), one("a.com", addresses=["10.1.0.0/16"])
    for clause in (public, wider):
        assert clause.allows_address(ip_address("8.8.8.8"))
        assert not clause.allows_address(ip_address("10.2.0.1"))
        assert not clause.allows_address(ip_address("127.0.0.1"))
    assert wider.allows_address(ip_address("10.1.0.1"))
    assert not public.allows_address(ip_address("10.1.0.1"))


def test_a_manifest_is_silent_about_addresses_and_the_policy_speaks() -> None:
    asked = one("a.com", side="manifest")
    public, inner = one("a.com"), one("a.com", addresses=["10.1.0.0/16"])
    assert asked.satisfied_by(public)
    for given_, private in ((public, False), (inner, True)):
        met = asked.meet(given_)
        assert met is not None
        assert met.allows_address(ip_address("10.1.0.1")) is private
        assert met.names_address(ip_address("10.1.0.1")) is private
    assert not asked.names_address(ip_address("10.1.0.1"))
    assert not one("a.com", side="manifest", addresses=["10.0.0.0/8"]).satisfied_by(inner)


@pytest.mark.parametrize(
    ("a", "b", "met"),
    [
        ("*.a.com", "*.b.a.com", "https://*.b.a.com"),
        ("*.a.com", "x.a.com", "https://x.a.com"),
        ("*.a.com", "a.com", None),
        ("10.0.0.0/8", "10.1.0.0/16", "https://10.1.0.0/16"),
        ("10.0.0.0/8", "*.a.com", None),
        ("a.com:1-100", "a.com:50-200", "https://a.com:50-100"),
        ("a.com:1-10", "a.com:11", None),
        ("a.com/v1/*", "a.com/v1/x/*", "https://a.com/v1/x/*"),
        ("a.com/v1/*", "a.com/v1/x", "https://a.com/v1/x"),
        ("a.com/v1/*", "a.com/v2/*", None),
        ("a.com/v1", "a.com", "https://a.com/v1"),
        ("http://a.com", "https://a.com", None),
    ],
)
def test_meets(a: str, b: str, met: str | None) -> None:
    found = one(a).meet(one(b))
    assert (found and found.pattern) == met


def test_meets_share_no_method() -> None:
    assert one("a.com", methods=["GET"]).meet(one("a.com", methods=["POST"])) is None


# -- laws ----------------------------------------------------------------------------------------


@given(net_clauses(), net_clauses(), net_clauses())
@settings(max_examples=400, deadline=None)
def test_the_meet_is_commutative_associative_and_idempotent(
    a: NetClause, b: NetClause, c: NetClause
) -> None:
    assert a.meet(b) == b.meet(a)
    assert a.meet(a) == a
    ab, bc = a.meet(b), b.meet(c)
    assert (ab and ab.meet(c)) == (bc and a.meet(bc))


@given(net_clauses(), net_clauses())
@settings(max_examples=400, deadline=None)
def test_the_meet_is_the_largest_within_both(a: NetClause, b: NetClause) -> None:
    met = a.meet(b)
    assert a.within(b) == (met == a)
    if met is not None:
        assert met.within(a)
        assert met.within(b)
        assert a.satisfied_by(a)
    if a.within(b):
        assert a.satisfied_by(b)
        assert (a == b) == b.within(a)


@given(net_clauses(), net_clauses(), net_operations(), st.sampled_from(ADDRESSES))
@settings(max_examples=600, deadline=None)
def test_a_grant_never_exceeds_either_side(
    a: NetClause, b: NetClause, operation: NetOperation, address: Any
) -> None:
    met = a.meet(b)
    both = a.allows(operation) and b.allows(operation)
    assert (met is not None and met.allows(operation)) == both
    if met is not None and met.allows_address(address):
        assert a.allows_address(address)
        assert b.allows_address(address)


@given(st.lists(net_clauses(), max_size=4), st.lists(net_clauses(), max_size=4))
@settings(max_examples=150, deadline=None)
def test_sets_of_clauses_meet_alike_both_ways(a: list[NetClause], b: list[NetClause]) -> None:
    x, y = ClauseSet.of(a), ClauseSet.of(b)
    assert x.meet(y) == y.meet(x)
    assert x.meet(y).within(x)


@given(net_clauses())
@settings(max_examples=300, deadline=None)
def test_a_clause_survives_its_own_words(clause: NetClause) -> None:
    for side in ("manifest", "consent"):
        parsed = Net().parse([clause.to_toml()], side)  # type: ignore[arg-type]
        assert parsed.clauses == (clause,), parsed.faults
    assert clause.describe().startswith("send ")


# -- the capability ------------------------------------------------------------------------------


def test_is_always_of_high_risk() -> None:
    net = Net()
    for rule in ("a.com", "*.a.com", "http://a.com", "10.1.0.0/16"):
        risk, why = net.risk(one(rule))
        assert risk is Risk.HIGH
        assert why
    assert "TLS" in net.risk(one("http://a.com"))[1]


def test_its_schema_names_every_word() -> None:
    assert set(Net().schema("policy")["properties"]) == {"allow", "methods", "addresses"}
