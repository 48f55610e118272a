"""Addresses: what is public, by a table of our own."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from capwasm.caps.net.address import NEVER, PUBLIC, classify, parse_address
from capwasm.caps.net.model import NetClause
from capwasm.caps.net.pattern import ANY_PATH, ExactName
from capwasm.caps.net.resolve import is_own_address


@pytest.mark.case("NET-04", "NET-05", "NET-06")
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("0.0.0.0", "unspecified"), ("0.1.2.3", "unspecified"), ("10.1.2.3", "private"),
        ("100.64.0.1", "shared"), ("100.127.255.255", "shared"), ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"), ("169.254.1.1", "link-local"), ("169.254.169.254", "metadata"),
        ("168.63.129.16", "metadata"), ("100.100.100.200", "metadata"), ("169.254.170.2", "metadata"),
        ("172.16.0.1", "private"), ("172.31.255.255", "private"), ("192.0.0.8", "reserved"),
        ("192.0.0.192", "metadata"), ("192.0.2.1", "documentation"), ("192.88.99.1", "6to4"),
        ("192.168.0.1", "private"), ("198.18.0.1", "benchmarking"), ("198.51.100.1", "documentation"),
        ("203.0.113.1", "documentation"), ("224.0.0.1", "multicast"), ("239.255.255.255", "multicast"),
        ("240.0.0.1", "reserved"), ("255.255.255.255", "broadcast"),
        ("::", "unspecified"), ("::1", "loopback"), ("::7f00:1", "ipv4-compatible"),
        ("::ffff:127.0.0.1", "loopback"), ("::ffff:7f00:1", "loopback"), ("::ffff:a9fe:a9fe", "metadata"),
        ("::ffff:10.0.0.1", "private"), ("::ffff:0:7f00:1", "ipv4-translated"),
        ("64:ff9b::7f00:1", "nat64"), ("64:ff9b::808:808", "nat64"), ("64:ff9b:1::1", "nat64"),
        ("100::1", "reserved"), ("2001::1", "teredo"), ("2001:0:4136:e378::", "teredo"),
        ("2001:10::1", "reserved"), ("2001:20::1", "reserved"), ("2001:db8::1", "documentation"),
        ("2002:7f00:1::", "6to4"), ("2002:808:808::1", "6to4"), ("3fff::1", "documentation"),
        ("fc00::1", "private"), ("fd00::1", "private"), ("fd00:ec2::254", "metadata"),
        ("fe80::1", "link-local"), ("fec0::1", "site-local"), ("ff02::1", "multicast"),
        ("ff0e::1", "multicast"), ("4000::1", "reserved"), ("5f00::1", "reserved"),
        ("2606:4700::5efe:7f00:1", "isatap"), ("2606:4700::200:5efe:a00:1", "isatap"),
    ],
)  # fmt: skip
def test_refuses_addresses_that_are_not_public(text: str, kind: str) -> None:
    assert classify(ip_address(text)) == kind
    clause = NetClause("https", ExactName("a.com"), (443, 443), ANY_PATH)
    assert not clause.allows_address(parse_address(text))


@pytest.mark.case("NET-05", "NET-06")
@pytest.mark.parametrize(
    "text",
    [
        "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255",
        "128.0.0.0", "169.253.255.255", "172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0",
        "198.17.255.255", "198.20.0.0", "223.255.255.255", "::ffff:8.8.8.8",
        "2606:4700:4700::1111", "2a00:1450::1", "2001:4860:4860::8888", "2003::1", "2620:fe::fe",
    ],
)  # fmt: skip
def test_allows_public_addresses(text: str) -> None:
    assert classify(ip_address(text)) == PUBLIC
    clause = NetClause("https", ExactName("a.com"), (443, 443), ANY_PATH)
    assert clause.allows_address(parse_address(text))


@pytest.mark.case("NET-05")
def test_refuses_disguised_addresses_even_where_a_network_holds_them() -> None:
    everything = frozenset({ip_network("0.0.0.0/0"), ip_network("::/0")})
    clause = NetClause("https", ExactName("a.com"), (443, 443), addresses=everything)
    for text in (
        "64:ff9b::a00:1",
        "2002:a00:1::",
        "::a00:1",
        "2001::1",
        "224.0.0.1",
        "0.0.0.0",
        "ff02::1",
    ):
        assert classify(ip_address(text)) in NEVER
        assert not clause.allows_address(ip_address(text))
    assert clause.allows_address(ip_address("10.0.0.1"))


def test_reads_the_answers_of_resolvers() -> None:
    assert parse_address("fe80::1%eth0") == ip_address("fe80::1")
    assert parse_address("::ffff:10.0.0.1") == ip_address("10.0.0.1")
    for text in ("0x7f.1", "localhost", "", "1.2.3", "1.2.3.4/8"):
        with pytest.raises(ValueError):
            parse_address(text)


@pytest.mark.case("NET-06")
def test_knows_this_machine_s_own_addresses() -> None:
    assert is_own_address(ip_address("127.0.0.1"))
    assert not is_own_address(ip_address("8.8.8.8"))
    assert not is_own_address(ip_address("2606:4700:4700::1111"))
