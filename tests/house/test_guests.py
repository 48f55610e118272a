"""The committed guests are what their committed sources make."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from capwasm.authoring.builders import _cargo

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "build_guests", REPOSITORY / "tests/guests/build.py"
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copied(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of all that the script reads, which a test may change."""
    for guest in script.GUESTS.values():
        for place in (guest.wasm, guest.source, *guest.sdk, *(copy for _, copy in guest.copies)):
            source, target = REPOSITORY / place, tmp_path / place
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    shutil.copytree(REPOSITORY / "wit", tmp_path / "wit")
    shutil.copy(script.DIGESTS, tmp_path / "digests.json")
    monkeypatch.setattr(script, "REPOSITORY", tmp_path)
    monkeypatch.setattr(script, "DIGESTS", tmp_path / "digests.json")
    return tmp_path


def test_every_committed_guest_is_what_its_sources_make(script: ModuleType) -> None:
    assert script.faults() == []


def test_every_committed_component_is_of_a_known_guest(script: ModuleType) -> None:
    known = {guest.wasm for guest in script.GUESTS.values()}
    places = [*REPOSITORY.glob("tests/**/*.wasm"), *REPOSITORY.glob("runtime/**/*.wasm")]
    assert {p.relative_to(REPOSITORY).as_posix() for p in places} == known


def test_no_committed_component_holds_a_path_of_the_machine_it_was_made_on(
    script: ModuleType,
) -> None:
    for guest in script.GUESTS.values():
        code = (REPOSITORY / guest.wasm).read_bytes()
        for root in (b"/root/", b"/home/", b"/Users/", bytes(REPOSITORY)):
            assert root not in code, (guest.wasm, root)


@pytest.mark.parametrize(
    "place",
    [
        "guest-sdk/examples/demo-weather/src/lib.rs",
        "guest-sdk/examples/demo-weather/Cargo.lock",
        "guest-sdk/examples/demo-weather/wit/weather.wit",
        "wit/kv/store.wit",
    ],
)
def test_refuses_a_source_that_changed_without_a_rebuild(
    script: ModuleType, copied: Path, place: str
) -> None:
    with (copied / place).open("a") as file:
        file.write("\n")

    assert any("demo-weather" in f and "have changed" in f for f in script.faults())


def test_refuses_a_component_that_is_not_the_recorded_one(script: ModuleType, copied: Path) -> None:
    wasm = copied / script.GUESTS["prober"].wasm
    wasm.write_bytes(wasm.read_bytes() + b"\0")

    assert [f.partition(":")[0] for f in script.faults()] == ["prober"]


def test_refuses_a_copy_that_is_not_one(script: ModuleType, copied: Path) -> None:
    (copied / script.GUESTS["demo-weather"].copies[0][1]).write_text("schema = 1\n")

    (fault,) = script.faults()
    assert "is not the copy of" in fault


def test_refuses_a_guest_that_nothing_is_recorded_of(script: ModuleType, copied: Path) -> None:
    recorded = json.loads(script.DIGESTS.read_text())
    del recorded["prober"]
    script.DIGESTS.write_text(json.dumps(recorded))

    assert any(f.startswith("prober: ") and "run: python" in f for f in script.faults())


def test_says_which_tools_are_missing_and_the_commands(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(_cargo, "DEBIAN_WASI", tmp_path / "nothing")
    monkeypatch.setattr(_cargo, "_wasm_ld", lambda: None)

    with pytest.raises(script.Missing) as caught:
        script.find_toolchain(tmp_path)

    for command in ("rustup target add", "apt-get install", "cargo install wasm-component-ld"):
        assert command in str(caught.value)


def test_the_committed_components_are_small(script: ModuleType) -> None:
    for guest in script.GUESTS.values():
        if guest.wasm.startswith("tests/"):
            assert (REPOSITORY / guest.wasm).stat().st_size <= 300_000, guest.wasm


@pytest.mark.parametrize(
    "place", ["guest-sdk/rust/src/kv.rs", "guest-sdk/conformance/rust/plugin.toml"]
)
def test_refuses_an_sdk_or_a_project_that_changed_without_a_rebuild(
    script: ModuleType, copied: Path, place: str
) -> None:
    with (copied / place).open("a") as file:
        file.write("\n")

    assert any("conformance-rust" in f and "have changed" in f for f in script.faults())
