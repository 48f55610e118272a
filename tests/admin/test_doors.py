"""Who gets in, and from where: hosts, origins, tokens, sessions, forms.  Each with who is let in."""

from __future__ import annotations

import re
import time
from http.cookies import SimpleCookie

import pytest

from capwasm.admin.routes import ROUTES
from capwasm.admin.session import Doorkeeper
from capwasm.admin.shield import HEADERS
from capwasm.errors import AdminError
from capwasm.record.search import Query, search
from tests.admin.conftest import Office
from tests.admin.place import FORM, TOKEN, Reply, Site, Visitor, served

WORDS = {"{id}": "test.guest", "{version}": "1.1.0", "{log}": "runtime", "{seq}": "1"}
OPEN = ["/login", "/static/style.css", "/static/forms.css", "/static/live.js", "/static/login.js"]


def path_of(pattern: str) -> str:
    for word, text in WORDS.items():
        pattern = pattern.replace(word, text)
    return pattern


ALL = [path_of(route.path) for route in ROUTES]
GETS = [path_of(route.path) for route in ROUTES if route.get is not None]
POSTS = [path_of(route.path) for route in ROUTES if route.post is not None]


# -- every answer -----------------------------------------------------------------------------------


def check_headers(reply: Reply) -> None:
    for name, value in HEADERS.items():
        assert reply.headers.get_all(name) == [value], name
    assert reply.headers.get_all("server") is None
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert reply.headers["x-frame-options"] == "DENY"
    assert reply.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", [*GETS, *OPEN, "/static/icon.svg", "/nothing/here"])
def test_every_answer_carries_every_guard(visitor: Visitor, path: str) -> None:
    assert visitor.get(path).status == (404 if "nothing" in path else 200)
    for who in (visitor, Visitor(visitor.site)):
        check_headers(who.get(path))
    check_headers(visitor.post(path, {}))
    check_headers(visitor.site.ask("DELETE", path))
    check_headers(visitor.site.ask("GET", path, headers={"Host": "evil.example"}))


@pytest.mark.parametrize("path", GETS)
def test_no_page_has_a_script_or_a_style_of_its_own_or_anything_from_elsewhere(
    visitor: Visitor, path: str
) -> None:
    text = visitor.get(path).text

    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=|javascript:", text)
    for link in re.findall(r'(?:href|src|action)="([^"]*)"', text):
        assert link.startswith(("/", "#", "?")) or link == "", link
        assert not link.startswith("//"), link


@pytest.mark.parametrize("path", GETS)
def test_refuses_every_page_to_a_stranger(site: Site, path: str) -> None:
    stranger = Visitor(site)
    reply = stranger.get(path)

    assert reply.status == (403 if path == "/stamp" else 303)
    assert reply.headers.get("location") in (None, "/login")
    assert "test.guest" not in reply.text


@pytest.mark.parametrize("path", POSTS)
def test_refuses_every_deed_of_a_stranger(site: Site, path: str) -> None:
    reply = Visitor(site).post(path, {"form": "0" * 64, "reason": "x"})

    assert (reply.status, reply.code) == (403, "admin.session")


# -- methods ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", GETS)
def test_refuses_a_post_where_there_is_nothing_to_do(visitor: Visitor, path: str) -> None:
    assert visitor.post(path, {"form": visitor.form}).status == 405


@pytest.mark.parametrize("path", POSTS)
def test_refuses_a_deed_by_get_or_with_words_that_override_it(
    visitor: Visitor, shop: Office, path: str
) -> None:
    before = shop.registry.stamp()
    form = visitor.form

    assert visitor.get(f"{path}?form={form}&reason=x&seen=yes&sure=yes").status in (404, 405)
    assert visitor.get(path, x_http_method_override="POST").status in (404, 405)
    assert shop.registry.stamp() == before


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "CONNECT", "FOO"])
def test_refuses_other_methods(site: Site, method: str) -> None:
    target = site.host if method == "CONNECT" else "/login"

    assert site.ask(method, target).status in (400, 405)


def test_allows_head_like_get_without_a_body(site: Site) -> None:
    reply = site.ask("HEAD", "/login")

    assert (reply.status, reply.body) == (200, b"")


