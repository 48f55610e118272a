"""The engine against real listeners that count who came: grants, addresses, redirects, TLS."""

from __future__ import annotations

import ssl
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from capwasm.caps.net.request import RequestSpec
from capwasm.caps.net.resolve import Lookups
from capwasm.caps.net.watch import Watch
from capwasm.errors import AuditError, CallInterrupted, CapError
from capwasm.events import ALLOWED, DENIED, FAILED
from tests.helpers import in_call

from .servers import Bench, Got, Origin, Secret, http, local, make_tls, redirect, rules

both = pytest.mark.usefixtures("door")
"""The case holds for `wasi:http` too, and is run through it."""


def fetch(bench: Bench, grant: Any, url: str, **words: Any) -> Any:
    """Send and read all; the response stays readable in its attributes."""
    reply = bench.fetch(grant, url, **words)
    return reply.status, reply.body, reply


def refused(bench: Bench, grant: Any, url: str, **words: Any) -> str:
    return bench.refused(grant, url, **words)


# -- grants --------------------------------------------------------------------------------------


def test_allows_a_granted_request_and_records_it() -> None:
    with Origin() as origin, Bench() as bench:
        grant = rules(local(f"http://api.test:{origin.port}/v1/*"))
        status, body, response = fetch(
            bench, grant, f"http://API.test:{origin.port}/v1/x?key=value"
        )
        assert (status, body) == (200, b"hello")
        assert response.url == f"http://api.test:{origin.port}/v1/x?key=value"
        assert origin.got[0].line == "GET /v1/x?key=value HTTP/1.1"
        assert origin.got[0].all("host") == [f"api.test:{origin.port}"]
        sent, done = bench.recorder.events
        assert (sent.verdict, sent.reason, done.reason) == (ALLOWED, "sent", "done")
        assert sent.target == f"http://api.test:{origin.port}/v1/x"
        assert "value" not in repr(bench.recorder.events)
        assert done.details["status"] == 200
        assert done.details["received"] > 5


@both
@pytest.mark.parametrize(
    ("url", "method"),
    [
        ("http://api.test:{}/v2/x", "GET"),
        ("http://api.test:{}/v1/../v2", "GET"),
        ("http://api.test:{}/v1/%2e%2e/v2", "GET"),
        ("http://api.test:{}/v1/x", "POST"),
        ("http://other.test:{}/v1/x", "GET"),
        ("http://127.0.0.1:{}/v1/x", "GET"),
        ("https://api.test:{}/v1/x", "GET"),
        ("http://api.test:1/v1/x", "GET"),
        ("http://sub.api.test:{}/v1/x", "GET"),
    ],
)
def test_refuses_what_is_not_granted_without_a_lookup_or_a_socket(url: str, method: str) -> None:
    with Origin() as origin, Bench() as bench:
        grant = rules(local(f"http://api.test:{origin.port}/v1/*", ["GET"]))
        assert refused(bench, grant, url.format(origin.port), method=method) == "denied"
        assert (origin.connections, bench.looked_up) == (0, [])
        assert [(e.verdict, e.reason) for e in bench.recorder.events] == [(DENIED, "not-granted")]


@both
@pytest.mark.case("NET-15")
def test_refuses_what_is_denied_also_in_a_spelling_that_a_lax_server_reads_alike() -> None:
    with Origin() as origin, Bench() as bench:
        base = f"http://api.test:{origin.port}"
        denials = [local(f"{base}/admin/*"), local(f"{base}/secret")]
        grant = rules(local(base), deny=[*denials, local("http://127.0.0.0/9")])
        spellings = """
            /admin/x //admin/x /a/..//admin///x /admin;a=b/x /;a/admin/x /admin%2Fx /admin%5Cx
            /admin%252fx /admin%3Ba/x /secret/ /secret;x /secret%2f
        """
        for path in spellings.split():
            assert refused(bench, rules(local(base), deny=denials), base + path) == "denied", path
        assert (
            refused(
                bench, rules(local(base), deny=[local(f"http://127.0.0.0/9:{origin.port}")]), base
            )
            == "denied"
        )
        assert origin.connections == 0
        for path in ("/adminx", "/secrets", "/x;admin/y", "/x%2Fadmin/y"):
            assert fetch(bench, grant, base + path)[0] == 200


