"""What others wrote is only ever text; what is sent is bounded; no path, key or traceback comes out."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capwasm.admin.forms import Fields, checked
from capwasm.admin.shield import MAX_BODY
from capwasm.caps.secrets import Vault, VaultKey
from capwasm.errors import AdminError
from capwasm.events import DENIED, Event
from capwasm.record.audit import AuditLog
from capwasm.record.redact import Redactor
from capwasm.registry.desk import Desk
from capwasm.review.finding import Finding, Report, ScannerRun, Severity
from tests.admin.browsing import Reader, accessibility, browser, headings_in_order
from tests.admin.conftest import POLICY, Office, office
from tests.admin.place import TOKEN, Site, Visitor, served
from tests.kit import guest

EVIL = "\"'><img src=x onerror=alert(1)><script>alert(2)</script>{{7*7}}</textarea>"
HIDDEN = "gpj.\u202eevil\u200b"
WORDS = 'name = "A test"'
MANIFEST = """[log]
why = {evil}
[[net]]
allow = "https://api.example.com/v1/*"
why = {evil}
"""
PAGES = (
    "/",
    "/?range=week",
    "/reviews",
    "/reviews/test.evil/1.0.0",
    "/plugins",
    "/plugins/test.evil",
    "/audit",
    "/audit?log=commands",
    "/audit/runtime/2",
    "/exceptions",
    "/policy",
    "/about",
)


def evil_capsule(made: Office) -> bytes:
    """A plugin whose author put an attack wherever a text may stand."""
    import tests.kit as kit

    head = kit.HEAD
    text = f"'''{EVIL}'''"
    hostile = f"name = {text}\nauthor = {text}\ndescription = {text}\nlicense = {text}"
    kit.HEAD = head.replace(WORDS, hostile.replace("{", "{{").replace("}", "}}"))
    try:
        return made.world.capsule(guest("hostile"), MANIFEST.format(evil=text), id="test.evil")
    finally:
        kit.HEAD = head


@pytest.fixture(scope="module")
def den(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """A home full of hostile texts."""
    root = tmp_path_factory.mktemp("den")
    made = office(root, POLICY.replace("ops@acme.example", EVIL.replace('"', '\\"')))
    vault = Vault.create(made.home / "vault", VaultKey.generate(made.home / "vault.key"))
    vault.set("api-token", b"s3cr3t-of-the-vault")
    registry = made.registry
    registry.install(evil_capsule(made), who=EVIL[:150], why=EVIL, source_name=EVIL)
    record = registry.show("test.evil").versions[0]
    findings = tuple(
        Finding(f"evil.{severity}", severity, EVIL, EVIL, (EVIL + HIDDEN)[:200], EVIL)
        for severity in Severity
    )
    runs = (ScannerRun("evil", EVIL),)
    when = "2026-01-31T00:00:00Z"
    Desk(registry).scanned(
        "test.evil",
        "1.0.0",
        Report("test.evil", "1.0.0", record.archive, when, 99, (EVIL,), runs, findings),
    )
    registry.permit("test.evil", _kind(), "1.0.0", who=EVIL[:150], why=EVIL)
    with AuditLog.open(made.home / "audit", Redactor()) as log:
        for text in (EVIL, HIDDEN):
            log.record(Event("net", DENIED, text, text, text, text, {text: [text, {"x": text}]}))
    yield made
    made.close()


def _kind() -> Any:
    from capwasm.registry.model import PermitKind

    return PermitKind.DOWNGRADE


@pytest.fixture(scope="module")
def evil(den: Office) -> Iterator[Site]:
    with served(den.home, key=den.ann) as found:
        yield found


@pytest.fixture
def reader_of_evil(evil: Site) -> Visitor:
    made = Visitor(evil)
    made.sign_in()
    return made


# -- texts ------------------------------------------------------------------------------------------


@pytest.mark.case("LOG-07", "MAN-06")
@pytest.mark.parametrize("path", PAGES)
def test_refuses_to_take_a_text_for_markup_or_for_a_template(
    reader_of_evil: Visitor, path: str
) -> None:
    reply = reader_of_evil.get(path)

    assert reply.status == 200
    assert "<img src=x" not in reply.text
    assert "<script>" not in reply.text
    assert not re.search(r"<[^>]*onerror", reply.text)
    assert "49" not in re.findall(r"\{\{7\*7\}\}|>49<", reply.text)
    assert "\u202e" not in reply.text
    assert "\u200b" not in reply.text


def test_the_hostile_texts_are_shown_and_so_were_tried(reader_of_evil: Visitor) -> None:
    shown = "&lt;img src=x onerror=alert(1)&gt;"
    for path in PAGES:
        if path not in ("/reviews", "/audit?log=commands", "/about"):
            assert shown in reader_of_evil.get(path).text, path
    assert "\\u202e" in reader_of_evil.get("/audit/runtime/3").text


@pytest.mark.parametrize("name", ["plugin", "text", "since", "until", "q"])
def test_refuses_to_reflect_what_was_asked_as_markup(reader_of_evil: Visitor, name: str) -> None:
    from urllib.parse import quote

    for page in ("/audit", "/plugins", "/"):
        reply = reader_of_evil.get(f"{page}?{name}={quote(EVIL)}&log=commands")
        assert "<img src=x" not in reply.text
        assert "<script>" not in reply.text


def test_a_browser_runs_nothing_of_it_and_every_page_is_fit_for_everybody(evil: Site) -> None:
    with browser() as chromium:
        for scheme, width, rules, paths in (
            ("light", 1280, None, PAGES),
            ("dark", 390, ["color-contrast", "scrollable-region-focusable"], PAGES[3:7:3]),
        ):
            reader = Reader(
                chromium,
                evil.origin,
                color_scheme=scheme,
                viewport={"width": width, "height": 900},
            )
            reader.page.goto(f"{evil.origin}/login#{TOKEN}")
            assert accessibility(reader.page, rules) == []
            reader.press("Sign in")
            for path in paths:
                page = reader.open(path)
                if "?" not in path:  # those with words in them are other views of the same
                    assert accessibility(page, rules) == [], path
                assert headings_in_order(page), path
                assert (
                    page.evaluate("document.querySelectorAll('img[src=x], main script').length")
                    == 0
                )
                assert page.evaluate("document.documentElement.scrollWidth") <= width, path
            reader.open("/plugins/no.such", status=404)
            assert accessibility(reader.page, rules) == []
            reader.check()
            reader.close()


def test_a_browser_leads_a_keyboard_past_the_menu_and_shows_where_it_is(evil: Site) -> None:
    with browser() as chromium:
        reader = Reader(chromium, evil.origin)
        reader.page.goto(f"{evil.origin}/login#{TOKEN}")
        reader.page.keyboard.press("Enter")  # the button has the focus
        reader.page.wait_for_url(f"{evil.origin}/")
        reader.page.keyboard.press("Tab")
        first = reader.page.locator(":focus")
        assert first.inner_text() == "Skip to the content"
        assert first.bounding_box()["x"] >= 0
        reader.page.keyboard.press("Enter")
        assert reader.page.evaluate("document.activeElement.id") == "main"
        reader.page.keyboard.press("Tab")
        style = "getComputedStyle(document.activeElement).outlineStyle"
        assert reader.page.evaluate(style) == "solid"
        reader.check()


# -- what is never told -----------------------------------------------------------------------------


def test_refuses_to_show_a_key_a_secret_or_a_path_of_ours(
    reader_of_evil: Visitor, den: Office
) -> None:
    secrets = [b"s3cr3t-of-the-vault", TOKEN.encode()]
    for name in ("vault.key", "audit.key", "registry.key"):
        data = (den.home / name).read_bytes()
        secrets += [data.strip(), data.hex().encode()]
    secrets += [line for k in (den.ann, den.bob) for line in k.pem().splitlines()[1:-1]]
    for path in (*PAGES, "/nope", "/plugins/no.such", "/login", "/static/live.js"):
        body = reader_of_evil.get(path).body
        assert not any(s in body for s in secrets), path
        assert b"Traceback" not in body
        assert str(den.home).encode() not in body, path
        assert b"site-packages" not in body


def test_refuses_with_a_code_and_nothing_else_where_something_of_ours_breaks(
    shop: Office, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with served(shop.home) as site:
        visitor = Visitor(site)
        visitor.sign_in()
        monkeypatch.setattr(type(site.page.office), "chain", lambda *_a, **_k: 1 / 0)
        reply = visitor.get("/audit")

    assert (reply.status, reply.code) == (500, "internal")
    assert "Zero" not in reply.text
    assert "ZeroDivisionError at test_contents.py" in caplog.text
    assert "test.guest" not in reply.text
    assert reply.headers["x-frame-options"] == "DENY"


def test_a_broken_policy_is_told_by_its_code_on_every_page(tmp_path: Path) -> None:
    made = office(tmp_path)
    with served(made.home, user="eve") as site:
        visitor = Visitor(site)
        visitor.sign_in()
        assert visitor.get("/policy").status == 200
        (made.home / "policy.toml").write_text("schema = 1\nevil = true\n")
        for path in ("/", "/policy", "/plugins"):
            reply = visitor.get(path)
            assert (reply.status, reply.code) == (409, "policy.invalid")
    made.close()


# -- paths ------------------------------------------------------------------------------------------

CLIMBS = (
    "..",
    "../../etc/passwd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/etc/passwd",
    "..%5c..%5cetc",
    "%252e%252e%252f",
    "/etc/passwd",
    "%00",
    "style.css%00.png",
    "....//....//etc/passwd",
    "policy.toml",
    "audit.key",
    "x" * 300,
)


@pytest.mark.parametrize("climb", CLIMBS, ids=lambda c: c[:20])
def test_refuses_to_climb_in_every_word_of_an_address(visitor: Visitor, climb: str) -> None:
    for base in (
        "/static/{}",
        "/static/../{}",
        "/plugins/{}",
        "/reviews/{}/1.0.0",
        "/reviews/test.guest/{}",
        "/audit/{}/1",
        "/audit/runtime/{}",
        "/{}",
    ):
        reply = visitor.get(base.format(climb))
        assert reply.status in (400, 404), base
        assert "root:" not in reply.text
        assert "PRIVATE KEY" not in reply.text
    for name in ("log", "before", "range", "kind", "plugin"):
        reply = visitor.get(f"/audit?{name}={climb}")
        assert "root:" not in reply.text
        assert reply.status < 500
    form = visitor.form
    for base in ("/plugins/{}/kill", "/reviews/{}/1.0.0/reject", "/audit/{}/verify"):
        reply = visitor.post(base.format(climb), {"form": form, "reason": "x"})
        assert reply.status in (400, 404, 405)


def test_allows_the_words_that_are_there(visitor: Visitor) -> None:
    assert visitor.get("/static/style.css").headers["content-type"].startswith("text/css")
    assert visitor.get("/reviews/test.guest/1.1.0").status == 200
    assert visitor.get("/audit/runtime/2").status == 200
    assert visitor.get("/plugins/test.nobody").code == "registry.unknown"
    assert visitor.get("/reviews/test.guest/9.9.9").code == "registry.unknown"
    assert visitor.get("/audit/runtime/999999").code == "admin.not-found"
    assert checked({"id": "acme.weather", "version": "1.0.0", "log": "runtime", "seq": "7"})
    with pytest.raises(AdminError):
        checked({"seq": "٧"})


# -- sizes and times --------------------------------------------------------------------------------


def form_of(size: int) -> bytes:
    return b"form=" + b"0" * (size - 5)


def test_refuses_a_huge_body_whether_it_says_so_or_not(site: Site) -> None:
    kind = {"Content-Type": "application/x-www-form-urlencoded", "Origin": site.origin}
    big = form_of(MAX_BODY + 1)

    assert site.ask("POST", "/login", big, kind).status == 413
    head = f"POST /login HTTP/1.1\r\nHost: {site.host}\r\nOrigin: {site.origin}\r\n"
    head += f"Content-Type: {kind['Content-Type']}\r\n"
    for length in ("99999999999999999999", str(2**63), str(MAX_BODY + 1)):
        answer = site.raw(f"{head}Content-Length: {length}\r\n\r\n".encode())
        assert answer.split()[1] in (b"400", b"413"), answer[:80]
    chunk = b"%x\r\n%b\r\n" % (4096, b"a" * 4096)
    answer = site.raw(
        f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk * 64 + b"0\r\n\r\n"
    )
    assert answer.split()[1] == b"413"


def test_allows_a_body_of_the_right_size_in_any_pieces(site: Site) -> None:
    kind = {"Content-Type": "application/x-www-form-urlencoded", "Origin": site.origin}
    assert site.ask("POST", "/login", form_of(MAX_BODY), kind).code == "admin.csrf"
    head = (
        f"POST /login HTTP/1.1\r\nHost: {site.host}\r\nOrigin: {site.origin}\r\nConnection: close\r\n"
        f"Content-Type: {kind['Content-Type']}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    answer = site.raw(head.encode() + b"5\r\nform=\r\n1\r\n0\r\n0\r\n\r\n")
    assert b"admin.csrf" in answer


def test_refuses_a_body_or_a_head_that_never_comes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from capwasm.admin import server

    monkeypatch.setattr(server, "HEAD_SECONDS", 0.5)
    head = (
        f"POST /login HTTP/1.1\r\nHost: {site.host}\r\nOrigin: {site.origin}\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nform="
    )
    begin = time.monotonic()
    assert site.raw(head.encode()).split()[1] == b"408"
    assert site.raw(b"GET / HTTP/1.1\r\nHost: ") == b""
    assert site.raw(b"") == b""
    assert time.monotonic() - begin < 15


def test_refuses_addresses_and_heads_without_end(site: Site) -> None:
    assert site.ask("GET", "/" + "a" * 3000).status == 414
    assert site.ask("GET", "/?" + "a" * 3000).status == 414
    many = {f"X-{n}": "1" for n in range(100)}
    assert site.ask("GET", "/login", headers=many).status == 431
    assert site.ask("GET", "/login", headers={"X": "a" * 17_000}).status == 431
    assert site.raw(b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000).split()[1:2] in (
        [b"400"],
        [b"431"],
        [],
    )
    assert site.ask("GET", "/login", headers={f"X-{n}": "1" for n in range(20)}).status == 200


@pytest.mark.parametrize(
    "kind", ["multipart/form-data; boundary=x", "application/json", "text/plain", "text/xml", ""]
)
def test_refuses_a_body_of_another_type(site: Site, kind: str) -> None:
    headers = {"Origin": site.origin, **({"Content-Type": kind} if kind else {})}

    assert site.ask("POST", "/login", b"form=1", headers).status == 415


def test_refuses_a_body_where_there_is_none_and_two_lengths(site: Site) -> None:
    assert site.ask("GET", "/login", b"form=1").status == 400
    head = f"POST /login HTTP/1.1\r\nHost: {site.host}\r\nContent-Length: 1\r\n"
    for more in ("Content-Length: 2\r\n", "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n"):
        answer = site.raw(f"{head}{more}\r\n1".encode())
        assert not answer.split()[1:2] or int(answer.split()[1]) >= 400


@pytest.mark.parametrize(
    "data",
    [b"a=1&a=2", b"&".join(b"a%d=1" % n for n in range(40)), b"a=%ff%fe", "a=ä".encode()],
    ids=["twice", "many", "not UTF-8", "not ASCII"],
)
def test_refuses_malformed_fields(data: bytes) -> None:
    with pytest.raises(AdminError):
        Fields.parse(data)


@pytest.mark.parametrize("text", ["", " \t ", "x" * 501, "a\u202eb", "a\x00b", "a\x1b[2J"])
def test_refuses_reasons_that_say_nothing_or_too_much(
    visitor: Visitor, shop: Office, text: str
) -> None:
    before = shop.registry.stamp()
    reply = visitor.post("/plugins/test.guest/kill", {"form": visitor.form, "reason": text})

    assert (reply.status, reply.code) == (400, "admin.request")
    assert shop.registry.stamp() == before


def test_allows_fields_of_each_type() -> None:
    fields = Fields.parse(b"reason=+Too+%C3%A4rgerlich%0A&n=7&day=2027-01-31&box=yes&word=a")

    assert fields.reason() == "Too ärgerlich"
    assert fields.number("n") == 7
    assert fields.day("day") is not None
    assert fields.ticked("box")
    assert fields.word("word", frozenset("ab")) == "a"
    for name, ask in (("reason", fields.number), ("reason", fields.day)):
        with pytest.raises(AdminError):
            ask(name)
    with pytest.raises(AdminError):
        fields.word("word", frozenset("b"))