# -- hosts and origins ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.0.0.1:{port}.evil.example",
        "capwasm-0000000000000000.localhost:{port}",
        "localhost.evil.example:{port}",
        "{host}, evil.example",
        "user@{host}",
        "",
    ],
)
def test_refuses_another_host(site: Site, host: str) -> None:
    text = host.format(port=site.port, host=site.host)
    reply = site.ask("GET", "/login", headers={"Host": text})

    assert reply.status in (400, 421)  # a malformed one is the server's own to refuse
    assert "<form" not in reply.text
    if text:
        assert text not in reply.text


def test_refuses_to_be_a_proxy(site: Site) -> None:
    request = (
        f"GET http://evil.example/login HTTP/1.1\r\nHost: {site.host}\r\nConnection: close\r\n\r\n"
    )

    assert site.raw(request.encode()).split()[1] == b"404"


def test_refuses_two_hosts_and_one_that_is_forwarded(site: Site) -> None:
    request = f"GET /login HTTP/1.1\r\nHost: {site.host}\r\nHost: evil.example\r\n\r\n"
    assert site.raw(request.encode()).split()[1] in (b"400", b"421")

    reply = site.ask(
        "GET",
        "/login",
        headers={"X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"},
    )
    assert reply.status == 200
    assert "evil.example" not in reply.text


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "{own}"])
def test_allows_its_own_hosts(site: Site, host: str) -> None:
    text = host.format(port=site.port, own=site.host)

    assert site.ask("GET", "/login", headers={"Host": text.upper()}).status == 200


CROSS = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "{scheme_other}"},
    {"origin": "http://127.0.0.1:1"},
    {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site"},
    {"sec_fetch_site": "none"},
    {"origin": "", "sec_fetch_site": ""},
]


@pytest.mark.parametrize("headers", CROSS, ids=str)
def test_refuses_a_deed_that_another_site_has_a_browser_do(
    visitor: Visitor, shop: Office, headers: dict[str, str]
) -> None:
    before = shop.registry.stamp()
    other = visitor.site.origin.replace("http://", "https://")
    sent = {k: v.replace("{scheme_other}", other) for k, v in headers.items()}
    reply = visitor.post(
        "/reviews/test.guest/1.1.0/reject", {"form": visitor.form, "reason": "x"}, **sent
    )

    assert (reply.status, reply.code) == (403, "admin.origin")
    assert shop.registry.stamp() == before


@pytest.mark.parametrize("headers", [{"origin": ""}, {"sec_fetch_site": ""}, {}], ids=str)
def test_allows_a_deed_that_the_browser_says_is_ours(
    visitor: Visitor, headers: dict[str, str]
) -> None:
    reply = visitor.post("/audit/commands/verify", {"form": visitor.form}, **headers)

    assert reply.status == 303


def test_refuses_other_sites_to_embed_or_to_measure_anything(visitor: Visitor) -> None:
    for dest, mode in (("iframe", "navigate"), ("image", "no-cors"), ("script", "no-cors")):
        for path in ("/", "/static/style.css", "/stamp"):
            reply = visitor.get(
                path, sec_fetch_site="cross-site", sec_fetch_mode=mode, sec_fetch_dest=dest
            )
            assert (reply.status, reply.code) == (403, "admin.origin")


def test_allows_a_link_from_elsewhere_to_lead_here(site: Site) -> None:
    reply = Visitor(site).get("/", sec_fetch_site="cross-site")

    assert (reply.status, reply.headers["location"]) == (303, "/login")


# -- forms ------------------------------------------------------------------------------------------


def test_refuses_a_form_without_a_token_with_a_wrong_one_or_with_anothers(
    visitor: Visitor, site: Site, shop: Office
) -> None:
    other = Visitor(site)
    other.sign_in()
    before = shop.registry.stamp()
    real = visitor.form
    for form in ("", "0" * 64, real[:-1], real + "0", other.form, TOKEN, "ä" * 64):
        reply = visitor.post("/plugins/test.guest/kill", {"form": form, "reason": "x"})
        assert (reply.status, reply.code) == (403, "admin.csrf"), form
    assert visitor.post("/plugins/test.guest/kill", {"reason": "x"}).code == "admin.csrf"
    assert shop.registry.stamp() == before


def test_refuses_a_form_of_a_session_that_has_ended(site: Site) -> None:
    visitor = Visitor(site)
    visitor.sign_in()
    stale, cookies = visitor.form, dict(visitor.cookies)
    assert visitor.post("/logout", {"form": stale}).status == 303

    visitor.cookies = cookies
    assert visitor.get("/about").status == 303
    assert visitor.post("/audit/commands/verify", {"form": stale}).code == "admin.session"
    visitor.cookies.clear()
    visitor.sign_in()
    assert visitor.post("/audit/commands/verify", {"form": stale}).code == "admin.csrf"


