"""`capwasm learn`: from a file without a manifest to one that is packed, signed and loads."""

from __future__ import annotations

import hashlib
import json
import struct
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from capwasm.caps import standard_capabilities
from capwasm.capsule.artifact import read_artifact
from capwasm.capsule.pack import pack, sign_capsule
from capwasm.cli import capwasm
from capwasm.grants.manifest import parse_manifest
from tests.isolation.ways import library
from tests.kit import OPTIONAL, Prober, World, guest


class Shell:
    """`capwasm learn …` on a world's home."""

    def __init__(self, root: Path) -> None:
        self.root, self.world = root, World(root)

    def file(self, name: str, code: bytes, *, listed: bool = True) -> Path:
        path = self.root / name
        path.write_bytes(code)
        digest = f'"sha256:{hashlib.sha256(code).hexdigest()}"' if listed else ""
        self.world.policy(f"[isolation]\nlegacy = [{digest}]\n")
        return path

    def __call__(self, *words: str | Path) -> Result:
        args = ["learn", "--home", str(self.world.home), *map(str, words)]
        return CliRunner().invoke(capwasm, args)

    def data(self, *words: str | Path, code: int = 0) -> dict[str, Any]:
        result = self("--json", *words)
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path)
    yield made
    made.world.close()


def call(operation: str, *arguments: str) -> list[str]:
    return ["--call", "run", json.dumps([operation, list(arguments)])]


def test_proposes_what_a_component_tried(shell: Shell) -> None:
    path = shell.file("My Notes.wasm", guest("prober"))

    result = shell(*call("fs.write", "/notes/a", "x"), *call("config", "city"), path)

    assert result.exit_code == 0, result.output
    asked = parse_manifest(result.stdout.encode(), standard_capabilities())
    assert (asked.id, asked.plugin.kind, asked.plugin.isolation) == (
        "example.my-notes",
        "component",
        "process",
    )
    doc = tomllib.loads(result.stdout)
    assert doc["fs"] == [{"mount": "/notes", "bind": "notes", "access": "read-write"}]
    assert doc["config"] == {"keys": ["city"]}
    assert "in strict mode" in result.stderr
    assert "fs: open /notes/a (write): not-granted" in result.stderr


def test_what_is_imported_and_never_used_is_declared_as_optional(shell: Shell) -> None:
    """Else the component would not load with the manifest that is proposed."""
    path = shell.file("p.wasm", guest("prober"))

    asked = parse_manifest(
        shell.data(*call("kv.set", "a", "b"), path)["manifest"].encode(), standard_capabilities()
    )

    assert {"fs", "net", "secret", "kv", "config", "log", "exec"} <= set(asked.requests)
    optional = {n for n, r in asked.requests.items() if all(a.optional for a in r.asked)}
    assert "kv" not in optional
    assert {"fs", "net", "secret", "log"} <= optional


def test_what_is_proposed_loads_when_it_is_packed_and_signed(shell: Shell) -> None:
    path = shell.file("guest.wasm", guest("prober"))
    text = shell.data(*call("kv.set", "a", "b"), path)["manifest"]
    text = text.replace('id = "example.guest"', 'id = "test.guest"')
    text = text.replace('isolation = "process"\n', "")
    packed = pack({"plugin.toml": text.encode(), "plugin.wasm": guest("prober")})
    shell.world.policy('[plugins."test.guest".kv]\n')

    probe = Prober(shell.world.runtime.load(sign_capsule(read_artifact(packed), shell.world.key)))

    probe("kv.set", "a", "b")
    assert probe("kv.get", "a") == "b"


def test_proposes_what_native_code_tried(shell: Shell) -> None:
    path = shell.file("old.so", library("prober"))
    packed = b"".join(struct.pack("<I", len(p)) + p for p in (b"/data/x",)).decode()

    data = shell.data("--call", "fs.read", packed, path)

    assert (data["kind"], data["strict"], data["started"]) == ("native", True, True)
    doc = tomllib.loads(data["manifest"])
    assert doc["plugin"]["kind"] == "native"
    assert doc["fs"] == [{"mount": "/data", "bind": "data", "access": "read"}]
    assert [c["outcome"] for c in data["calls"]] == ["err"]


def test_a_capsule_runs_with_what_it_is_granted_and_keeps_what_it_asked(shell: Shell) -> None:
    asks = '[config]\nkeys = ["colour"]\n' + "".join(
        text for word, text in OPTIONAL.items() if word != "[config]"
    )
    path = shell.root / "x.capsule"
    path.write_bytes(shell.world.capsule(guest("prober"), asks))
    shell.world.policy('[plugins."*".config]\nvalues = { colour = "red" }\n')

    data = shell.data(*call("config", "colour"), *call("config", "city"), path)

    doc = tomllib.loads(data["manifest"])
    assert not data["strict"]
    assert doc["plugin"]["id"] == "test.guest"
    assert doc["config"]["keys"] == ["colour", "city"]
    assert [a["target"] for a in data["attempts"] if a["kind"] == "config"] == ["city"]


def test_a_capsule_that_declares_too_little_is_learned_from_its_imports(shell: Shell) -> None:
    path = shell.root / "x.capsule"
    path.write_bytes(shell.world.capsule(guest("prober")))

    data = shell.data(path)

    assert not data["started"]
    assert {"fs", "net", "kv"} <= set(tomllib.loads(data["manifest"]))


def test_a_call_that_fails_is_told_and_the_next_is_made(shell: Shell) -> None:
    path = shell.file("p.wasm", guest("prober"))

    data = shell.data(*call("panic", "!"), *call("kv.get", "a"), path)

    assert [c["outcome"] for c in data["calls"]] == ["guest.trap", "err"]
    assert any("guest.trap" in note for note in data["notes"])
    assert "kv" in tomllib.loads(data["manifest"])


def test_refuses_a_file_that_is_not_listed_and_tells_the_line(shell: Shell) -> None:
    path = shell.file("p.wasm", guest("prober"), listed=False)

    result = shell(path)

    assert result.exit_code == 1
    assert "grant.legacy" in result.stderr
    digest = hashlib.sha256(guest("prober")).hexdigest()
    assert f'\nlegacy = ["sha256:{digest}"]  # in [isolation], line 4\n' in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--call", "run", "not json"], 2, "JSON array"),
        (["--call", "run", '["kv.get"]'], 2, "takes 2 arguments"),
        (["--call", "nothing", "x"], 1, "guest.no-such-export"),
        (["--call", "run"], 2, "Missing argument"),
    ],
)
def test_refuses_a_call_that_does_not_fit(
    shell: Shell, words: list[str], code: int, says: str
) -> None:
    result = shell(*words, shell.file("p.wasm", guest("prober")))

    assert result.exit_code == code, result.output
    assert says in result.stderr


def test_refuses_what_is_no_plugin(shell: Shell) -> None:
    assert "artifact.legacy" in shell(shell.file("x.sh", b"#!/bin/sh\n")).stderr
    assert "artifact.unreadable" in shell(shell.root / "none").stderr


@pytest.mark.case("LOG-07")
def test_nothing_that_a_plugin_tries_acts_on_the_terminal(shell: Shell) -> None:
    path = shell.file("p.wasm", guest("prober"))

    result = shell(*call("config", "\x1b[2J\u202e"), *call("fs.read", "/a\x1b]0;/b"), path)

    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.stdout + result.stderr
    assert "\u202e" not in result.stdout + result.stderr
