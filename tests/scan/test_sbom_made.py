"""The SBOM that `capwasm build` makes of a lock file: by the standard, of this plugin, and matched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from capwasm.authoring.project import build_project
from capwasm.authoring.sbom import sbom_of
from capwasm.caps import standard_capabilities
from capwasm.capsule.artifact import read_artifact
from capwasm.errors import BuildError
from capwasm.grants.manifest import parse_manifest
from capwasm.scan import licences, sbom
from capwasm.scan.subject import Subject
from tests.kit import guest

from .supply import component, findings, manifest

REPOSITORY = Path(__file__).resolve().parents[2]
PLUGIN = parse_manifest(manifest(), standard_capabilities()).plugin

CARGO = """version = 4
[[package]]
name = "plugin"
version = "0.1.0"
dependencies = ["serde", "capwasm_guest 0.1.0"]
[[package]]
name = "capwasm_guest"
version = "0.1.0"
[[package]]
name = "serde"
version = "1.0.228"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "9a8e94ea7f378bd32cbbd37198a4a91436180c5bb472411e48b5ec2e2124ae9e"
"""
NPM = json.dumps(
    {
        "lockfileVersion": 3,
        "packages": {
            "": {"name": "plugin", "version": "1.0.0"},
            "node_modules/@scope/thing": {
                "version": "2.0.0", "license": "(MIT OR CC0-1.0)",
                "integrity": "sha512-" + "A" * 86 + "==",
            },
            "node_modules/a/node_modules/b": {"version": "1.0.0", "license": "MIT"},
            "node_modules/tool": {"version": "9.0.0", "dev": True},
            "node_modules/@capwasm/guest": {"resolved": "../guest", "link": True},
        },
    }
)  # fmt: skip
GO = """module example.com/plugin

go 1.25

require github.com/gorilla/mux v1.8.1
require (
\tgolang.org/x/text v0.3.0 // indirect
\tgo.example/capwasm v0.1.0
)

replace go.example/capwasm => ./bindings
"""
UV = """version = 1
[[package]]
name = "plugin"
version = "1.0.0"
source = { virtual = "." }
[[package]]
name = "Some_Lib"
version = "2.0"
source = { registry = "https://pypi.org/simple" }
"""
LOCKS = {
    "Cargo.lock": (CARGO, ["pkg:cargo/serde@1.0.228", "pkg:generic/capwasm_guest@0.1.0"]),
    "package-lock.json": (NPM, ["pkg:npm/%40scope/thing@2.0.0", "pkg:npm/b@1.0.0"]),
    "go.mod": (
        GO,
        ["pkg:generic/go.example/capwasm@v0.1.0", "pkg:golang/github.com/gorilla/mux@v1.8.1",
         "pkg:golang/golang.org/x/text@v0.3.0"],
    ),
    "uv.lock": (UV, ["pkg:pypi/some-lib@2.0"]),
    "poetry.lock": (UV.replace("virtual", "directory"), ["pkg:pypi/some-lib@2.0"]),
    "pylock.toml": (
        'lock-version = "1.0"\n[[packages]]\nname = "attrs"\nversion = "25.1.0"\n',
        ["pkg:pypi/attrs@25.1.0"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOCKS)
def test_an_sbom_of_a_lock_file_is_clean(tmp_path: Path, name: str) -> None:
    pytest.importorskip("cyclonedx", reason="the extra scan has it")
    text, purls = LOCKS[name]
    (tmp_path / name).write_text(text)

    made = sbom_of(tmp_path, PLUGIN)

    assert made is not None
    assert made == sbom_of(tmp_path, PLUGIN)
    assert [c["purl"] for c in json.loads(made)["components"]] == purls
    assert findings([*sbom.SCANNERS, *licences.SCANNERS], component(sbom=made)) == {}


@pytest.mark.parametrize(
    "path", ["tests/guests/rust/wordcount", "guest-sdk/js/tools", "guest-sdk/conformance/go"]
)
def test_real_lock_files_give_clean_sboms(path: str) -> None:
    pytest.importorskip("cyclonedx", reason="the extra scan has it")

    made = sbom_of(REPOSITORY / path, PLUGIN)

    assert made is not None
    assert findings(sbom.SCANNERS, component(sbom=made)).keys() <= {"sbom.empty"}


def test_there_is_none_without_a_lock_file(tmp_path: Path) -> None:
    assert sbom_of(tmp_path, PLUGIN) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Cargo.lock", "[["), ("Cargo.lock", '[[package]]\nname = 1\nversion = "1"\nsource = "registry+x"\n'), ("Cargo.lock", "\udcff"),
        ("package-lock.json", "{}"), ("package-lock.json", "[" * 100_000),
        ("package-lock.json", '{"packages": {"node_modules/a": {}}}'), ("uv.lock", "package = 1"),
    ],
)  # fmt: skip
def test_a_lock_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises(BuildError, match="lock file") as caught:
        sbom_of(tmp_path, PLUGIN)
    assert caught.value.context == name


def test_a_build_packs_it_and_leaves_the_authors_own(tmp_path: Path) -> None:
    (tmp_path / "plugin.toml").write_bytes(manifest(more="[random]\n"))
    (tmp_path / "plugin.wasm").write_bytes(guest("slugs"))
    (tmp_path / "uv.lock").write_text(UV)

    made = build_project(tmp_path, cache=tmp_path / ".cache")
    (tmp_path / "sbom.cdx.json").write_bytes(b"{}")
    own = build_project(tmp_path, cache=tmp_path / ".cache")

    first, second = (
        Subject.unproven(read_artifact(b.capsule), standard_capabilities(), "unsigned").members
        for b in (made, own)
    )
    assert b"pkg:pypi/some-lib@2.0" in bytes(first["sbom.cdx.json"])
    assert bytes(second["sbom.cdx.json"]) == b"{}"