@both
def test_a_denial_without_methods_is_one_of_every_method() -> None:
    with Origin() as origin, Bench() as bench:
        base = f"http://api.test:{origin.port}"
        silent = rules(local(base), deny=[{"allow": f"{base}/x"}])
        writing = rules(local(base), deny=[{"allow": f"{base}/x", "methods": ["DELETE"]}])
        for method in ("GET", "POST", "DELETE"):
            assert refused(bench, silent, f"{base}/x", method=method) == "denied"
        assert refused(bench, writing, f"{base}/x", method="DELETE") == "denied"
        assert origin.connections == 0
        assert fetch(bench, writing, f"{base}/x", method="POST")[0] == 200


@both
def test_refuses_everything_when_nothing_is_granted() -> None:
    with Origin() as origin, Bench() as bench:
        assert refused(bench, rules(), f"http://127.0.0.1:{origin.port}/") == "denied"
        assert origin.connections == 0


@both
@pytest.mark.case("NET-28")
def test_refuses_after_a_revocation_and_drops_its_connections() -> None:
    with Origin() as origin, Bench() as bench:
        grant = rules(local(f"http://api.test:{origin.port}"))
        url = f"http://api.test:{origin.port}/"
        fetch(bench, grant, url)
        fetch(bench, grant, url)
        assert origin.connections == 1  # kept alive while the grant is in force
        grant.allow[0].lease.revoke("operator")
        assert refused(bench, grant, url) in ("closed", "denied")
        again = rules(local(f"http://api.test:{origin.port}"))
        fetch(bench, again, url)
        assert origin.connections == 2  # and never used under another grant
        assert origin.gone.wait(5)


@both
@pytest.mark.case("NET-28")
def test_shares_no_connection_between_grants_in_force() -> None:
    with Origin() as origin, Bench() as bench:
        url = f"http://api.test:{origin.port}/"
        for grant in (one := rules(local(url)), rules(local(url)), one):
            fetch(bench, grant, url)
        assert origin.connections == 2


@both
@pytest.mark.case("NET-07", "NET-28")
def test_uses_a_kept_connection_only_towards_an_address_just_checked() -> None:
    answers = iter([["127.0.0.1"], ["127.0.0.5"], ["127.0.0.1"]])
    with Origin() as origin, Bench({"api.test": lambda: next(answers)}) as bench:
        url = f"http://api.test:{origin.port}/"
        grant = rules({"allow": url, "addresses": ["127.0.0.0/24"]})
        assert fetch(bench, grant, url)[0] == 200
        assert refused(bench, grant, url) == "unavailable"  # nobody listens there
        assert fetch(bench, grant, url)[0] == 200
        assert origin.connections == 1


@both
@pytest.mark.case("NET-28")
def test_shares_no_connection_between_instances() -> None:
    with Origin() as origin, Bench() as a, Bench() as b:
        grant = rules(local(f"http://api.test:{origin.port}"))
        for bench in (a, b):
            fetch(bench, grant, f"http://api.test:{origin.port}/")
        assert origin.connections == 2


@pytest.mark.case("SEC-06")
def test_a_revocation_ends_a_read_that_is_under_way() -> None:
    stop = threading.Event()

    def slow(_: Got) -> Any:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
        stop.wait(10)

    with Origin(slow) as origin, Bench() as bench, in_call() as call:
        grant = rules(local(f"http://api.test:{origin.port}"))
        response = bench.engine.request(
            grant, RequestSpec("GET", f"http://api.test:{origin.port}/"), call
        )
        assert response.read(100) == b"abc"
        threading.Timer(0.1, grant.allow[0].lease.revoke, ["operator"]).start()
        began = time.monotonic()
        with pytest.raises(CapError) as caught:
            response.read(100)
        assert caught.value.word == "closed"
        assert time.monotonic() - began < 2
        with pytest.raises(CapError):
            response.read(100)
        stop.set()