def test_refuses_to_sign_somebody_in_by_a_form_that_he_was_not_given(site: Site) -> None:
    attacker, victim = Visitor(site), Visitor(site)
    form = attacker.get("/login").form
    victim.get("/login")

    reply = victim.post("/login", {"form": form, "token": TOKEN})
    assert (reply.status, reply.code) == (403, "admin.csrf")
    assert Visitor(site).post("/login", {"form": form, "token": TOKEN}).code == "admin.csrf"
    assert attacker.post("/login", {"form": form, "token": TOKEN}).status == 303


# -- tokens -----------------------------------------------------------------------------------------


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_refuses_to_guess_on_and_then_the_right_token_too() -> None:
    clock = Clock()
    door = Doorkeeper(TOKEN, clock=clock)
    for _ in range(5):
        with pytest.raises(AdminError) as caught:
            door.enter("wrong")
        assert caught.value.code == "admin.token"
    waits = []
    for _ in range(12):
        for token in ("wrong", TOKEN):  # a guess tells nothing meanwhile
            with pytest.raises(AdminError) as caught:
                door.enter(token)
            assert caught.value.code == "admin.throttled"
        begin = clock.now
        while True:
            clock.now += 0.5
            with pytest.raises(AdminError) as caught:
                door.enter("wrong")
            if caught.value.code == "admin.token":
                break
        waits.append(clock.now - begin)
    assert waits[:6] == [1, 2, 4, 8, 16, 32]
    assert set(waits[6:]) == {60}
    clock.now += 60
    assert door.enter(TOKEN)


def test_allows_a_few_slips_and_begins_anew_after_the_right_token() -> None:
    door = Doorkeeper(TOKEN, clock=Clock())
    for _ in range(3):
        for _ in range(4):
            with pytest.raises(AdminError):
                door.enter("slip")
        assert door.enter(TOKEN)


def test_refuses_what_only_begins_like_the_token(site: Site) -> None:
    for guess in ("", TOKEN[:-1], TOKEN + "x", TOKEN.upper()):
        with pytest.raises(AdminError):
            Doorkeeper(TOKEN).enter(guess)
    with pytest.raises(ValueError, match="22"):
        Doorkeeper("short")


def test_refuses_guesses_over_the_wire_and_tells_the_audit(shop: Office) -> None:
    with served(shop.home) as site:
        visitor = Visitor(site)
        codes = [visitor.sign_in("guess-" + "x" * 30).code for _ in range(8)]
        last = visitor.sign_in()

    assert codes == ["admin.token"] * 5 + ["admin.throttled"] * 3
    assert (last.status, last.headers["retry-after"]) == (429, "60")
    found = search(shop.home / "audit-commands", Query(kinds=frozenset({"admin"})), limit=100)
    denied = [r for r in found.records if r["verdict"] == "denied"]
    assert len(denied) >= 5
    assert {(r["action"], r["reason"]) for r in denied} == {("sign-in", "admin.token")}
    assert all("guess" not in str(r) for r in found.records)


# -- sessions ---------------------------------------------------------------------------------------


def test_the_cookie_is_as_strict_as_can_be(site: Site) -> None:
    reply = Visitor(site).sign_in()
    (line,) = (c for c in reply.headers.get_all("set-cookie") or () if "session" in c)
    jar = SimpleCookie(line)["capwasm-session"]

    assert (jar["httponly"], jar["samesite"], jar["path"], jar["domain"]) == (
        True,
        "strict",
        "/",
        "",
    )
    assert int(jar["max-age"]) <= 8 * 3600
    assert len(jar.value) >= 43


def test_refuses_a_session_that_was_fixed_before(site: Site) -> None:
    visitor = Visitor(site, {"capwasm-session": "f" * 43})
    assert visitor.get("/").status == 303
    visitor.sign_in()

    assert visitor.cookies["capwasm-session"] != "f" * 43
    assert Visitor(site, {"capwasm-session": "f" * 43}).get("/").status == 303
    assert visitor.get("/").status == 200


