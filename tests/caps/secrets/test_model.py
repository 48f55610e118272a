from __future__ import annotations

import pytest

from capwasm.capability import Risk
from capwasm.caps.secrets import SecretClause, Secrets
from capwasm.caps.secrets.model import canonical_header
from capwasm.caps.secrets.origin import canonical_origin
from capwasm.lattice import ClauseSet

API = "https://api.acme.com"
HEADER = "Authorization: Bearer {}"


def table(**fields: object) -> dict[str, object]:
    return {"name": "acme-token", "use": "inject", "for": [API], "header": HEADER, **fields}


def inject(*origins: str, **fields: object) -> SecretClause:
    return SecretClause("acme-token", "inject", frozenset(origins or (API,)), **fields)  # type: ignore[arg-type]


REVEAL = SecretClause("acme-token", "reveal")


# -- origins -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("https://api.acme.com", API),
        ("HTTPS://API.Acme.COM:443", API),
        ("https://api.acme.com:8443", "https://api.acme.com:8443"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("https://10.0.0.1", "https://10.0.0.1"),
        ("https://[2001:DB8:0::1]:443", "https://[2001:db8::1]"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]", "http://[::1]"),
    ],
)
def test_allows_an_origin_in_its_one_spelling(text: str, canonical: str) -> None:
    assert canonical_origin(text) == canonical
    assert canonical_origin(canonical) == canonical


@pytest.mark.case("SEC-05", "SEC-09", "NET-01", "NET-11", "NET-12", "NET-14", "NET-15", "NET-17")
@pytest.mark.parametrize(
    "text",
    [
        *("", "api.acme.com", "https://", "https:///", "//api.acme.com", "https:api.acme.com"),
        *("https://*.acme.com", "https://*", "https://api.acme.*", "https://api.acme.com/"),
        *("https://api.acme.com/v1", "https://api.acme.com?q", "https://api.acme.com#f"),
        *("https://user@api.acme.com", "https://api.acme.com@evil.com", "https://a:b@c"),
        *("https://api.acme.com\\@evil.com", "https://api.acme.com:0", "https://api.acme.com:"),
        *("https://api.acme.com:080", "https://api.acme.com:65536", "https://api.acme.com:８０"),
        *("https://api.acme.com.", "https://.acme.com", "https://a..b", "https://-a.com"),
        *("https://a-.com", "https://a_b.com", "https://bücher.example", "https://good。com"),
        *("https://api.acme.com\n", " https://api.acme.com", "https://api.ac\tme.com"),
        *("https://127.1", "https://2130706433", "https://0x7f.1", "https://0177.0.0.1"),
        *("https://1.2.3.4.5", "https://[::1", "https://[::1]evil.com", "https://[fe80::1%eth0]"),
        *("https://[internal]", "https://" + "a" * 64 + ".com", "https://" + "a." * 130 + "com"),
        *("http://api.acme.com", "http://localhost", "http://10.0.0.1", "http://127.0.0.2"),
        *("ftp://api.acme.com", "file:///etc/passwd", "data:,x", "wss://api.acme.com"),
    ],
)
def test_refuses_what_is_no_exact_origin(text: str) -> None:
    with pytest.raises(ValueError):
        canonical_origin(text)

    assert Secrets().parse([table(**{"for": [text]})], "manifest").faults


# -- headers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("authorization: Bearer {}", HEADER),
        ("X-API-KEY: {}", "X-Api-Key: {}"),
        ("Cookie: session={}; theme=dark", "Cookie: session={}; theme=dark"),
    ],
)
def test_allows_a_header_in_its_one_spelling(text: str, canonical: str) -> None:
    assert canonical_header(text) == canonical
    assert canonical_header(canonical) == canonical


@pytest.mark.case("NET-18")
@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "Authorization", "Authorization:", "Authorization: ", ": {}", "A b: {}"),
        *("Authorization:{}", "Authorization:  {}", "Authorization: {} ", "Authorization: Bearer"),
        *("Authorization: {} {}", "Authorization: {0}", "Authorization: {x}", "A: {{}}", "A: {}}"),
        *("A: {}\r\nB: c", "A\r\nB: {}", "A: {}\n", "A: \t{}", "A: {}é", "Ä: {}", "A: \x00{}"),
        *("Host: {}", "content-length: {}", "Transfer-Encoding: {}", "Connection: {}", "TE: {}"),
        *(
            "Proxy-Authorization: {}",
            "Upgrade: {}",
            "Expect: {}",
            "Trailer: {}",
            "A: {}" + "x" * 256,
        ),
    ],
)
def test_refuses_a_header_that_could_break_a_message(text: str) -> None:
    with pytest.raises(ValueError):
        canonical_header(text)

    assert Secrets().parse([table(header=text)], "policy").faults


