"""Files without a manifest: which bytes may run at all, and that they are granted nothing."""

from __future__ import annotations

import platform
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capwasm.caps import standard_capabilities
from capwasm.capsule.artifact import read_artifact
from capwasm.capsule.identity import check_id
from capwasm.capsule.legacy import LegacyFile, recognise
from capwasm.errors import ArtifactError, GrantDeniedError, ManifestError
from capwasm.grants.manifest import parse_manifest, strict_manifest
from capwasm.grants.policy import Policy
from capwasm.limits import DEFAULTS
from capwasm.strict import MOUNT, STRICT, StrictRoom, strict_grants
from tests.helpers import in_call, open_context
from tests.kit import guest

ALL = standard_capabilities()
HERE = {"x86_64": 62, "aarch64": 183}[platform.machine()]
OTHER = 62 if HERE == 183 else 183


def elf(
    kind: int = 3, machine: int = HERE, ident: bytes = b"\x7fELF\x02\x01\x01", size: int = 64
) -> bytes:
    return (ident.ljust(16, b"\0") + struct.pack("<HH", kind, machine)).ljust(size, b"\0")[:size]


def file_of(data: bytes) -> LegacyFile:
    return recognise(read_artifact(data))


def listing(*files: LegacyFile, more: str = "") -> Policy:
    digests = ", ".join(f'"sha256:{f.code_digest}"' for f in files)
    return Policy.load(f"schema = 1\n{more}[isolation]\nlegacy = [{digests}]".encode(), ALL)


# --- what it is ------------------------------------------------------------------------------


def test_allows_a_component_and_a_shared_object_of_this_machine() -> None:
    assert file_of(guest("prober")).kind == "component"
    assert file_of(elf()).kind == "native"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "neither"),
        (b"#!/bin/sh\n", "neither"),
        (b"(component)", "neither"),
        (b"\0asm\x01\0\0\0", "a core module"),
        (b"\x89CAPS\r\n\x1a", "a capsule"),
        (b"\x7fELF", "64-bit"),
        (elf(size=19), "64-bit"),
        (elf(ident=b"\x7fELF\x01\x01\x01"), "64-bit"),
        (elf(ident=b"\x7fELF\x02\x02\x01"), "64-bit"),
        (elf(kind=2), "no shared object"),
        (elf(machine=OTHER), "another machine"),
        (elf(machine=3), "another machine"),
    ],
)
def test_refuses_what_could_never_run(data: bytes, says: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        file_of(data)

    assert caught.value.code == "artifact.legacy"
    assert says in caught.value.message


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=80), st.binary(max_size=80).map(lambda b: b"\x7fELF" + b)))
def test_any_bytes_are_recognised_or_refused_by_name(data: bytes) -> None:
    try:
        found = file_of(data).code
    except ArtifactError as exc:
        found = exc.code

    assert found in (data, "artifact.legacy")


def test_the_bytes_that_were_hashed_are_the_bytes_that_run(tmp_path: Path) -> None:
    """A file that is swapped after it was read changes nothing."""
    path = tmp_path / "plugin.so"
    path.write_bytes(elf())
    found = recognise(read_artifact(path))
    path.write_bytes(elf(size=128))

    assert found.library("any-triple") == elf()
    assert found.code_digest == found.digest == file_of(elf()).code_digest
    assert found.signers == ()


# --- what it is granted ----------------------------------------------------------------------


def test_allows_the_very_bytes_that_the_policy_lists() -> None:
    for found in (file_of(guest("prober")), file_of(elf())):
        manifest, grants = strict_grants(found, listing(found), ALL, core="1.0.0")

        assert grants.isolation.process
        assert grants.by_capability == {}
        assert grants.subject.code_digest == found.code_digest
        assert manifest.plugin.kind == found.kind


