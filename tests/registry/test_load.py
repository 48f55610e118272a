"""From the registry to a running plugin: the capsule is proven anew at each load."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capwasm.capsule.keys import PrivateKey
from capwasm.errors import AuditError, CapwasmError
from capwasm.grants.policy import Policy
from capwasm.home import Home
from capwasm.registry.model import PermitKind
from capwasm.registry.registry import Registry
from capwasm.runtime import Runtime
from tests.kit import World, guest

ID = "test.guest"
WHO: dict[str, Any] = {"who": "ann", "why": "a test"}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def capsule(world: World, version: str = "1.0.0", **words: Any) -> bytes:
    made = world.capsule(guest("hostile"), version=version, **words)
    world.consent(made)
    return made


def registry(world: World) -> Registry:
    """The registry of that home, as another process has it; open the world's runtime first."""
    runtime = world.runtime
    assert isinstance(runtime.registry, Registry)
    return runtime.registry


def code_of(call: Any, *args: Any) -> str | None:
    try:
        call(*args)
    except CapwasmError as exc:
        return exc.code
    return None


def test_allows_the_version_that_serves_to_run(world: World) -> None:
    registry(world).install(capsule(world, "1.0.0"), **WHO)
    registry(world).install(capsule(world, "1.1.0"), **WHO)

    with world.runtime.load_installed(ID) as plugin:
        assert plugin.call("divide", 6, 2) == 3
    loads = [e for e in world.events("load") if e["verdict"] == "allowed"]
    assert loads[-1]["plugin"] == f"{ID}@1.1.0"
    assert [e["action"] for e in world.events("install")] == ["installed", "updated"]


def test_refuses_what_is_not_installed_and_tells_the_audit(world: World) -> None:
    assert code_of(world.runtime.load_installed, ID) == "registry.unknown"
    denied = [e for e in world.events("load") if e["verdict"] == "denied"]
    assert (denied[-1]["plugin"], denied[-1]["reason"]) == (ID, "registry.unknown")
    assert not (world.home / "registry.db").exists()


def test_refuses_without_a_registry(world: World) -> None:
    from tests.helpers import ListRecorder

    home = Home(world.home)
    with Runtime(
        policy=Policy.nothing(), trust=home.trust(), recorder=ListRecorder(), home=world.home,
        core_version="1.0.0", capabilities=(),
    ) as runtime:  # fmt: skip
        assert code_of(runtime.load_installed, ID) == "registry.unknown"


@pytest.mark.case("SIG-15")
def test_refuses_to_run_an_older_version_from_a_path_or_from_bytes(
    world: World, tmp_path: Path
) -> None:
    old, new = capsule(world, "1.0.0"), capsule(world, "1.1.0")
    path = tmp_path / "old.capsule"
    path.write_bytes(old)
    with world.runtime.load(old) as plugin:  # nobody has installed anything yet
        plugin.call("divide", 6, 2)
    registry(world).install(new, **WHO)

    assert code_of(world.runtime.load, old) == "verify.rollback"
    assert code_of(world.runtime.load, path) == "verify.rollback"
    world.runtime.load(new).close()
    registry(world).permit(ID, PermitKind.DOWNGRADE, "1.0.0", **WHO)
    world.runtime.load(path).close()


def test_refuses_from_the_moment_that_another_process_suspends_it(world: World) -> None:
    registry(world).install(capsule(world), **WHO)
    world.runtime.load_installed(ID).close()
    place = Home(world.home)
    with (
        place.commands_recorder() as recorder,
        place.registry(
            recorder, trust=place.trust(), policy=world.runtime.policy,
            capabilities=world.runtime.capabilities,
        ) as other,
    ):  # fmt: skip
        other.suspend(ID, **WHO)

    assert code_of(world.runtime.load_installed, ID) == "registry.state"
    assert code_of(world.runtime.load, capsule(world)) == "registry.state"


@pytest.mark.case("SIG-23")
def test_refuses_a_registry_that_was_edited_whatever_is_loaded(world: World) -> None:
    made = capsule(world)
    registry(world).install(made, **WHO)
    db = sqlite3.connect(world.home / "registry.db")
    db.execute("UPDATE plugins SET highest = '0.1.0'")
    db.commit()
    db.close()

    assert code_of(world.runtime.load_installed, ID) == "registry.tampered"
    assert code_of(world.runtime.load, made) == "registry.tampered"


@pytest.mark.case("SIG-23", "SIG-21")
def test_refuses_true_bytes_that_are_not_those_that_were_installed(world: World) -> None:
    registry(world).install(capsule(world, "1.0.0"), **WHO)
    other = registry(world).store.put(capsule(world, "1.1.0"))
    record = registry(world).show(ID).versions[0]
    target = registry(world).store.path(record.bundle)
    target.unlink()
    shutil.copy(registry(world).store.path(other), target)

    assert code_of(world.runtime.load_installed, ID) == "registry.bundle"


@pytest.mark.case("SIG-18")
def test_refuses_an_installed_plugin_whose_key_is_revoked_since(world: World) -> None:
    made = capsule(world)
    registry(world).install(made, **WHO)
    world.close()
    trust = world.home / "trust.toml"
    trust.write_text(trust.read_text() + "revoked = true\n")

    assert code_of(world.runtime.load_installed, ID) == "verify.key-revoked"


@pytest.mark.case("SIG-26")
def test_refuses_to_load_by_a_key_that_the_id_does_not_belong_to(world: World) -> None:
    registry(world).install(capsule(world), **WHO)
    world.close()
    world.key = PrivateKey.generate()
    trust = world.home / "trust.toml"
    trust.write_text(
        trust.read_text() + f'[[key]]\nname = "other"\npublic = "{world.key.public.base64()}"\n'
        'roles = ["publisher"]\nids = ["test.*"]\n'
    )
    stolen = capsule(world, "2.0.0")

    assert code_of(world.runtime.load, stolen) == "registry.name-taken"
    registry(world).remove(ID, **WHO)
    assert code_of(world.runtime.load, stolen) == "registry.name-taken"


def test_refuses_what_is_installed_but_not_consented_to(world: World) -> None:
    made = world.capsule(guest("hostile"), '[[net]]\nallow = "https://a.example/"\n')
    registry(world).install(made, **WHO)

    assert code_of(world.runtime.load_installed, ID) == "grant.denied"


# -- the audit of commands -------------------------------------------------------------------------------


def test_commands_are_recorded_while_a_runtime_has_the_other_log(world: World) -> None:
    assert world.runtime  # holds audit/
    place = Home(world.home)
    with (
        place.commands_recorder(),
        pytest.raises(AuditError) as caught,
        place.commands_recorder(wait=0.1),
    ):
        pass
    assert caught.value.code == "audit.busy"
    with place.commands_recorder():
        pass
    assert (world.home / "audit-commands").is_dir()