# -- tables ------------------------------------------------------------------------------------------


def test_allows_one_clause_for_each_use() -> None:
    parsed = Secrets().parse([table(use=["inject", "reveal"], **{"lease-ms": 5})], "manifest")

    assert set(parsed.clauses) == {
        SecretClause("acme-token", "inject", frozenset({API}), HEADER, 5),
        SecretClause("acme-token", "reveal", lease_ms=5),
    }


def test_refuses_every_fault_of_every_table_at_once() -> None:
    parsed = Secrets().parse(
        [
            table(name="Acme Token"),
            table(**{"for": ["http://api.acme.com"], "lease-ms": 0}),
            table(),
            table(hedaer="x"),
        ],
        "manifest",
    )

    assert not parsed.clauses
    assert {f.path for f in parsed.faults} == {"[0].name", "[1].for[0]", "[1].lease-ms", "[3]"}
    assert "valid: for, header, lease-ms, name, use" in parsed.faults[-1].message


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": "a" * 65},
        {"name": "a--b"},
        {"name": "../a"},
        {"name": "a\n"},
        {"use": "see"},
        {"use": []},
        {"use": ["inject", "see"]},
        {"for": []},
        {"for": None},
        {"for": API},
        {"for": [f"https://a{n}.com" for n in range(33)]},
        {"use": "reveal"},
        {"use": "reveal", "for": None},
        {"lease-ms": 24 * 3_600_000 + 1},
        {"lease-ms": "1h"},
    ],
)
@pytest.mark.parametrize("side", ["manifest", "policy", "consent"])
def test_refuses_a_table_that_is_not_whole(fields: dict[str, object], side: str) -> None:
    full = {k: v for k, v in table(**fields).items() if v is not None}

    assert Secrets().parse([full], side).faults  # type: ignore[arg-type]


def test_refuses_a_manifest_without_a_header_and_allows_a_policy() -> None:
    open_header = {k: v for k, v in table().items() if k != "header"}

    assert "needs a header" in Secrets().parse([open_header], "manifest").faults[0].message
    assert Secrets().parse([open_header], "policy").clauses == (inject(),)


# -- the lattice -------------------------------------------------------------------------------------


@pytest.mark.case("SEC-05")
def test_refuses_any_widening_of_scope() -> None:
    asked = inject(API, "https://b.com", header=HEADER, lease_ms=1000)
    allowed = inject(API, lease_ms=500)

    assert asked.meet(allowed) == inject(API, header=HEADER, lease_ms=500)
    assert not asked.within(allowed)
    assert ClauseSet.of([asked]).missing_from(ClauseSet.of([allowed]))
    for prefix in ("https://api", "https://acme.com", "https://api.acme.com.evil.com"):
        assert inject(API).meet(inject(prefix)) is None


def test_refuses_to_take_one_use_for_the_other() -> None:
    assert inject().meet(REVEAL) is None
    assert REVEAL.meet(inject()) is None
    assert not inject().within(REVEAL)
    assert not REVEAL.within(inject())
    assert not inject().satisfied_by(REVEAL)
    assert not REVEAL.injects("acme-token", API)
    assert not inject().reveals("acme-token")


def test_refuses_another_header_or_another_secret() -> None:
    assert inject(header="X-A: {}").meet(inject(header="X-B: {}")) is None
    assert REVEAL.meet(SecretClause("other", "reveal")) is None
    assert inject(header="X-A: {}").within(inject())
    assert not inject().within(inject(header="X-A: {}"))


def test_allows_a_person_to_tell_the_two_uses_apart() -> None:
    assert REVEAL.describe() == "see the secret acme-token"
    assert inject(API, "https://b.com", header=HEADER).describe() == (
        f'have the secret acme-token sent to {API}, https://b.com as "{HEADER}"'
    )
    assert "any origin" in SecretClause("acme-token", "inject").describe()


@pytest.mark.parametrize("clause", [REVEAL, inject(), inject(header=HEADER, lease_ms=10)])
def test_allows_what_to_toml_wrote(clause: SecretClause) -> None:
    secrets = Secrets()

    assert secrets.parse([clause.to_toml()], "consent").clauses == (clause,)
    assert "acme-token" in clause.describe()
    assert secrets.risk(clause)[0] is (Risk.HIGH if clause == REVEAL else Risk.MEDIUM)
    assert set(secrets.schema("policy")["properties"]) == {
        *("name", "use", "for", "header", "lease-ms")
    }
