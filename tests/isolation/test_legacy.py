"""Files without a manifest, as a core runs them: in a process of their own, and granted nothing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from capwasm.errors import ArtifactError, GrantDeniedError, VerificationError
from capwasm.limits import DEFAULTS
from capwasm.plugin import Plugin
from capwasm.strict import STRICT
from tests.isolation.ways import Probe, component_probe, library, native_probe
from tests.kit import Refused, World, guest
from tests.revocation.desk import fresh
from tests.revocation.test_running import Site, wait_for

KINDS = ("component", "native")
NATIVE_ALL = 'native = ["*"]\nprocess = ["*"]\n'


def bytes_of(kind: str) -> bytes:
    return guest("prober") if kind == "component" else library("prober")


def digest_of(code: bytes) -> str:
    return hashlib.sha256(code).hexdigest()


def listing(*codes: bytes, more: str = "") -> str:
    listed = ", ".join(f'"sha256:{digest_of(code)}"' for code in codes)
    return f"[isolation]\nlegacy = [{listed}]\n{more}"


def probe_of(plugin: Plugin, kind: str) -> Probe:
    return component_probe(plugin) if kind == "component" else native_probe(plugin)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_allows_a_listed_file_and_it_is_not_in_this_process(world: World, kind: str) -> None:
    code = bytes_of(kind)
    world.policy(listing(code))

    plugin = world.runtime.load_legacy(code)

    assert plugin.id == f"legacy.sha256-{digest_of(code)[:32]}"
    assert plugin.grants.isolation.process
    assert plugin.grants.by_capability == {}
    assert plugin.limits.within(STRICT)
    assert probe_of(plugin, kind)("fs.list", "/tmp") == ""
    assert children(), "nothing of it runs in this process"


def children() -> set[int]:
    """The processes below this one."""
    found, seen = set(), {os.getpid()}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            found.add((int(entry.name), int(stat.rpartition(")")[2].split()[1])))
    while more := {pid for pid, parent in found if parent in seen and pid not in seen}:
        seen |= more
    return seen - {os.getpid()}


def test_refuses_a_file_that_is_not_listed_and_the_line_lets_it_run(
    world: World, kind: str
) -> None:
    code, other = bytes_of(kind), bytes_of("component") + b"\0"
    world.policy(listing(other, more=NATIVE_ALL))
    with pytest.raises(GrantDeniedError) as caught:
        world.runtime.load_legacy(code)
    assert caught.value.code == "grant.legacy"
    line = caught.value.faults[0].fix
    assert line is not None
    world.close()

    world.policy(f"[isolation]\n{line}\n")

    assert world.runtime.load_legacy(code).alive
    (refusal, load) = world.events("load")
    assert (refusal["verdict"], refusal["reason"]) == ("denied", "grant.legacy")
    assert load["target"] == digest_of(code)
    assert load["details"]["legacy"] is True
    assert load["details"]["kind"] == kind


TRIED = (
    ("fs.read", "/etc/passwd"),
    ("fs.write", "/tmp/x", "y"),
    ("fs.mkdir", "/tmp/x"),
    ("fetch", "GET", "https://example.com/"),
    ("fetch", "GET", "http://127.0.0.1:1/"),
    ("kv.set", "a", "b"),
    ("secret.get", "token"),
    ("random", "8"),
)


def test_refuses_whatever_it_tries_and_records_it(world: World, kind: str) -> None:
    """Also where the policy grants everybody everything."""
    code = bytes_of(kind)
    world.policy(
        listing(code)
        + '[plugins."*".kv]\n[plugins."*".random]\n'
        + f'[[plugins."*".fs]]\nmount = "/etc"\npath = "{world.home.parent}"\n'
    )
    probe = probe_of(world.runtime.load_legacy(code), kind)

    for operation, *arguments in TRIED:
        before = len(world.events())
        with pytest.raises(Refused):
            probe(operation, *arguments)
        told = [e for e in world.events()[before:] if e["verdict"] == "denied"]
        assert [e["kind"] for e in told] == [
            {"fetch": "net"}.get(operation, operation.partition(".")[0])
        ]
        assert all(e["plugin"].startswith("legacy.sha256-") for e in told)


@pytest.mark.parametrize(
    ("content", "says"), [(b"#!/bin/sh", "neither"), (b"\x89CAPS\r\n\x1a", "a capsule")]
)
def test_refuses_what_is_no_plugin(world: World, content: bytes, says: str) -> None:
    world.policy(listing(content))

    with pytest.raises(ArtifactError) as caught:
        world.runtime.load_legacy(content)

    assert caught.value.code == "artifact.legacy"
    assert says in caught.value.message


def test_refuses_a_file_that_is_swapped_for_another(world: World, tmp_path: Path) -> None:
    """What is listed is a digest, not a path."""
    path = tmp_path / "plugin.wasm"
    path.write_bytes(guest("prober"))
    world.policy(listing(guest("prober")))
    assert world.runtime.load_legacy(path).alive

    path.write_bytes(guest("hostile"))

    with pytest.raises(GrantDeniedError):
        world.runtime.load_legacy(path)


def test_its_limits_can_only_be_lowered(world: World) -> None:
    code = guest("prober")
    world.policy(listing(code, more='[plugins."*".limits]\nfuel = 4000000000\n'))

    plain = world.runtime.load_legacy(code)
    lowered = world.runtime.load_legacy(code, at_most=replace(DEFAULTS, memory=40 * 2**20))

    assert plain.limits == STRICT
    assert lowered.limits == replace(STRICT, memory=40 * 2**20)


def test_it_leaves_nothing_in_the_home_and_none_in_the_registry(world: World, kind: str) -> None:
    code = bytes_of(kind)
    world.policy(listing(code))
    probe = probe_of(world.runtime.load_legacy(code), kind)
    with pytest.raises(Refused):
        probe("kv.set", "a", "b")
    world.close()

    assert not (world.home / "data").exists()
    assert not (world.home / "registry.db").exists()
    assert not list(world.home.glob("consents/*"))


def test_two_files_share_no_directory_that_either_can_write(world: World) -> None:
    code, other = guest("prober"), library("prober")
    world.policy(listing(code, other))
    one = component_probe(world.runtime.load_legacy(code))
    two = native_probe(world.runtime.load_legacy(other))

    for probe in (one, two):
        with pytest.raises(Refused):
            probe("fs.write", "/tmp/left-for-the-other", "x")
    assert one("fs.list", "/tmp") == two("fs.list", "/tmp") == ""


def test_a_revocation_feed_names_its_digest(tmp_path: Path) -> None:
    """What runs is stopped, and is not loaded again."""
    site, code = Site(tmp_path), guest("prober")
    site.policy(listing(code))
    try:
        plugin = site.runtime.load_legacy(code)
        site.drop(fresh(1, deny={"digests": {digest_of(code): "it steals"}}))

        wait_for(lambda: not plugin.alive)

        with pytest.raises(VerificationError) as caught:
            site.runtime.load_legacy(code)
        assert caught.value.code == "verify.revoked"
    finally:
        site.close()
