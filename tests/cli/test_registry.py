"""`capwasm install` and its kin, as an operator types them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from capwasm.cli import capwasm
from tests.kit import World, guest
from tests.registry.shop import GLOBEX

NET = '[[net]]\nallow = "https://a.example/"\n'
ID = "test.guest"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path)
    monkeypatch.setenv("CAPWASM_HOME", str(world.home))
    return world


def run(*args: object) -> Result:
    return CliRunner().invoke(capwasm, [str(a) for a in args])


def data(*args: object) -> Any:
    done = run(*args, "--json")
    assert done.stderr == ""
    return json.loads(done.stdout)


def file(world: World, version: str = "1.0.0", manifest: str = "", **about: Any) -> Path:
    path = world.home.parent / f"{version}.capsule"
    path.write_bytes(world.capsule(guest("hostile"), manifest, version=version, **about))
    return path


def test_the_way_of_a_plugin(world: World) -> None:
    assert run("list").output == "nothing is installed\n"
    done = run("install", file(world), "--reason", "first", "--by", "ann")
    assert (done.exit_code, done.output) == (0, "installed: test.guest 1.0.0\n")
    assert run("install", file(world, "1.1.0")).output == (
        "updated: test.guest 1.1.0 (before: 1.0.0)\n"
    )
    assert run("rollback", ID, "--reason", "slow").output == (
        "rolled-back: test.guest 1.0.0 (before: 1.1.0)\n"
    )
    lines = run("list").output.splitlines()
    assert lines[0].split() == ["plugin", "version", "state", "changed"]
    assert lines[1].startswith("test.guest  1.0.0    active  ")
    assert lines[1].endswith("highest was 1.1.0")
    shown = run("show", ID, "--history").output
    assert "permit    downgrade 1.0.0" in shown
    assert "active → suspended" in shown
    assert "slow" in shown
    assert data("show", ID, "--history")["history"][0]["who"] == "ann"
    assert data("activate", ID, "1.1.0")["serving"] == "1.1.0"
    assert data("suspend", ID)["state"] == "suspended"
    assert data("list")[0]["state"] == "suspended"
    assert data("remove", ID)["action"] == "removed"
    assert data("list") == []
    assert data("list", "--all")[0]["highest"] == "1.1.0"
    assert "removed" in run("list", "--all").output
    report = data("store", "verify")
    assert (report["ok"], report["capsules"], report["changes"]) == (True, 0, 6)


def test_tells_what_a_load_would_still_be_denied(world: World) -> None:
    done = run("install", file(world, manifest=NET))

    assert "A load would be denied: 2 things missing" in done.output
    capsule = done.output.strip().splitlines()[-1].removeprefix("capwasm consent give ")
    assert run("grants", "explain", capsule).exit_code == 1
    assert run("consent", "give", capsule, "--yes", "--reason", "x").exit_code == 0


@pytest.mark.case("SIG-15")
def test_refuses_an_older_version_with_the_line_that_would_let_it_by(world: World) -> None:
    run("install", file(world, "1.1.0"))
    done = run("install", file(world, "1.0.0"))

    assert done.exit_code == 1
    assert "error [verify.rollback]" in done.stderr
    fix = done.stderr.strip().splitlines()[-1].split()
    assert fix[:5] == ["capwasm", "permit", ID, "downgrade", "1.0.0"]
    assert run(*fix[1:5]).exit_code == 2  # not without a reason
    assert run(*fix[1:5], "--reason", "x").exit_code == 0
    assert run("install", file(world, "1.0.0")).exit_code == 0
    assert data("install", file(world, "0.9.0"))["code"] == "verify.rollback"


@pytest.mark.case("SIG-26")
def test_tells_what_waits_and_how_to_let_it_serve(world: World) -> None:
    run("install", file(world))
    trust = world.home / "trust.toml"
    trust.write_text(
        trust.read_text() + f'[[key]]\nname = "globex"\npublic = "{GLOBEX.public.base64()}"\n'
        'roles = ["publisher"]\nids = ["test.*"]\n'
    )
    world.key = GLOBEX
    done = run("install", file(world, "1.1.0"))

    assert done.exit_code == 0
    assert done.output.startswith("pending: test.guest 1.1.0 (before: 1.0.0)\n  ")
    assert done.output.endswith(
        "1.0.0 serves on.  See what differs, and let it serve:\n\n"
        "capwasm diff test.guest\ncapwasm activate test.guest\n"
    )
    assert "1.1.0 waits" in run("list").output
    assert data("activate", ID)["before"] == "1.0.0"


def test_refuses_what_nobody_knows_and_what_is_no_word(world: World) -> None:
    for command in ("show", "activate", "suspend", "rollback", "remove"):
        done = run(command, ID)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "error [registry.unknown]" in done.stderr
    assert run("permit", ID, "signer", "me", "--reason", "x").exit_code == 2
    assert run("permit", "../..", "downgrade", "1.0.0", "--reason", "x").exit_code == 2
    assert run("install", world.home / "none.capsule").exit_code == 1
    assert run("suspend", ID, "--by", "a\x1bb").exit_code == 1


@pytest.mark.case("PER-03")
def test_store_verify_and_gc(world: World) -> None:
    run("install", file(world, "1.0.0"))
    run("install", file(world, "1.1.0"))
    bundle = data("show", ID)["versions"][0]["bundle"]
    path = world.home / "store/sha256" / bundle[:2] / f"{bundle}.capsule"
    path.chmod(0o600)
    path.write_bytes(b"x")
    done = run("store", "verify")

    assert done.exit_code == 1
    assert "moved aside" in done.output
    assert data("store", "verify")["ok"] is False
    run("install", file(world, "1.1.0"))
    run("remove", ID)
    assert data("store", "gc") == {"removed": 0, "bytes": 0}
    assert data("store", "verify")["ok"] is True


@pytest.mark.case("PER-08")
def test_store_verify_finds_an_older_copy_by_the_audit_log(world: World) -> None:
    run("install", file(world, "1.0.0"))
    saved = {n: (world.home / n).read_bytes() for n in ("registry.db", "registry.head")}
    for version in ("1.1.0", "1.2.0"):
        run("install", file(world, version))
    for name, copy in saved.items():
        (world.home / name).write_bytes(copy)

    assert "an older copy" in run("store", "verify").output


def test_listing_works_without_a_policy_and_imports_nothing_heavy(world: World) -> None:
    run("install", file(world))
    (world.home / "policy.toml").write_text("nonsense")
    script = (
        "import sys; from capwasm.cli import capwasm\n"
        "capwasm.main(['list'], standalone_mode=False)\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert "test.guest" in done.stdout
    heavy = {"pydantic", "cryptography", "wasmtime", "rich", "structlog", "h11", "asyncio"}
    assert not {m.split(".")[0] for m in done.stderr.split()} & heavy


def test_the_audit_of_commands_has_a_name(world: World) -> None:
    run("install", file(world), "--by", "ann")

    records = [
        json.loads(line)
        for line in run("audit", "tail", "--commands", "--json").output.splitlines()
    ]
    told = next(r for r in records if r["kind"] == "install")
    assert (told["action"], told["plugin"], told["details"]["who"]) == (
        "installed",
        "test.guest@1.0.0",
        "ann",
    )
    assert run("audit", "verify", "--commands").exit_code == 0
    assert run("audit", "tail", "--commands", "--log", "x").exit_code == 2
    assert run("audit", "tail").exit_code == 1  # the runtime's own: nothing has run yet


def test_calls_what_is_installed_by_its_id(world: World) -> None:
    run("install", file(world, "1.0.0"))
    done = run("call", ID, "divide", "6", "2")
    assert (done.exit_code, done.output) == (0, "3\n")
    run("suspend", ID)
    done = run("call", ID, "divide", "6", "2")
    assert done.exit_code == 1
    assert "error [registry.state]" in done.stderr
    assert "error [registry.unknown]" in run("call", "test.other").stderr