def test_an_interrupted_call_leaves_a_blocked_read() -> None:
    stop = threading.Event()

    def silent(_: Got) -> Any:
        stop.wait(10)
        yield b""

    with Origin(silent) as origin, Bench() as bench, in_call() as call:
        grant = rules(local(f"http://api.test:{origin.port}"))
        threading.Timer(0.1, call.interrupt, ["evicted"]).start()
        began = time.monotonic()
        with pytest.raises(CallInterrupted):
            bench.engine.request(grant, RequestSpec("GET", f"http://api.test:{origin.port}/"), call)
        assert time.monotonic() - began < 2
        assert bench.recorder.events[-1].verdict == FAILED
        stop.set()


@both
def test_sends_nothing_that_it_could_not_record() -> None:
    with Origin() as origin, Bench() as bench:

        def broken(*_: Any, **__: Any) -> None:
            raise AuditError("disk full")

        bench.engine._record = broken
        grant = rules(local(f"http://api.test:{origin.port}"))
        with pytest.raises(AuditError):
            fetch(bench, grant, f"http://api.test:{origin.port}/")
        assert origin.connections == 0


# -- addresses -----------------------------------------------------------------------------------


@both
@pytest.mark.case("NET-01", "NET-04", "NET-05", "NET-06", "NET-08")
@pytest.mark.parametrize(
    "answers",
    [
        ["127.0.0.1"],
        ["8.8.8.8", "127.0.0.1"],
        ["127.0.0.1", "2606:4700::1"],
        ["8.8.8.8", "::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["2002:7f00:1::"],
        ["169.254.169.254"],
        ["fd00:ec2::254"],
        ["fe80::1%lo"],
        ["10.0.0.1"],
        ["100.64.0.1"],
        ["0.0.0.0"],
        ["255.255.255.255"],
        ["ff02::1"],
        ["not an address"],
        ["8.8.8.8"] * 65,
    ],
)
def test_refuses_a_name_that_leads_to_any_address_not_granted(answers: list[str]) -> None:
    with Origin() as origin, Bench({"api.test": answers}) as bench:
        grant = rules({"allow": f"http://api.test:{origin.port}"})
        assert refused(bench, grant, f"http://api.test:{origin.port}/") == "denied"
        assert origin.connections == 0
        assert bench.reasons == ["private-address"]


@both
def test_refuses_a_name_that_leads_past_the_networks_granted() -> None:
    with Origin() as origin, Bench({"api.test": ["127.0.0.1", "127.0.0.2"]}) as bench:
        grant = rules(local(f"http://api.test:{origin.port}"))
        assert refused(bench, grant, f"http://api.test:{origin.port}/") == "denied"
        assert origin.connections == 0


@both
def test_allows_addresses_by_a_network() -> None:
    with Origin() as origin, Bench() as bench:
        grant = rules({"allow": f"http://127.0.0.0/24:{origin.port}"})
        assert fetch(bench, grant, f"http://127.0.0.1:{origin.port}/")[0] == 200
        assert origin.got[0].all("host") == [f"127.0.0.1:{origin.port}"]
        assert refused(bench, grant, f"http://127.0.1.1:{origin.port}/") == "denied"
        # A rule for a network is none for the names that lead into it.
        assert refused(bench, grant, f"http://api.test:{origin.port}/") == "denied"
        assert origin.connections == 1


@both
def test_allows_ipv6() -> None:
    with Origin(host="::1") as origin, Bench({"api.test": ["::1"]}) as bench:
        grant = rules(
            {"allow": f"http://[::1/128]:{origin.port}"},
            {"allow": f"http://api.test:{origin.port}", "addresses": ["::1/128"]},
        )
        for host in ("[::1]", "api.test"):
            assert fetch(bench, grant, f"http://{host}:{origin.port}/")[0] == 200
        assert origin.got[0].all("host") == [f"[::1]:{origin.port}"]


@both
@pytest.mark.case("NET-06")
def test_refuses_this_machine_s_own_public_address() -> None:
    with Bench({"api.test": ["8.8.4.4"]}, own=lambda a: str(a) == "8.8.4.4") as bench:
        assert refused(bench, rules({"allow": "http://api.test"}), "http://api.test/") == "denied"
        assert bench.reasons == ["private-address"]
        assert "own" in bench.recorder.events[0].details["detail"]


@both
@pytest.mark.case("NET-07")
def test_a_name_that_changes_its_answer_is_asked_once_and_pinned() -> None:
    answers = iter([["127.0.0.1"], ["127.0.0.2"], ["127.0.0.1"]])
    with Origin() as origin, Bench({"api.test": lambda: next(answers)}) as bench:
        grant = rules(local(f"http://api.test:{origin.port}"))
        url = f"http://api.test:{origin.port}/"
        assert fetch(bench, grant, url)[0] == 200
        assert len(bench.looked_up) == 1
        assert refused(bench, grant, url) == "denied"  # the kept connection is of no use either
        assert fetch(bench, grant, url)[0] == 200


@both
def test_tries_the_next_address_when_one_is_dead() -> None:
    with Origin() as origin, Bench({"api.test": ["127.0.0.3", "127.0.0.1"]}) as bench:
        grant = rules({"allow": f"http://api.test:{origin.port}", "addresses": ["127.0.0.0/24"]})
        assert fetch(bench, grant, f"http://api.test:{origin.port}/")[0] == 200


@both
@pytest.mark.parametrize("names", [{"api.test": []}, {"api.test": ["127.0.0.4"]}])
def test_says_unavailable_when_nobody_is_there(names: dict[str, list[str]]) -> None:
    with Bench(names) as bench:
        grant = rules({"allow": "http://api.test:1", "addresses": ["127.0.0.0/24"]})
        assert refused(bench, grant, "http://api.test:1/") == "unavailable"
        assert bench.recorder.events[-1].verdict == FAILED
        assert (
            refused(bench, rules({"allow": "nobody.test"}), "https://nobody.test/") == "unavailable"
        )


def test_bounds_the_lookups_of_one_plugin_and_spares_the_others() -> None:
    hold = threading.Event()

    def stuck(name: str, _: int) -> list[str]:
        if name == "slow.test":
            hold.wait(20)
        return ["8.8.8.8"]

    lookups = Lookups(stuck)
    with in_call() as call:
        words = []
        for _ in range(6):
            with pytest.raises(CapError) as caught:
                lookups.addresses("a", "slow.test", 80, Watch(call, (), time.monotonic() + 0.05))
            words.append(caught.value.word)
        assert words == ["timeout"] * 4 + ["unavailable"] * 2
        assert lookups.addresses("b", "fast.test", 80, Watch(call, (), time.monotonic() + 5))
    hold.set()


# -- redirects -----------------------------------------------------------------------------------


@both
@pytest.mark.case("NET-09")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "to",
    [
        "http://other.test:{}/", "//other.test:{}/", "http://127.0.0.1:{}/", "file:///etc/passwd",
        "http://api.test:{}/forbidden", "/forbidden", "../forbidden", "http://api.test:{}@evil.com/",
        "http://2130706433:{}/", "gopher://api.test/", "http://api.test:{}\\@other.test/", "/granted/%2e%2e/forbidden",
    ],
)  # fmt: skip
def test_refuses_a_redirect_to_what_is_not_granted(status: int, to: str) -> None:
    with (
        Origin() as forbidden,
        Bench() as bench,
        Origin(lambda _: redirect(to.format(forbidden.port), status)) as origin,
    ):
        grant = rules(local(f"http://api.test:{origin.port}/granted/*"))
        word = refused(bench, grant, f"http://api.test:{origin.port}/granted/x")
        assert word == "denied"
        assert (origin.connections, forbidden.connections) == (1, 0)
        assert bench.recorder.events[-1].verdict == DENIED


