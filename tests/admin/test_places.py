"""Where the page is served, over what, as whom, and within what."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette
from starlette.routing import Mount

from capwasm import admin
from capwasm.admin.server import serve, settle
from capwasm.capsule.keys import PrivateKey
from capwasm.cli import capwasm
from capwasm.errors import AdminError
from capwasm.registry.desk import Desk
from capwasm.review.finding import Finding, Report, Severity
from tests.admin.conftest import POLICY, Office, office
from tests.admin.place import FORM, TOKEN, Reply, Site, Visitor, served
from tests.kit import guest

PROGRAM = [sys.executable, "-c", "from capwasm.cli import main; main()"]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "admin.acme.example")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    pem, encoding = folder / "c.pem", serialization.Encoding.PEM
    pem.write_bytes(made.public_bytes(encoding))
    (folder / "k.pem").write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pem, folder / "k.pem"


# -- where ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "options", "says"),
    [
        ("0.0.0.0", {}, "--expose"),
        ("::", {}, "--expose"),
        ("192.0.2.1", {}, "--expose"),
        ("0.0.0.0", {"expose": True}, "TLS"),
        ("localhost", {}, "IP address"),
        ("evil\x1b[2J", {}, "IP address"),
        ("127.0.0.1", {"certificate": Path("/none")}, "go together"),
        ("127.0.0.1", {"certificate": Path("/none"), "key": Path("/none")}, "no certificate"),
        ("192.0.2.1", {"expose": True, "tls": True}, "can't listen"),
    ],
)
def test_refuses_a_place_that_is_not_safe_or_not_there(
    host: str, options: dict[str, Any], says: str, tls: tuple[Path, Path]
) -> None:
    words = dict(options)
    if words.pop("tls", False):
        words |= {"certificate": tls[0], "key": tls[1]}
    with pytest.raises(AdminError, match=says) as caught:
        settle(host, 0, **words).listener.close()

    assert caught.value.code == "admin.serve"
    assert "\x1b" not in str(caught.value)


def test_refuses_a_port_that_is_taken_and_a_key_of_another_certificate(
    tls: tuple[Path, Path], tmp_path: Path
) -> None:
    with (
        contextlib.closing(settle("127.0.0.1", 0).listener) as taken,
        pytest.raises(AdminError, match="can't listen"),
    ):
        settle("127.0.0.1", taken.getsockname()[1])
    other = ec.generate_private_key(ec.SECP256R1())
    for encryption in (
        serialization.NoEncryption(),
        serialization.BestAvailableEncryption(b"word"),
    ):
        (tmp_path / "k.pem").write_bytes(
            other.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
            )
        )
        with pytest.raises(AdminError, match="no certificate"):
            settle("127.0.0.1", 0, certificate=tls[0], key=tmp_path / "k.pem")


def test_allows_every_loopback_address_and_takes_a_new_name_each_time() -> None:
    seen = set()
    for host in ("127.0.0.1", "127.0.0.1", "127.8.9.1"):
        place = settle(host, 0)
        place.listener.close()
        assert not place.secure
        seen.add(place.url.partition(".localhost")[0])
        assert {h.rpartition(":")[0] for h in place.hosts} >= {host, "localhost"}
    assert len(seen) == 3


def test_allows_other_machines_over_tls_and_by_their_name_alone(tls: tuple[Path, Path]) -> None:
    place = settle(
        "0.0.0.0", 0, expose=True, names=("admin.acme.example",), certificate=tls[0], key=tls[1]
    )
    port = place.listener.getsockname()[1]
    place.listener.close()

    assert place.url == f"https://admin.acme.example:{port}/"
    assert place.hosts == {f"admin.acme.example:{port}", f"0.0.0.0:{port}"}


def test_over_tls_cookies_are_bound_to_this_host(shop: Office, tls: tuple[Path, Path]) -> None:
    place = settle("127.0.0.1", 0, certificate=tls[0], key=tls[1])
    page = admin.app(shop.home, token=TOKEN, hosts=place.hosts, secure=True)
    port = place.listener.getsockname()[1]
    with running(page, place):
        context = ssl._create_unverified_context()
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
            context.wrap_socket(plain) as line,
        ):
            line.sendall(
                f"GET /login HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()
            )
            answer = b""
            while part := line.recv(65536):
                answer += part
        head = answer.partition(b"\r\n\r\n")[0].decode()
        assert re.search(r"set-cookie: __Host-capwasm-in=[^;]+;.*; Path=/;.*Secure", head)
        assert "domain" not in head.lower()
        # And who speaks plainly to it gets nothing.
        with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
            plain.sendall(b"GET /login HTTP/1.1\r\nHost: x\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert b"<form" not in plain.recv(65536)


@contextlib.contextmanager
def running(page: Any, place: Any) -> Iterator[None]:
    ready, made = threading.Event(), []
    thread = threading.Thread(
        target=serve, args=(page, place), kwargs={"ready": ready.set, "made": made.append}
    )
    thread.start()
    assert ready.wait(20)
    try:
        yield
    finally:
        made[0].should_exit = True
        thread.join(20)


def test_allows_a_core_to_mount_it_below_a_path(shop: Office) -> None:
    place = settle("127.0.0.1", 0)
    page = admin.app(
        shop.home, token=TOKEN, hosts=place.hosts, secure=False, mounted=True, user="core"
    )
    core = Starlette(routes=[Mount("/plugins-admin", page)])
    with running(core, place):
        site = Site(shop.home, page, place, threading.current_thread())
        visitor = Visitor(site)
        login = visitor.get("/plugins-admin/login")
        assert 'href="/plugins-admin/static/style.css"' in login.text
        fields = {"form": login.form, "token": TOKEN}
        assert visitor.post("/login", fields).status == 404
        entered = visitor.post("/plugins-admin/login", fields)
        assert (entered.status, entered.headers["location"]) == (303, "/plugins-admin/")
        assert "Path=/plugins-admin" in entered.headers["set-cookie"]
        text = visitor.get("/plugins-admin/").text
        assert 'href="/plugins-admin/reviews"' in text
        assert not re.findall(r'(?:href|src|action)="/(?!plugins-admin/)', text)
        assert 'aria-current="page"' in text
        assert visitor.get("/plugins-admin/static/live.js").status == 200
        done = visitor.post("/plugins-admin/audit/commands/verify", {"form": FORM.findall(text)[0]})
        assert done.headers["location"].startswith("/plugins-admin/audit")


def test_refuses_to_be_made_without_hosts_or_with_a_short_token(tmp_path: Path) -> None:
    for token, hosts in (("short", ["a"]), (TOKEN, [])):
        with pytest.raises(ValueError, match=r"token|hosts"):
            admin.app(tmp_path, token=token, hosts=hosts)
    assert admin.app(tmp_path, token=admin.new_token(), hosts=["a"])


# -- as whom ----------------------------------------------------------------------------------------


def test_refuses_to_sign_without_a_key_and_allows_what_needs_none(tmp_path: Path) -> None:
    made = office(tmp_path, 'schema = 1\n[plugins."*".log]\n')
    made.registry.install(made.world.capsule(guest("hostile")), who="eve")
    with served(made.home, user="olga") as site:
        visitor = Visitor(site)
        visitor.sign_in()
        form = visitor.form
        case = "/reviews/test.guest/1.0.0"
        more = {"form": form, "reason": "r", "seen": "yes", "shown": "x"}
        exception = {**more, "what": "unreviewed", "expires": "2030-01-01"}
        assert visitor.post(f"{case}/approve", more).code == "admin.key"
        assert visitor.post(f"{case}/except", exception).code == "admin.key"
        assert "Sign the approval" not in visitor.get(case).text
        for deed in ("kill", "suspend", "resume"):
            assert visitor.post(f"/plugins/test.guest/{deed}", more).status == 303, deed
        assert visitor.post("/plugins/test.nobody/kill", more).code == "registry.unknown"
        assert visitor.post(f"{case}/revoke", more).code == "admin.request"
        assert visitor.post(f"{case}/revoke", {**more, "sure": "yes"}).status == 303
        assert visitor.post("/plugins/test.guest/resume", more).code == "registry.state"
    steps = made.registry.history("test.guest")[-4:]
    assert [(s.action, s.mark.who, s.mark.why) for s in steps] == [
        (action, "olga", "r") for action in ("kill", "suspend", "activate", "revoke")
    ]
    made.close()


def test_refuses_a_key_that_does_not_count_and_an_approval_of_what_was_not_shown(
    shop: Office,
) -> None:
    case = "/reviews/test.guest/1.1.0"
    with served(shop.home, key=PrivateKey.generate(), user="mallory") as site:
        visitor = Visitor(site)
        visitor.sign_in()
        page = visitor.get(case)
        assert "does not count" in page.text
        shown = re.search(r'name="shown" value="([^"]+)"', page.text)
        assert shown is not None
        fields = {"form": page.form, "reason": "r", "seen": "yes", "shown": shown[1]}
        assert visitor.post(f"{case}/approve", fields).code == "review.key"
    with served(shop.home, key=shop.bob) as site:
        visitor = Visitor(site)
        visitor.sign_in()
        fields["form"] = visitor.form
        unseen = {k: v for k, v in fields.items() if k != "seen"}
        assert visitor.post(f"{case}/approve", unseen).code == "admin.request"
        assert (
            visitor.post(f"{case}/approve", {**fields, "shown": "other"}).code == "review.changed"
        )
        assert visitor.post(f"{case}/approve", fields).status == 303
        assert "bob" in visitor.get(case).text
        assert visitor.post(f"{case}/reject", {**fields, "reason": "no"}).status == 303
        rejected = visitor.get(case)
        assert rejected.status in (200, 404)


def test_allows_an_exception_by_two_pages_and_refuses_half_of_one(tmp_path: Path) -> None:
    made = office(tmp_path, POLICY.replace("approvals = 2", "approvals = 1"))
    keys = {role: PrivateKey.generate() for role in ("security", "engineering")}
    trust = made.home / "trust.toml"
    for role, key in keys.items():
        trust.write_text(
            f'{trust.read_text()}[[key]]\nname = "{role}"\npublic = "{key.public.base64()}"\n'
            f'roles = ["{role}"]\nids = ["*"]\n'
        )
    capsule = made.world.capsule(guest("hostile"), "[log]\n")
    made.registry.submit(capsule, who="eve")
    record = made.registry.show("test.guest").versions[0]
    finding = Finding("texts.address", Severity.HIGH, "An address.", "plugin.wasm", "203.0.113.9")
    report = Report(
        "test.guest", "1.0.0", record.archive, "2026-01-31T00:00:00Z", 60, (), (), (finding,)
    )
    Desk(made.registry).scanned("test.guest", "1.0.0", report)
    made.registry.close()
    case = "/reviews/test.guest/1.0.0"
    until = (dt.datetime.now(dt.UTC) + dt.timedelta(days=20)).date().isoformat()

    def sign(who: str, **changed: str) -> Reply:
        with served(made.home, key=keys[who]) as site:
            visitor = Visitor(site)
            visitor.sign_in()
            page = visitor.get(case)
            shown = re.search(r'name="shown" value="([^"]+)"', page.text)
            assert shown is not None
            fields = {"form": page.form, "reason": "A test server.", "shown": shown[1]}
            fields |= {"what": "texts.address", "expires": until, **changed}
            visitor.post(f"{case}/approve", {**fields, "seen": "yes"})  # not his to say
            done = visitor.post(f"{case}/except", fields)
            return done if done.status != 303 else visitor.get("/exceptions")

    assert sign("security", expires="").code == "admin.request"
    assert sign("security", expires="2020-01-01").code == "review.expiry"
    assert sign("security", expires="2099-01-01").code == "review.expiry"
    assert sign("security", what="other.rule").code == "review.finding"
    assert sign("security", shown="older").code == "review.changed"
    assert ">pending<" in sign("security").text
    assert ">in force<" not in sign("security").text  # one person is not two
    with served(made.home, key=made.ann) as site:
        visitor = Visitor(site)
        visitor.sign_in()
        shown = re.search(r'name="shown" value="([^"]+)"', visitor.get(case).text)
        assert shown is not None
        fields = {"form": visitor.form, "reason": "r", "shown": shown[1]}
        refused = visitor.post(f"{case}/activate", fields).code
        assert refused.startswith("review.")
        assert refused != "review.changed"
        assert ">in force<" in sign("engineering").text
        done = visitor.post(f"{case}/activate", fields)
        assert (done.status, done.headers["location"]) == (303, "/plugins/test.guest")
    made.close()


# -- the command ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["--host", "0.0.0.0"], 1, "admin.serve"),
        (["--host", "0.0.0.0", "--expose"], 1, "TLS"),
        (["--port", "70000"], 2, "70000"),
        (["--key", "none.key"], 1, "trust.unreadable"),
    ],
)
def test_refuses_to_serve_so(tmp_path: Path, args: list[str], code: int, says: str) -> None:
    done = CliRunner().invoke(capwasm, ["serve", "--home", str(tmp_path), *args])

    assert done.exit_code == code
    assert says in done.output


def test_refuses_to_serve_without_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "starlette", None)
    done = CliRunner().invoke(capwasm, ["serve", "--home", str(tmp_path)])

    assert done.exit_code == 1
    assert "pip install 'capwasm[admin]'" in done.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_allows_to_serve_until_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [*PROGRAM, "serve", "--home", str(tmp_path / "home"), "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    told = json.loads(line)
    assert told["login"].startswith(f"{told['url']}login#")
    assert told["key-id"] is None
    process.send_signal(number)
    out, err = process.communicate(timeout=20)

    assert (process.returncode, out, err) == (0, "", "")
    assert not (tmp_path / "home").exists()  # nothing was read or made by that


def test_importing_the_package_imports_none_of_it() -> None:
    code = "import sys, capwasm, capwasm.cli; print({'starlette', 'jinja2', 'uvicorn'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "set()"