def test_sessions_end_by_idling_and_by_age_and_their_ids_change() -> None:
    clock = Clock()
    door = Doorkeeper(TOKEN, clock=clock)
    first = door.enter(TOKEN)
    session, rotated = door.find(first)
    assert session is not None
    assert rotated is None
    form = session.token

    clock.now += 11 * 60
    found, second = door.find(first)
    assert found is session
    assert second is not None
    assert found.token == form  # an open form stays good
    clock.now += 20
    assert door.find(first)[0] is session  # what was under way
    clock.now += 20
    assert door.find(first) == (None, None)
    assert door.find(second)[0] is session

    clock.now += 31 * 60
    assert door.find(second) == (None, None)

    third = door.enter(TOKEN)
    for _ in range(8 * 6 + 1):
        clock.now += 10 * 60
        found, made = door.find(third)
        third = made or third
    assert found is None


def test_a_new_id_is_not_lost_with_a_page_that_is_refused(shop: Office) -> None:
    with served(shop.home) as site:
        visitor = Visitor(site)
        visitor.sign_in()
        first, later = visitor.cookies["capwasm-session"], 11 * 60
        site.page.door._clock = lambda: time.monotonic() + later
        assert visitor.get("/plugins/test.nobody").status == 404
        assert visitor.cookies["capwasm-session"] != first
        later += 60
        assert visitor.get("/about").status == 200
        assert Visitor(site, {"capwasm-session": first}).get("/about").status == 303


def test_a_program_that_looks_keeps_no_session_awake() -> None:
    clock = Clock()
    door = Doorkeeper(TOKEN, clock=clock)
    made = door.enter(TOKEN)
    for _ in range(7):
        clock.now += 5 * 60
        found, _ = door.find(made, quiet=True)
    assert found is None


def test_sessions_are_few_and_the_stalest_goes() -> None:
    clock = Clock()
    door = Doorkeeper(TOKEN, clock=clock)
    ids = []
    for _ in range(20):
        clock.now += 1
        ids.append(door.enter(TOKEN))

    assert [door.find(i)[0] is not None for i in ids] == [False] * 4 + [True] * 16


@pytest.mark.parametrize("cookie", ["capwasm-session=", 'capwasm-session="\\', "=;=;=", "a" * 4000])
def test_refuses_odd_cookies_without_a_defect(site: Site, cookie: str) -> None:
    reply = site.ask("GET", "/about", headers={"Cookie": cookie})

    assert (reply.status, reply.headers["location"]) == (303, "/login")


def test_sign_in_and_out_stand_in_the_audit(shop: Office, site: Site) -> None:
    visitor = Visitor(site)
    visitor.sign_in()
    visitor.post("/logout", {"form": visitor.form})
    found = search(shop.home / "audit-commands", Query(kinds=frozenset({"admin"})), limit=2)

    assert [(r["action"], r["verdict"], r["target"]) for r in found.records] == [
        ("sign-out", "allowed", "ann"),
        ("sign-in", "allowed", "ann"),
    ]


# -- where it leads ---------------------------------------------------------------------------------


def test_refuses_to_lead_elsewhere(site: Site) -> None:
    for tail in (
        "?next=https://evil.example",
        "?next=//evil.example",
        "//evil.example",
        "/%2f%2fevil",
    ):
        reply = Visitor(site).get(f"/{tail}")
        assert reply.headers.get("location") in (None, "/login")
    visitor = Visitor(site)
    form = visitor.get("/login").form
    reply = visitor.post("/login?next=https://evil.example", {"form": form, "token": TOKEN})
    assert reply.headers["location"] == "/"


def test_refuses_to_split_an_answer_by_what_it_is_asked(visitor: Visitor) -> None:
    for evil in ("%0d%0aSet-Cookie:%20x=1", "%0aX-Evil:1", "%E5%98%8D%E5%98%8ASet-Cookie:x=1"):
        for path in (
            f"/plugins/{evil}",
            f"/audit?plugin={evil}",
            f"/audit?before={evil}",
            f"/{evil}",
        ):
            reply = visitor.get(path)
            assert reply.status < 500
            assert reply.headers.get("x-evil") is None
            assert all("x=1" not in c for c in reply.headers.get_all("set-cookie") or ())


def test_a_page_answers_within_reason(visitor: Visitor) -> None:
    begin = time.monotonic()
    for path in GETS:
        visitor.get(path)
    assert time.monotonic() - begin < 20
    assert FORM.search(visitor.get("/").text)