@pytest.mark.case("NET-09")
def test_allows_a_redirect_within_the_grant_and_refuses_the_eleventh() -> None:
    count = iter(range(100))
    ends = [10]

    def answer(_: Got) -> bytes:
        return http() if (n := next(count)) == ends[0] else redirect(f"/{n}")

    with Origin(answer) as origin, Bench() as bench:
        grant = rules(local(f"http://api.test:{origin.port}"))
        status, _, response = fetch(bench, grant, f"http://api.test:{origin.port}/")
        assert (status, response.url) == (200, f"http://api.test:{origin.port}/9")
        ends[0] = 99
        assert refused(bench, grant, f"http://api.test:{origin.port}/") == "denied"
        assert bench.recorder.events[-1].reason == "too-many-redirects"
        assert len(origin.got) == 22


def test_redirects_are_followed_returned_or_refused_as_asked() -> None:
    with (
        Origin(lambda g: http() if " /b " in g.line else redirect("/b")) as origin,
        Bench() as bench,
    ):
        grant = rules(local(f"http://api.test:{origin.port}"))
        url = f"http://api.test:{origin.port}/a"
        assert fetch(bench, grant, url)[0] == 200
        status, _, response = fetch(bench, grant, url, redirects="manual")
        assert (status, dict(response.headers)["Location"]) == (302, "/b")
        assert refused(bench, grant, url, redirects="refuse") == "denied"
        assert refused(bench, grant, url, redirects="maybe") == "invalid"


