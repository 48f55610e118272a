"""URLs: one canonical form, and nothing that two parsers read differently."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capwasm.caps.net.url import UrlError, join_url, parse_host, parse_port, parse_url


@pytest.mark.case("NET-01")
@pytest.mark.parametrize(
    "host",
    [
        "0x7f.1", "127.1", "2130706433", "0177.0.0.1", "017700000001", "0", "0x7f000001", "127.0.1",
        "0x7f.0x0.0x0.0x1", "127.0.0.01", "127.0.0.1.1", "256.0.0.1", "1.2.3.4.", "0x", "a.0x7f",
        "a.1", "1.2.3.0x4", "00.0.0.0", "127.0.0.1..", "127..1", "4294967295", "1e3.1",
    ],
)  # fmt: skip
def test_refuses_an_address_in_an_odd_spelling(host: str) -> None:
    if host == "1.2.3.4.":  # the root's dot is dropped, and the plain spelling is left
        assert parse_host(host) == ip_address("1.2.3.4")
        return
    with pytest.raises(UrlError):
        parse_url(f"http://{host}/")


@pytest.mark.case("NET-01")
@pytest.mark.parametrize("host", ["127.0.0.1", "8.8.8.8", "255.255.255.255"])
def test_allows_an_address_in_its_one_spelling(host: str) -> None:
    assert parse_url(f"http://{host}/").host == ip_address(host)


@pytest.mark.case("NET-02")
@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("①②⑦.⓪.⓪.①", ip_address("127.0.0.1")),
        ("127。0。0。1", ip_address("127.0.0.1")),
        ("１２７.0.0.1", ip_address("127.0.0.1")),
        ("ｅvil.com", "evil.com"),
        ("exam\u00adple.com", "example.com"),
        ("ⅽom.example", "com.example"),
    ],
)
def test_normalises_look_alikes_before_anything_is_matched(text: str, host: object) -> None:
    assert parse_url(f"https://{text}/").host == host


@pytest.mark.case("NET-02")
@pytest.mark.parametrize(
    "text", ["１.１", "０x7f.1", "２１３０７０６４３３", "a／b.com", "a％2e.com", "a．．b"]
)
def test_refuses_look_alikes_of_odd_spellings(text: str) -> None:
    with pytest.raises(UrlError):
        parse_url(f"https://{text}/")


@pytest.mark.case("NET-03", "NET-14", "NET-18")
@pytest.mark.parametrize(
    "url",
    [
        "http://localhost\0.example.com/", " http://a.com/", "http://a.com/ ", "\thttp://a.com/",
        "http://good.com\t.evil.com/", "http://a.com\r\nX: y/", "http://a.com/\r\nX: y", "http://a.com/a b",
        "http://a.com/?q=\r\n", "http://a.com/\x7f", "http://a.com/\x85", "http://a\u2028.com/",
        "http://a.com/%00", "http://a.com/%0d%0a", "http://a.com/%250a", "http://a\ufeff.com/",
        "http://a.com/é", "http://a.com/?é",
    ],
)  # fmt: skip
def test_refuses_controls_and_blanks_anywhere(url: str) -> None:
    with pytest.raises(UrlError):
        parse_url(url)


@pytest.mark.case("NET-04")
@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("[::ffff:127.0.0.1]", "127.0.0.1"),
        ("[::ffff:7f00:1]", "127.0.0.1"),
        ("[::ffff:a9fe:a9fe]", "169.254.169.254"),
        ("[0:0:0:0:0:FFFF:127.0.0.1]", "127.0.0.1"),
        ("[0000::1]", "::1"),
    ],
)
def test_unwraps_mapped_addresses(text: str, address: str) -> None:
    assert parse_url(f"https://{text}/").host == ip_address(address)


@pytest.mark.case("NET-11", "NET-12", "NET-13")
@pytest.mark.parametrize(
    "url",
    [
        "http://good.com@evil.com/", "http://good.com:80@evil.com/", "http://a@b@c/", "http://@a.com/",
        "http://good.com:x@evil.com/", "http://evil.com\\@good.com/", "http:\\\\evil.com/",
        "http:/\\evil.com", "http://a.com\\.b.com/", "http://[::1]evil.com/", "http://[internal]/",
        "http://[::1", "http://::1/", "http://[::1%25eth0]/", "http://[::1%eth0]/", "http://[]/",
        "http://[127.0.0.1]/", "http://[::1]]/", "http://[[::1]]/", "http://a[::1]/",
        "http://[v1.x]/", "http://[::１]/",
    ],
)  # fmt: skip
def test_refuses_what_parsers_disagree_on(url: str) -> None:
    with pytest.raises(UrlError):
        parse_url(url)


@pytest.mark.case("NET-15")
@pytest.mark.parametrize(
    "twin", ["GOOD.COM", "good.com.", "Good.Com.", "good。com", "GOOD。COM", "ｇｏｏｄ.com"]
)
def test_canonicalises_twins_of_a_name(twin: str) -> None:
    assert str(parse_url(f"HTTPS://{twin}")) == "https://good.com/"


@pytest.mark.case("NET-15")
def test_canonicalises_a_unicode_name_and_its_punycode_alike() -> None:
    assert parse_host("BÜCHER.example") == parse_host("xn--bcher-kva.example")


@pytest.mark.case("NET-15")
@pytest.mark.parametrize(
    "host",
    [
        "xn--", "xn--a", "xn--0.com", "xn--abc-.com", "good..com", ".good.com", "good.com..", "-a.com",
        "a-.com", "a_b.com", "a" * 64 + ".com", ".".join(["a" * 60] * 5), "a,b", "a!b", "*.com", "",
        "xn--bcher-kva%2ecom", "%61.com", "\u200b", "xn--ls8h.la.xn--\u00fc",
    ],
)  # fmt: skip
def test_refuses_what_is_no_name(host: str) -> None:
    with pytest.raises(UrlError):
        parse_host(host)


@pytest.mark.case("NET-17")
@pytest.mark.parametrize("port", ["", "0", "080", "65536", "65616", "８０", "+80", "-1", "8 0", "1e3", "0x50", "99999999"])  # fmt: skip
def test_refuses_an_odd_port(port: str) -> None:
    with pytest.raises(UrlError):
        parse_url(f"http://a.com:{port}/")
    with pytest.raises(UrlError):
        parse_port(port)


@pytest.mark.case("NET-17")
def test_allows_a_plain_port_and_fills_in_the_scheme_s_own() -> None:
    assert parse_url("http://a.com").port == 80
    assert parse_url("https://a.com").port == 443
    assert parse_url("https://a.com:8443").port == 8443
    assert str(parse_url("https://a.com:443/")) == "https://a.com/"


@pytest.mark.case("NET-25")
@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "gopher://a.com/", "dict://a.com/", "data:text/plain,x", "jar:http://a!/b",
        "http+unix://%2fsock/", "ftp://a.com/", "javascript:1", "//a.com/", "a.com", "/path", "",
        "http:a.com", "http:/a.com", "https:", "://a.com", "ws://a.com/", "HTTPS", "http//a.com",
    ],
)  # fmt: skip
def test_refuses_all_but_http_and_https(url: str) -> None:
    with pytest.raises(UrlError):
        parse_url(url)


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        ("/v1/../admin", "/admin"), ("/v1/%2e%2e/admin", "/admin"), ("/v1/.%2E/admin", "/admin"),
        ("/../../x", "/x"), ("/a/./b", "/a/b"), ("/a/b/..", "/a/"), ("/a/.", "/a/"), ("", "/"),
        ("/%41%7e%2d", "/A~-"), ("/%c3%a9", "/%C3%A9"), ("/a%2fb", "/a%2Fb"), ("/a//b", "/a//b"),
        ("/a/...", "/a/..."), ("/a;v=1/b", "/a;v=1/b"), ("/[x]", "/%5Bx%5D"),
    ],
)  # fmt: skip
def test_canonicalises_paths(path: str, canonical: str) -> None:
    assert parse_url(f"https://a.com{path}").path == canonical


@pytest.mark.parametrize(
    "path",
    [
        "/v1/..%2fadmin", "/v1/..%5cadmin", "/v1/%252e%252e/admin", "/v1/%25252e%25252e%2fadmin",
        "/v1/..;/admin", "/v1/..;x=y/admin", "/v1/.;/x", "/v1/%2e%2e%3b/admin", "/v1/%c0%ae%c0%ae/admin",
        "/v1/%", "/v1/%2", "/v1/%zz", "/v1/%2e%2e%5cx", "/" + "%25" * 9 + "41" + "%25252525252525252541",
    ],
)  # fmt: skip
def test_refuses_a_path_that_hides_where_it_leads(path: str) -> None:
    with pytest.raises(UrlError):
        parse_url(f"https://a.com{path}")


def test_drops_the_fragment_and_keeps_the_query() -> None:
    url = parse_url("https://a.com/x?y=/../z#https://evil.com/")
    assert (url.target, str(url)) == ("/x?y=/../z", "https://a.com/x?y=/../z")
    assert parse_url("https://a.com?x").target == "/?x"
    assert parse_url("https://a.com#/@evil.com").host == "a.com"


@pytest.mark.case("NET-09")
@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/x", "https://a.com:8443/x"), ("x", "https://a.com:8443/p/x"), ("../x", "https://a.com:8443/x"),
        ("?z", "https://a.com:8443/p/q?z"), ("#f", "https://a.com:8443/p/q?r"), ("", "https://a.com:8443/p/q?r"),
        ("//b.com/x", "https://b.com/x"), ("http://b.com/x", "http://b.com/x"), ("HTTP://B.com", "http://b.com/"),
        ("x:y", None), ("file:///x", None), ("https:x", None), ("//b.com\\@a.com", None), ("/\\b.com", None),
        ("\\\\b.com", None), ("//u@b.com", None), ("/a b", None), ("//[::1]b.com", None), ("//127.1/", None),
        ("https://b\u00fccher.de/", None), ("///b.com", None),
    ],
)  # fmt: skip
def test_reads_a_redirect_as_strictly(location: str, url: str | None) -> None:
    base = parse_url("https://a.com:8443/p/q?r")
    if url is None:
        with pytest.raises(UrlError):
            join_url(base, location)
    else:
        assert str(join_url(base, location)) == url


def test_refuses_a_url_without_end() -> None:
    with pytest.raises(UrlError):
        parse_url("https://a.com/" + "a" * 9000)
    assert parse_url("https://a.com/" + "a" * 8000).path.endswith("aa")


def test_errors_quote_nothing_of_the_url() -> None:
    with pytest.raises(UrlError) as caught:
        parse_url("https://user:hunter2@a.com/")
    assert "hunter2" not in str(caught.value)


@given(st.text(max_size=60) | st.from_regex(r"https?://[^ ]{1,40}", fullmatch=True))
@settings(max_examples=400, deadline=None)
def test_a_canonical_url_is_its_own_canonical_form(text: str) -> None:
    try:
        url = parse_url(text)
    except UrlError:
        return
    assert parse_url(str(url)) == url
    assert str(url).isascii()
    assert "@" not in url.authority
    assert ".." not in url.path.split("/")
