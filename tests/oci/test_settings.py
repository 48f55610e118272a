"""registries.toml and files of credentials: strict, private, and for just the host that they name."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from capwasm.errors import RepositoryError
from capwasm.oci.reference import Reference
from capwasm.oci.registries import Registries
from capwasm.oci.settings import Credentials, credentials_of, load, settings_of
from tests.caps.net.servers import http, make_tls
from tests.helpers import ListRecorder

from .servers import CAPSULE, CREDENTIALS, PASSWORD, USER, Registry, code_of

WHOLE = """schema = 1

[[registry]]
host = "ghcr.example"
realm = "https://auth.example/token"
credentials = "login.json"
ca-file = "ca.pem"

[[registry]]
host = "10.0.0.1:5000"
plain-http = true
"""


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def login(path: Path, mode: int = 0o600, **auths: Any) -> Path:
    return write(path, json.dumps({"auths": auths, "credsStore": "desktop"}), mode)


def test_a_registry_has_the_settings_of_just_its_host_and_port(tmp_path: Path) -> None:
    found = load(write(tmp_path / "registries.toml", WHOLE))
    ghcr = settings_of(found, Reference.parse("oci://ghcr.example/w:1"))
    assert (ghcr.realm, ghcr.credentials) == ("https://auth.example/token", "login.json")
    for other in ("ghcr.example:444", "x.ghcr.example", "10.0.0.1", "10.0.0.1:5001"):
        settings = settings_of(found, Reference.parse(f"oci://{other}/w:1"))
        assert (settings.realm, settings.credentials, settings.plain_http) == (None, None, False)
    assert load(tmp_path / "none.toml") == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "schema = 2",
        "schema = 1\nregistries = []",
        'schema = 1\n[[registry]]\nhost = "GHCR.example"',
        'schema = 1\n[[registry]]\nhost = "https://ghcr.example"',
        'schema = 1\n[[registry]]\nhost = "ghcr.example/acme"',
        'schema = 1\n[[registry]]\nhost = "a.example"\n[[registry]]\nhost = "a.example"',
        'schema = 1\n[[registry]]\nhost = "a.example"\nrealm = "http://auth.example/"',
        'schema = 1\n[[registry]]\nhost = "a.example"\npassword = "x"',
        "schema = ",
    ],
)
def test_refuses_a_file_with_faults(tmp_path: Path, text: str) -> None:
    assert code_of(lambda: load(write(tmp_path / "r.toml", text))) == "oci.config"


@pytest.mark.case("SIG-25")
def test_refuses_settings_that_others_can_write(tmp_path: Path) -> None:
    path = write(tmp_path / "r.toml", WHOLE, 0o666)
    assert code_of(lambda: load(path)) == "oci.config"


def test_credentials_are_for_just_the_host_that_they_name(tmp_path: Path) -> None:
    auth = base64.b64encode(b"bot:a:b").decode()
    entry = {"username": USER, "password": PASSWORD}
    path = login(tmp_path / "l.json", **{"a.example": {"auth": auth}, "b.example:444": entry})
    assert credentials_of(path, "a.example") == Credentials("bot", "a:b")
    assert credentials_of(path, "b.example:444") == CREDENTIALS
    for other in ("b.example", "a.example:443", "x.a.example", "example"):
        assert credentials_of(path, other) is None


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ('{"auths": {}}', 0o640),
        ('{"auths": {}}', 0o604),
        ("[]", 0o600),
        ("{", 0o600),
        ('{"auths": []}', 0o600),
        ('{"auths": {"a.example": {"auth": "%%"}}}', 0o600),
        ('{"auths": {"a.example": {"auth": ""}}}', 0o600),
        ('{"auths": {"a.example": {"identitytoken": "x"}}}', 0o600),
        ('{"auths": {"a.example": {"username": "a\\nb", "password": "x"}}}', 0o600),
    ],
)
def test_refuses_a_file_of_credentials(tmp_path: Path, text: str, mode: int) -> None:
    path = write(tmp_path / "l.json", text, mode)
    assert code_of(lambda: credentials_of(path, "a.example")) == "oci.credentials"
    assert code_of(lambda: credentials_of(tmp_path / "none", "a.example")) == "oci.credentials"


def test_a_push_and_a_pull_by_the_settings_are_recorded(tmp_path: Path, registry: Registry) -> None:
    registry.login = (CREDENTIALS.basic, 'Basic realm="x"')
    login(tmp_path / "l.json", **{registry.authority: {"username": USER, "password": PASSWORD}})
    file = write(
        tmp_path / "registries.toml",
        f'schema = 1\n[[registry]]\nhost = "{registry.authority}"\ncredentials = "l.json"\n',
    )
    recorder = ListRecorder()
    registries = Registries(file, recorder=recorder)
    sent = registries.push(CAPSULE, registry.reference)
    assert registries.pull(registry.reference).capsule == CAPSULE
    registry.lie = lambda _: http(b"", 500)
    with pytest.raises(RepositoryError):
        registries.pull(registry.reference)
    registry.lie = lambda _: None
    registry.edit(lambda doc: doc.pop("annotations"))
    with pytest.raises(RepositoryError):
        registries.pull(registry.reference)
    told = [(e.action, e.verdict, e.target, e.reason) for e in recorder.events]
    tag = str(registry.reference)
    assert told[:2] == [("push", "allowed", tag, ""), ("pull", "allowed", str(sent.reference), "")]
    assert told[2] == ("pull", "failed", tag, "oci.status")
    assert told[3] == ("pull", "denied", tag, "oci.no-capsule")
    assert PASSWORD not in str(recorder.events)


def test_files_are_named_from_where_the_settings_are(tmp_path: Path) -> None:
    _, tls = make_tls(tmp_path)  # writes ca.pem
    with Registry(tls=tls) as registry:
        file = tmp_path / "registries.toml"
        head = f'schema = 1\n[[registry]]\nhost = "{registry.authority}"\n'
        write(file, f'{head}ca-file = "ca.pem"\n')
        registries = Registries(file)
        registries.push(CAPSULE, registry.reference)
        assert registries.pull(registry.reference).capsule == CAPSULE
        write(file, f'{head}ca-file = "none.pem"\n')
        assert code_of(lambda: registries.pull(registry.reference)) == "repository.tls"