@pytest.mark.parametrize(
    ("status", "method", "then", "body"),
    [
        (301, "POST", "GET", b""),
        (302, "POST", "GET", b""),
        (303, "POST", "GET", b""),
        (303, "PUT", "GET", b""),
        (302, "PUT", "PUT", b"data"),
        (307, "POST", "POST", b"data"),
        (308, "POST", "POST", b"data"),
    ],
)
def test_a_redirect_changes_the_method_as_fetch_does(
    status: int, method: str, then: str, body: bytes
) -> None:
    with (
        Origin(lambda g: http() if " /b " in g.line else redirect("/b", status)) as origin,
        Bench() as bench,
    ):
        grant = rules(local(f"http://api.test:{origin.port}"))
        url = f"http://api.test:{origin.port}/a"
        headers = [("Content-Type", "text/x"), ("X-Own", "1")]
        fetch(bench, grant, url, method=method, body=b"data", headers=headers)
        got = origin.got[1]
        assert (got.line.split()[0], got.body) == (then, body)
        assert got.all("content-type") == (["text/x"] if body else [])
        assert got.all("x-own") == ["1"]


def test_refuses_a_redirect_whose_new_method_is_not_granted() -> None:
    with Origin(lambda g: redirect("/b", 303)) as origin, Bench() as bench:
        grant = rules(local(f"http://api.test:{origin.port}", ["POST"]))
        url = f"http://api.test:{origin.port}/a"
        assert refused(bench, grant, url, method="POST", body=b"") == "denied"
        assert len(origin.got) == 1


@pytest.mark.case("NET-10")
def test_a_redirect_to_another_origin_goes_without_what_is_personal() -> None:
    with (
        Origin() as other,
        Bench() as bench,
        Origin(lambda _: redirect(f"http://other.test:{other.port}/")) as origin,
    ):
        grant = rules(
            local(f"http://api.test:{origin.port}"), local(f"http://other.test:{other.port}")
        )
        secret = Secret(origins=(f"http://api.test:{origin.port}",), header="X-Key", form="{}")
        headers = [("Authorization", "mine"), ("Cookie", "mine"), ("X-Own", "1")]
        fetch(
            bench,
            grant,
            f"http://api.test:{origin.port}/",
            headers=headers,
            credentials=[secret],
        )
        first, then = origin.got[0], other.got[0]
        assert first.all("authorization") == ["mine"]
        assert first.all("x-key") == [secret.value]
        assert then.all("authorization") == then.all("cookie") == then.all("x-key") == []
        assert then.all("x-own") == ["1"]
        assert secret.asked == [f"http://api.test:{origin.port}"]


def test_refuses_a_redirect_to_two_places() -> None:
    answer = http(b"", 302, [("Location", "/b"), ("Location", "/c")])
    with Origin(lambda _: answer) as origin, Bench() as bench:
        grant = rules(local(f"http://api.test:{origin.port}"))
        assert refused(bench, grant, f"http://api.test:{origin.port}/") == "denied"


