"""Credentials are shown to whom they are for, when they are asked for, and to nobody else."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capwasm.errors import RepositoryError
from capwasm.oci.settings import Credentials
from capwasm.web import Patience
from tests.caps.net.servers import Origin, http, make_tls

from .servers import CAPSULE, CREDENTIALS, Registry, code_of, when

TOKEN = "t0k3n.of-ours_=="


def granted(token: object = TOKEN) -> bytes:
    return http(json.dumps({"token": token}).encode())


def wanting(registry: Registry, realm: str, more: str = "") -> None:
    registry.login = (f"Bearer {TOKEN}", f'Bearer realm="{realm}",service="reg istry"{more}')


def test_a_token_is_asked_for_at_home_for_just_what_is_done(pushed: Registry) -> None:
    wanting(pushed, f"{pushed.url}/token?a=b", ',scope="repository:other/secret:pull,push,delete"')
    pushed.lie = when("/token", granted())
    assert pushed.pull(credentials=CREDENTIALS).capsule == CAPSULE
    [asked] = [got for got in pushed.origin.got if "/token" in got.line]
    scope = "repository:acme/weather:pull"
    assert asked.line == f"GET /token?a=b&service=reg%20istry&scope={scope} HTTP/1.1"
    assert asked.all("authorization") == [CREDENTIALS.basic]
    assert pushed.shown == {CREDENTIALS.basic, f"Bearer {TOKEN}"}
    pushed.origin.got.clear()
    pushed.push(credentials=CREDENTIALS)
    assert any(f"scope={scope},push " in got.line for got in pushed.origin.got)


def test_without_credentials_a_token_is_asked_for_as_nobody(pushed: Registry) -> None:
    wanting(pushed, f"{pushed.url}/token")
    pushed.lie = when("/token", granted())
    assert pushed.pull().capsule == CAPSULE
    assert pushed.shown == {f"Bearer {TOKEN}"}


class Far:
    """A registry over https whose tokens come from another host."""

    def __init__(self, registry: Registry, tokens: Origin, ca_file: Path) -> None:
        self.registry = registry
        self.tokens = tokens
        self.realm = f"https://127.0.0.1:{tokens.port}/token"
        self.ca_file = str(ca_file)

    def pull(self, **words: Any) -> bytes:
        return self.registry.pull(ca_file=self.ca_file, **words).capsule


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    ca_file, tls = make_tls(tmp_path)
    with Registry(tls=tls) as registry, Origin(lambda _: granted(), tls=tls) as tokens:
        registry.push(ca_file=str(ca_file))
        registry.origin.got.clear()
        made = Far(registry, tokens, ca_file)
        wanting(registry, made.realm)
        yield made


def test_another_host_is_not_sent_the_credentials_because_the_registry_says_so(far: Far) -> None:
    assert code_of(lambda: far.pull(credentials=CREDENTIALS)) == "oci.realm"
    assert far.tokens.connections == 0
    # Neither where the operator named another place of that host.
    elsewhere = far.realm.replace("/token", "/other")
    assert code_of(lambda: far.pull(credentials=CREDENTIALS, realm=elsewhere)) == "oci.realm"
    assert far.tokens.connections == 0
    assert far.registry.shown == set()


def test_another_host_is_sent_them_because_the_operator_says_so(far: Far) -> None:
    assert far.pull(credentials=CREDENTIALS, realm=far.realm) == CAPSULE
    assert [got.all("authorization") for got in far.tokens.got] == [[CREDENTIALS.basic]]
    assert far.registry.shown == {f"Bearer {TOKEN}"}


def test_another_host_may_be_asked_as_nobody_over_https(far: Far) -> None:
    assert far.pull() == CAPSULE
    assert [got.all("authorization") for got in far.tokens.got] == [[]]


@pytest.mark.parametrize(
    "to", ["http://127.0.0.1:{0}/token", "http://localhost:{0}/", "", "x", "//y"]
)
def test_a_token_is_asked_for_nowhere_else(pushed: Registry, to: str) -> None:
    with Origin(lambda _: granted()) as other:
        wanting(pushed, to.format(other.port))
        assert code_of(pushed.pull) == "oci.realm"
        assert code_of(lambda: pushed.pull(credentials=CREDENTIALS)) == "oci.realm"
    assert other.connections == 0


@pytest.mark.parametrize(
    ("challenge", "code"),
    [
        ("Negotiate", "oci.challenge"),
        ("Digest realm=x", "oci.challenge"),
        ("Bearer", "oci.challenge"),
        ('Bearer realm="unclosed', "oci.challenge"),
        ('Bearer realm="a",realm="b"', "oci.challenge"),
        ('Bearer realm="a" service="b"', "oci.challenge"),
        ("Bearer " + "a=b," * 2000, "oci.challenge"),
        ('Bearer service="x"', "oci.realm"),
        ("", "oci.challenge"),
    ],
)
def test_a_challenge_that_is_none(pushed: Registry, challenge: str, code: str) -> None:
    pushed.login = ("never", challenge)
    assert code_of(lambda: pushed.pull(credentials=CREDENTIALS)) == code
    assert pushed.shown == set()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (granted(""), "oci.token"),
        (granted(7), "oci.token"),
        (granted("a\r\nHost: evil"), "oci.token"),
        (granted("a b"), "oci.token"),
        (granted("x" * 20_000), "oci.token"),
        (http(b"[]"), "oci.token"),
        (http(b"{"), "oci.token"),
        (http(b"x" * 70_000), "repository.too-large"),
        (http(b"", 500), "oci.token"),
        (http(b"", 302, [("Location", "/elsewhere")]), "oci.token"),
        (http(b"", 401), "oci.credentials"),
        (http(b"", 403), "oci.credentials"),
    ],
)
def test_a_token_that_is_none(pushed: Registry, answer: bytes, code: str) -> None:
    wanting(pushed, f"{pushed.url}/token")
    pushed.lie = when("/token", answer)
    assert code_of(lambda: pushed.pull(credentials=CREDENTIALS)) == code


def test_a_token_that_does_not_help_is_not_asked_for_for_ever(pushed: Registry) -> None:
    wanting(pushed, f"{pushed.url}/token")
    pushed.lie = when("/token", granted("another"))
    assert code_of(pushed.pull) == "oci.denied"
    assert len([line for line in pushed.lines if "/token" in line]) == 1


def test_a_password_is_sent_only_once_it_is_asked_for(pushed: Registry) -> None:
    pushed.login = (CREDENTIALS.basic, 'Basic realm="x"')
    assert code_of(pushed.pull) == "oci.credentials"
    assert pushed.shown == set()
    assert pushed.pull(credentials=CREDENTIALS).capsule == CAPSULE
    assert pushed.shown == {CREDENTIALS.basic}
    false = Credentials("bot", "guessed")
    assert code_of(lambda: pushed.pull(credentials=false)) == "oci.denied"


def own_address() -> str:
    """An address of this machine's that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        with contextlib.suppress(OSError):
            probe.connect(("192.0.2.1", 9))  # sends nothing
        address = str(probe.getsockname()[0])
    if address in ("0.0.0.0", "127.0.0.1"):
        pytest.skip("needs a network interface beside loopback")
    return address


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_a_password_never_goes_to_another_machine_in_the_clear(scheme: str) -> None:
    with Registry(host=own_address()) as registry:
        # TLS is what is tried, and nothing else.
        quick = Patience(idle=0.3, total=0.6)
        assert code_of(lambda: registry.push(patience=quick)) == "repository.timeout"
        assert not any("/v2/" in line for line in registry.lines)
        registry.push(plain_http=True)
        assert registry.pull(plain_http=True).capsule == CAPSULE
        if scheme == "basic":
            registry.login = (CREDENTIALS.basic, 'Basic realm="x"')
        else:
            wanting(registry, f"{registry.url}/token")
        with pytest.raises(RepositoryError) as caught:
            registry.pull(plain_http=True, credentials=CREDENTIALS)
        assert caught.value.code == "repository.insecure"
        assert registry.shown == set()


def test_nothing_prints_a_password() -> None:
    assert CREDENTIALS.password not in repr(CREDENTIALS)
    assert CREDENTIALS.user not in str(CREDENTIALS)


@pytest.mark.parametrize("user", ["", "a:b", "a\r\nx", "\u202ea"])
def test_a_user_that_no_header_can_hold(user: str) -> None:
    assert code_of(lambda: Credentials(user, "x")) == "oci.credentials"
    assert code_of(lambda: Credentials("x", "a\nb")) == "oci.credentials"
