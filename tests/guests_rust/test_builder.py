"""Building a crate: what it takes, what it leaves alone, what it says when it can't."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

import pytest

from capwasm.authoring.builders import _cargo
from capwasm.authoring.project import Built, build_project
from capwasm.errors import BuildError, LinkError
from tests.builds import REPOSITORY, missing
from tests.guests_python.bench import snapshot

SDK = REPOSITORY / "guest-sdk/rust"
TEMPLATES = (REPOSITORY / "guest-sdk/template", SDK / "template")
WORDS = {
    "__NAME__": "greeter",
    "__SNAKE__": "greeter",
    "__ID__": "test.greeter",
    "__SPACE__": "test",
    "__PACKAGE__": "test:greeter",
    "__CAPWASM__": "0.1.0",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What `capwasm new` writes."""
    place = tmp_path / "greeter"
    for template in TEMPLATES:
        shutil.copytree(template, place, dirs_exist_ok=True)
    shutil.rmtree(place / "tests", ignore_errors=True)
    for path in filter(Path.is_file, place.rglob("*")):
        text = path.read_text(encoding="utf-8")
        for word, value in WORDS.items():
            text = text.replace(word, value)
        path.write_text(text, encoding="utf-8")
    return place


def build(project: Path) -> Built:
    if reason := missing(project):
        pytest.skip(f"Rust: {reason}")
    return build_project(project)


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_leaves_the_authors_tree_as_it_was_and_is_small(project: Path) -> None:
    before = snapshot(project)

    built = build(project)

    assert snapshot(project) == before
    assert built.code_bytes < 100_000
    assert built.warnings == []
    assert "capwasm:kv/store@0.1.0" in built.imports
    assert (
        "capwasm:fetch/client@0.1.0" not in built.imports
    )  # the crate has it, the plugin does not


def test_refuses_an_import_that_is_not_declared_with_the_lines_that_are_missing(
    project: Path,
) -> None:
    change(project / "src/lib.rs", "let count", "capwasm_guest::random::bytes(1)?; let count")

    with pytest.raises(LinkError) as caught:
        build(project)

    assert [f.fix for f in caught.value.faults] == ["[random]"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("count as u32 - 1", '"many"', r"error\[E0308\].*\n *--> src/lib.rs:\d+:\d+"),
        ("fn greet(name: String)", "fn greet(name: u32)", r"--> src/lib.rs:\d+:\d+"),
        ("fn greet", "fn great", r"not a member of trait `Guest`(.|\n)*src/lib.rs"),
        ("use capwasm_guest::{kv, log};", "use nowhere::kv;", r"--> src/lib.rs:3:5"),
    ],
)
def test_refuses_a_source_with_a_fault_by_file_and_line(
    project: Path, old: str, new: str, told: str
) -> None:
    change(project / "src/lib.rs", old, new)

    with pytest.raises(BuildError) as caught:
        build(project)

    assert caught.value.code == "build.failed"
    assert re.search(told, str(caught.value)), str(caught.value)
    assert ".cache" not in str(caught.value)


def test_refuses_a_world_with_a_fault(project: Path) -> None:
    change(project / "wit/world.wit", "export api;", "export apx;")

    with pytest.raises(BuildError, match="apx") as caught:
        build(project)

    assert "wit/world.wit" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('crate-type = ["cdylib"]', "", "cdylib"),
        ("[package]", "[package", "Cargo.toml"),
        ('name = "greeter"', "", "name"),
        ('name = "greeter"', 'name = "../out"', "name"),
    ],
)
def test_refuses_a_crate_that_makes_no_component(
    project: Path, old: str, new: str, told: str
) -> None:
    change(project / "Cargo.toml", old, new)

    with pytest.raises(BuildError, match=told) as caught:
        build(project)

    assert caught.value.code == "build.project"


def test_refuses_without_a_toolchain_and_gives_the_commands(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(_cargo, "DEBIAN_WASI", tmp_path / "nothing")
    monkeypatch.setattr(_cargo, "_wasm_ld", lambda: None)

    with pytest.raises(BuildError) as caught:
        build_project(project)

    assert caught.value.code == "build.toolchain"
    for command in ("rustup target add", "apt-get install", "cargo install wasm-component-ld"):
        assert command in str(caught.value)


def test_the_bindings_are_made_of_the_wit() -> None:
    script = runpy.run_path(str(SDK / "build_bindings.py"))
    first = (SDK / "src/bindings.rs").read_text(encoding="utf-8").partition("\n")[0]
    assert first == f"// WIT: {script['digest']()}", "run: python guest-sdk/rust/build_bindings.py"
