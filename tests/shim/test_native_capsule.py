"""From a library to a capsule, and from a capsule to the library of this machine."""

from __future__ import annotations

import json
import platform
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from capwasm.capsule.artifact import read_artifact
from capwasm.capsule.legacy import recognise
from capwasm.capsule.pack import pack
from capwasm.capsule.target import library_of, this_triple
from capwasm.capsule.verify import VerifiedArtifact, verify
from capwasm.cli import capwasm
from capwasm.errors import ArtifactError
from tests.capsules import MANIFEST, STORE, signed
from tests.shim.native_peer import TRIPLE, library

NATIVE = MANIFEST.replace(b'"component"', b'"native"')


def proven(*triples: str) -> VerifiedArtifact:
    members = {f"lib/{triple}/plugin.so": triple.encode() for triple in triples}
    capsule = signed(members={"plugin.toml": NATIVE, **members})
    return verify(read_artifact(capsule), STORE)


def test_the_library_is_the_one_of_its_target() -> None:
    plugin = proven("aarch64-linux-gnu", "x86_64-linux-gnu", "x86_64-linux-musl")

    for triple in ("aarch64-linux-gnu", "x86_64-linux-gnu", "x86_64-linux-musl"):
        assert library_of(plugin, triple) == triple.encode()


def test_refuses_a_machine_that_the_plugin_has_no_code_for_and_says_which_it_has() -> None:
    with pytest.raises(ArtifactError) as caught:
        library_of(proven("x86_64-linux-musl", "aarch64-linux-gnu"), "x86_64-linux-gnu")

    assert caught.value.code == "artifact.platform"
    (fault,) = caught.value.faults
    assert fault.path == "lib/x86_64-linux-gnu/plugin.so"
    assert fault.message == "is not there; it has aarch64-linux-gnu, x86_64-linux-musl"


def test_a_bare_library_is_for_this_machine() -> None:
    data = library("misfit").read_bytes()

    assert library_of(recognise(read_artifact(data)), TRIPLE) == data


def test_the_triple_is_what_the_compiler_of_this_python_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _: "x86_64-linux-musl")
    assert this_triple() == "x86_64-linux-musl"

    monkeypatch.setattr(sysconfig, "get_config_var", lambda _: None)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert this_triple() == "aarch64-linux-gnu"


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    def make(*libraries: str) -> Path:
        for name, data in {"plugin.toml": NATIVE, **dict.fromkeys(libraries, b"\x7fELF")}.items():
            path = tmp_path / "notes" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return tmp_path / "notes"

    return make


def packed(directory: Path, *options: str, code: int = 0) -> str:
    target = str(directory.parent / "out.capsule")
    result = CliRunner().invoke(capwasm, ["pack", str(directory), "-o", target, *options])
    assert result.exit_code == code, result.output
    return result.output


def test_pack_says_what_the_code_is_for(project: Callable[..., Path]) -> None:
    directory = project(f"lib/{this_triple()}/plugin.so", "lib/riscv64-linux-gnu/plugin.so")

    assert f"Its code is for {', '.join(sorted([this_triple(), 'riscv64-linux-gnu']))}." in packed(
        directory
    )
    assert "none for this machine" not in packed(directory)
    assert len(json.loads(packed(directory, "--json"))["targets"]) == 2


def test_pack_says_when_there_is_none_for_this_machine(project: Callable[..., Path]) -> None:
    said = packed(project("lib/riscv64-linux-gnu/plugin.so"))

    assert f"There is none for this machine, {this_triple()}." in said


@pytest.mark.parametrize("place", ["plugin.so", "lib/plugin.so", "lib/x86_64/plugin.so"])
def test_pack_refuses_a_library_elsewhere_and_says_where_it_belongs(
    project: Callable[..., Path], place: str
) -> None:
    said = packed(project(place), code=1)

    assert "[artifact.pack]" in said
    assert f"{place}: a native capsule holds no such file" in said
    assert "lib/<triple>/plugin.so: the code is missing" in said


def test_pack_refuses_a_native_plugin_without_code() -> None:
    with pytest.raises(ArtifactError) as caught:
        pack({"plugin.toml": NATIVE})

    assert [f.path for f in caught.value.faults] == ["lib/<triple>/plugin.so"]
