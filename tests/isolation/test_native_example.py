"""The whole way of a native plugin's author: a directory, `pack`, `sign`, a policy, and it runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from capwasm.capsule.target import this_triple
from capwasm.cli import capwasm
from capwasm.errors import ArtifactError, GrantDeniedError
from capwasm.values import Err, Ok
from tests.kit import World

CAPSULE = Path(__file__).parents[2] / "native-shim/examples/c/capsule"

POLICY = """
[[plugins."example.notes".fs]]
bind = "notes"
path = "{root}/notes"
access = "read-write"
[plugins."example.notes".log]
[plugins."example.notes".kv]
[plugins."example.notes".config.values]
file = "/data/notes.txt"
"""
NATIVE = '[isolation]\nnative = ["example.*"]\n'


def run(*argv: object) -> None:
    result = CliRunner().invoke(capwasm, [str(a) for a in argv])
    assert result.exit_code == 0, result.output


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """One that trusts the author."""
    world = World(tmp_path)
    trust = world.home / "trust.toml"
    trust.write_text(trust.read_text().replace("test.*", "example.*"))
    (tmp_path / "notes").mkdir()
    yield world
    world.close()


@pytest.fixture
def signed(world: World, tmp_path: Path) -> bytes:
    """The example, packed and signed by hand."""
    if not (CAPSULE / f"lib/{this_triple()}/plugin.so").exists():
        pytest.skip(f"no example for {this_triple()}: python native-shim/build.py makes it")
    world.key.save(tmp_path / "author.key")
    run("pack", CAPSULE, "-o", tmp_path / "notes.capsule")
    run("sign", tmp_path / "notes.capsule", "--key", tmp_path / "author.key")
    return (tmp_path / "notes.capsule").read_bytes()


def test_the_example_runs_from_its_capsule(world: World, tmp_path: Path, signed: bytes) -> None:
    world.policy(POLICY.format(root=tmp_path) + NATIVE)
    world.consent(signed)
    plugin = world.runtime.load(signed)

    assert plugin.call("handle", "add", b"milk") == Ok(b"1")
    assert plugin.call("handle", "add", b"bread") == Ok(b"2")
    assert plugin.call("handle", "list", b"") == Ok(b"milk\nbread\n")
    assert plugin.call("handle", "export", b"") == Ok(b"11")
    assert (tmp_path / "notes/notes.txt").read_bytes() == b"milk\nbread\n"
    # Neither the URL nor the secret was granted.
    assert plugin.call("handle", "send", b"") == Err("the notes can't be sent (2)")


@pytest.mark.case("NAT-20")
def test_refuses_native_code_that_the_policy_does_not_name(
    world: World, tmp_path: Path, signed: bytes
) -> None:
    world.policy(POLICY.format(root=tmp_path))
    world.consent(signed)

    with pytest.raises(GrantDeniedError) as caught:
        world.runtime.load(signed)

    assert caught.value.code == "grant.native"


def test_refuses_a_plugin_for_other_machines(
    world: World, tmp_path: Path, signed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.policy(POLICY.format(root=tmp_path) + NATIVE)
    world.consent(signed)
    monkeypatch.setattr("capwasm.capsule.target.this_triple", lambda: "riscv64-linux-gnu")

    with pytest.raises(ArtifactError) as caught:
        world.runtime.load(signed)

    assert caught.value.code == "artifact.platform"
    assert this_triple() in caught.value.faults[0].message