@pytest.mark.parametrize("native", ["", 'native = ["*"]\nprocess = ["*"]\n'])
def test_refuses_any_other_and_tells_the_line(native: str) -> None:
    """Not even a policy that lets all native code run lets a file without a manifest run."""
    found = file_of(elf())
    listed = file_of(elf(size=128))
    text = f'schema = 1\n[isolation]\n{native}legacy = ["sha256:{listed.code_digest}"]'
    for policy in (Policy.nothing(), Policy.load(text.encode(), ALL)):
        with pytest.raises(GrantDeniedError) as caught:
            strict_grants(found, policy, ALL, core="1.0.0")

        assert caught.value.code == "grant.legacy"
        (fault,) = caught.value.faults
        assert fault.fix is not None
        assert f'"sha256:{found.code_digest}"' in fault.fix


def test_rules_of_the_policy_grant_it_nothing() -> None:
    found = file_of(elf())
    rules = (
        "".join(f'[plugins."*".{word}]\n' for word in ("log", "clock", "random", "kv"))
        + '[consent]\nautomatic = ["log", "clock", "random", "kv", "fs"]\n'
    )
    rules += f'[[plugins."legacy.*".fs]]\nmount = "{MOUNT}"\npath = "/etc"\n'

    _, grants = strict_grants(found, listing(found, more=rules), ALL, core="1.0.0")

    assert grants.by_capability == {}


def test_its_limits_are_the_smallest_and_a_policy_can_only_lower_them() -> None:
    found = file_of(elf())
    raised = '[plugins."*".limits]\nfuel = 4000000000\nmemory = 1048576\n'

    _, grants = strict_grants(found, listing(found, more=raised), ALL, core="1.0.0")

    assert STRICT.within(DEFAULTS)
    assert grants.limits.within(STRICT)
    assert grants.limits.memory == 1048576


def test_its_id_is_its_digest() -> None:
    found = file_of(elf())
    manifest = strict_manifest(found.identity, found.code_digest, STRICT, ALL)

    assert check_id(manifest.id) == found.id == f"legacy.sha256-{found.code_digest[:32]}"
    assert manifest.version == "0.0.0"
    assert manifest.digest == found.code_digest
    assert set(manifest.requests) == {c.name for c in ALL}
    assert not any(r.clauses for r in manifest.requests.values())


@pytest.mark.case("MAN-09")
def test_refuses_a_manifest_that_takes_such_a_name() -> None:
    """A signed plugin can't pass for a file that was listed by its digest."""
    head = '[plugin]\nname = "x"\nversion = "1.0.0"\nrequires-core = ">=0"\nkind = "component"\n'

    def manifest(plugin_id: str) -> bytes:
        return f'schema = 1\n{head}id = "{plugin_id}"\n'.encode()

    with pytest.raises(ManifestError) as caught:
        parse_manifest(manifest(file_of(elf()).id), ALL)
    assert [f.path for f in caught.value.faults] == ["plugin.id"]
    for near in ("legacy.sha256", "legacy.notes", "acme.legacy"):
        assert parse_manifest(manifest(near), ALL).id == near


# --- the empty directory ---------------------------------------------------------------------


def test_the_directory_is_empty_and_cannot_be_written(tmp_path: Path) -> None:
    room = StrictRoom()
    fs = next(c for c in ALL if c.name == "fs")
    try:
        given_ = room.given()
        assert set(given_) == {"fs"}
        state = fs.open(given_["fs"], open_context(room.data))
        try:
            with in_call():
                assert [m.path for m in state.mounts()] == [MOUNT]
                assert state.list(MOUNT, None) == []
                for act in (
                    lambda: state.open(f"{MOUNT}/x", "create"),
                    lambda: state.make_directory(f"{MOUNT}/x"),
                    lambda: state.open("/etc/passwd", "read"),
                ):
                    with pytest.raises(Exception, match="denied"):
                        act()
        finally:
            fs.close(state)
        clause = given_["fs"].allow[0].clause
        assert list(Path(clause.path).iterdir()) == []
    finally:
        room.close()
    assert not Path(clause.path).parent.exists()
    room.close()


def test_nothing_is_made_where_nothing_runs() -> None:
    room = StrictRoom()
    room.close()

    assert room._made is None