# -- TLS -----------------------------------------------------------------------------------------


@both
def test_allows_tls_by_name_to_a_pinned_address(tls: tuple[Path, ssl.SSLContext]) -> None:
    ca_file, server = tls
    with Origin(tls=server) as origin, Bench(ca_file=ca_file) as bench:
        grant = rules(
            local(f"https://api.test:{origin.port}"), local(f"https://127.0.0.1/32:{origin.port}")
        )
        for host in ("api.test", "127.0.0.1"):
            assert fetch(bench, grant, f"https://{host}:{origin.port}/")[:2] == (200, b"hello")


@both
@pytest.mark.case("NET-21")
@pytest.mark.parametrize(
    "how", ["other-name", "other-authority", "system-authorities", "old-version"]
)
def test_refuses_tls_that_is_not_acceptable(
    how: str, tls: tuple[Path, ssl.SSLContext], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca_file, server = tls
    trusted: Path | None = ca_file
    if how == "other-authority":
        trusted, _ = make_tls(tmp_path)
    elif how == "system-authorities":
        trusted = None
        monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))  # must not count
        monkeypatch.setenv("SSL_CERT_DIR", str(ca_file.parent))
    elif how == "old-version":
        _, server = make_tls(tmp_path)
        trusted = tmp_path / "ca.pem"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            server.minimum_version = ssl.TLSVersion.TLSv1
            server.maximum_version = ssl.TLSVersion.TLSv1_1
    with Origin(tls=server) as origin, Bench(ca_file=trusted) as bench:
        host = "other.test" if how == "other-name" else "api.test"
        grant = rules(local(f"https://{host}:{origin.port}"))
        assert refused(bench, grant, f"https://{host}:{origin.port}/") in (
            "insecure",
            "unavailable",
        )
        assert origin.got == []


@both
def test_refuses_plain_http_where_tls_was_expected(tls: tuple[Path, ssl.SSLContext]) -> None:
    with Origin() as origin, Bench(ca_file=tls[0]) as bench:
        grant = rules(local(f"https://api.test:{origin.port}"))
        word = refused(bench, grant, f"https://api.test:{origin.port}/", timeout_ms=500)
        # Depends on whether the listener answers the handshake, hangs up or waits for more.
        assert word in ("insecure", "unavailable", "timeout")
        assert len(bench.engine._pool) == 0


@pytest.mark.case("NET-09")
def test_refuses_a_redirect_from_https_to_http(tls: tuple[Path, ssl.SSLContext]) -> None:
    ca_file, server = tls
    with (
        Origin() as plain,
        Bench(ca_file=ca_file) as bench,
        Origin(lambda _: redirect(f"http://api.test:{plain.port}/"), tls=server) as origin,
    ):
        grant = rules(
            local(f"https://api.test:{origin.port}"), local(f"http://api.test:{plain.port}")
        )
        assert refused(bench, grant, f"https://api.test:{origin.port}/") == "denied"
        assert bench.recorder.events[-1].reason == "redirect-downgrade"
        assert plain.connections == 0
        assert fetch(bench, grant, f"http://api.test:{plain.port}/")[0] == 200


@both
@pytest.mark.case("NET-21")
def test_no_variable_of_the_environment_steers_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine api.test login me password hunter2\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with Origin() as proxy, Origin() as origin, Bench() as bench:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", "")
        grant = rules(local(f"http://api.test:{origin.port}"))
        assert fetch(bench, grant, f"http://api.test:{origin.port}/")[0] == 200
        assert (proxy.connections, origin.connections) == (0, 1)
        assert origin.got[0].all("authorization") == []


@both
def test_refuses_a_body_that_was_cut_within_tls(tls: tuple[Path, ssl.SSLContext]) -> None:
    ca_file, server = tls
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\npart"
    with Origin(lambda _: [head, b""], tls=server) as origin, Bench(ca_file=ca_file) as bench:
        grant = rules(local(f"https://api.test:{origin.port}"))
        assert refused(bench, grant, f"https://api.test:{origin.port}/") == "unavailable"
