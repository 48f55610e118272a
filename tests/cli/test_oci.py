"""`capwasm push | pull` and `capwasm install oci://…`, against docker-registry and against lies."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from capwasm.capsule.keys import PrivateKey
from capwasm.cli import capwasm
from capwasm.cli._progress import BytesLine
from capwasm.home import Home
from capwasm.record.audit import tail
from tests.caps.net.servers import http
from tests.kit import World, guest
from tests.oci.servers import (
    CREDENTIALS,
    PASSWORD,
    USER,
    Registry,
    needs_real,
    real_registry,
    when,
)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path)
    monkeypatch.setenv("CAPWASM_HOME", str(world.home))
    monkeypatch.chdir(tmp_path)
    return world


@pytest.fixture
def real(tmp_path: Path) -> Iterator[str]:
    with real_registry(tmp_path / "registry") as authority:
        yield f"oci://{authority}/test/guest"


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as made:
        yield made


def run(*args: object, stdin: str = "") -> Result:
    return CliRunner().invoke(capwasm, [str(a) for a in args], input=stdin)


def data(*args: object) -> Any:
    done = run(*args, "--json")
    assert (done.exit_code, done.stderr) == (0, ""), done.output
    return json.loads(done.stdout)


def code(*args: object) -> str:
    done = run(*args, "--json")
    assert done.exit_code == 1, done.output
    return str(json.loads(done.stdout)["code"])


def file(world: World, version: str = "1.0.0", **about: Any) -> Path:
    path = world.home.parent / f"{version}.capsule"
    path.write_bytes(world.capsule(guest("hostile"), "", version=version, **about))
    return path


@needs_real
def test_from_one_machine_to_another(world: World, real: str) -> None:
    capsule = file(world)
    sent = data("push", capsule, f"{real}:1.0.0")
    assert (sent["before"], sent["uploaded"], len(sent["referrers"])) == (None, 5, 2)
    assert sent["reference"] == f"{real}:1.0.0@{sent['digest']}"
    assert "it was there already" in run("push", capsule, f"{real}:1.0.0").output
    found = data("pull", f"{real}:1.0.0", "-o", "here.capsule")
    assert Path("here.capsule").read_bytes() == capsule.read_bytes()
    assert found["verified"]
    assert found["reference"] == sent["reference"]
    assert "signed by" in run("pull", f"{real}@{sent['digest']}").output
    assert Path("test.guest-1.0.0.capsule").read_bytes() == capsule.read_bytes()


@needs_real
@pytest.mark.case("SIG-15")
def test_a_tag_that_went_back_is_refused_and_what_is_remembered_is_a_digest(
    world: World, real: str
) -> None:
    tag = f"{real}:stable"
    old = data("push", file(world), tag)
    assert data("install", tag)["action"] == "installed"
    new = data("push", file(world, "1.1.0"), tag, "--move")
    assert new["before"] == old["digest"]
    assert data("install", tag)["serving"] == "1.1.0"
    versions = data("show", "test.guest")["versions"]
    sources = {v["version"]: v["source"] for v in versions}
    assert sources == {"1.0.0": old["reference"], "1.1.0": new["reference"]}
    # Whoever may push moves the tag back; every signature is true, and still:
    data("push", file(world), tag, "--move")
    assert code("install", tag) == "verify.rollback"
    assert code("install", f"{real}@{old['digest']}") == "verify.rollback"
    assert data("list")[0]["serving"] == "1.1.0"
    # Where a person agrees, the same source is good.
    run("permit", "test.guest", "downgrade", "1.0.0")
    assert data("install", f"{real}@{new['digest']}")["serving"] == "1.1.0"


@pytest.mark.case("SIG-01", "SIG-06")
def test_what_is_signed_by_nobody_who_is_trusted_is_neither_written_nor_installed(
    world: World, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world, "key", PrivateKey.generate())
    data("push", file(world), registry.reference)
    assert code("pull", registry.reference, "-o", "x.capsule") == "verify.untrusted-key"
    assert code("install", registry.reference) == "verify.untrusted-key"
    assert not Path("x.capsule").exists()
    assert data("list") == []
    (world.home / "trust.toml").unlink()
    done = run("pull", registry.reference, "-o", "x.capsule")
    assert "not verified" in done.output
    assert Path("x.capsule").exists()
    assert code("install", registry.reference) == "verify.no-trust-store"


def test_a_file_that_is_there_stays(world: World, registry: Registry) -> None:
    capsule = file(world)
    data("push", capsule, registry.reference)
    Path("x.capsule").write_bytes(b"mine")
    assert code("pull", registry.reference, "-o", "x.capsule") == "artifact.unreadable"
    assert Path("x.capsule").read_bytes() == b"mine"
    data("pull", registry.reference, "-o", "x.capsule", "--force")
    assert Path("x.capsule").read_bytes() == capsule.read_bytes()
    assert code("pull", registry.reference, "-o", "none/x.capsule") == "artifact.unreadable"


def test_lies_leave_nothing(world: World, registry: Registry) -> None:
    data("push", file(world), registry.reference)
    registry.lie = when("/blobs/", http(b"something else"))
    assert code("pull", registry.reference, "-o", "x.capsule") == "oci.size"
    assert code("install", registry.reference) == "oci.size"
    assert not list(Path().glob("*x.capsule*"))
    assert data("list") == []
    [record] = [r for r in tail(Home(world.home).audit_commands, 100) if r["action"] == "pull"][:1]
    assert (record["verdict"], record["reason"]) == ("denied", "oci.size")


def test_a_password_is_asked_for_and_never_an_argument(world: World, registry: Registry) -> None:
    registry.login = (CREDENTIALS.basic, 'Basic realm="x"')
    capsule = file(world)
    words = ("push", capsule, registry.reference)
    assert code(*words) == "oci.credentials"
    done = run(*words, "--user", USER, stdin=f"{PASSWORD}\n")
    assert done.exit_code == 0, done.output
    assert PASSWORD not in done.output
    assert run(*words, "--user", USER, stdin="").exit_code == 1
    login = Path("login.json")
    entry = {"username": USER, "password": PASSWORD}
    login.write_text(json.dumps({"auths": {registry.authority: entry}}))
    login.chmod(0o644)
    assert code(*words, "--credentials", login) == "oci.credentials"
    login.chmod(0o600)
    assert data(*words, "--credentials", login)["uploaded"] == 0
    assert run(*words, "--credentials", login, "--user", USER).exit_code == 2
    # `install` takes them from registries.toml.
    assert code("install", registry.reference) == "oci.credentials"
    (world.home / "registries.toml").write_text(
        f'schema = 1\n[[registry]]\nhost = "{registry.authority}"\n'
        f'credentials = "{login.absolute()}"\n'
    )
    assert data("install", registry.reference)["action"] == "installed"


def test_on_a_terminal_a_line_tells_how_far_what_is_large_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = BytesLine()
    line("pulling", 500_000, 2_000_000)
    assert capsys.readouterr().err == ""  # no terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    line("pulling", 10, 20)
    assert capsys.readouterr().err == ""
    line("pulling", 500_000, 2_000_000)
    assert capsys.readouterr().err == "\rpulling 0.5 of 2.0 MB"
    line("pulling", 500_001, 2_000_000)
    assert capsys.readouterr().err == ""
    line("pulling", 2_000_000, 2_000_000)
    assert capsys.readouterr().err == "\r" + " " * 21 + "\r"


@pytest.mark.parametrize("command", [("pull",), ("push", "1.0.0.capsule"), ("install",)])
def test_a_reference_that_is_none(world: World, command: tuple[str, ...]) -> None:
    file(world)
    assert code(*command, "oci://ghcr.example/Acme/weather:1") == "oci.reference"
    assert code(*command, "oci://ghcr.example/acme/weather") == "oci.reference"


@pytest.mark.case("PER-01")
def test_killed_at_any_moment_a_pull_leaves_no_half_file(world: World, registry: Registry) -> None:
    capsule = world.home.parent / "large.capsule"
    capsule.write_bytes(world.capsule(guest("hostile"), ""))
    data("push", capsule, registry.reference)
    whole = capsule.read_bytes()
    target = world.home.parent / "pulled.capsule"

    def slowly() -> Iterator[bytes]:
        yield f"HTTP/1.1 200 X\r\nContent-Length: {len(whole)}\r\n\r\n".encode()
        step = len(whole) // 20 + 1
        for at in range(0, len(whole), step):
            yield whole[at : at + step]
            time.sleep(0.01)

    registry.lie = when("GET /v2/acme/weather/blobs/", slowly)
    program = "from capwasm.cli import main; main()"
    words = [sys.executable, "-c", program, "pull", str(registry.reference), "-o", str(target)]
    seen = []
    for turn in range(5):
        target.unlink(missing_ok=True)
        registry.origin.got.clear()
        worker = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not any("/blobs/" in line for line in registry.lines):
            assert worker.poll() is None
            time.sleep(0.002)
        time.sleep(0.08 * turn)
        worker.kill()  # SIGKILL; nothing if it has ended
        worker.wait()
        assert not target.exists() or target.read_bytes() == whole
        seen.append(target.exists())
    assert not seen[0]
    assert data("pull", registry.reference, "-o", target, "--force")["verified"]
    assert target.read_bytes() == whole
