"""Compiling untrusted code, and the cache that only this machine can write."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import wasmtime
import wasmtime.component

from capwasm.engine import compile as module
from capwasm.engine.compile import CompileLimits, Compiler
from capwasm.engine.config import fingerprint, make_config
from capwasm.engine.engine import PluginEngine
from capwasm.errors import ArtifactError, InternalError
from tests.kit import guest


@pytest.fixture(scope="module")
def engine() -> Iterator[PluginEngine]:
    engine = PluginEngine()
    yield engine
    engine.close()


def wasm(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


def test_allows_a_component(engine: PluginEngine) -> None:
    component = Compiler(engine, None).compile(guest("hostile"))
    assert "spin" in component.type.exports(engine.wasm)


WRONG = [
    pytest.param(wasm("(module)"), "core module", marks=pytest.mark.case("TYP-01")),
    pytest.param(b"(component)", "text", marks=pytest.mark.case("TYP-02")),
    pytest.param(b"  (component)", "text", marks=pytest.mark.case("TYP-02")),
    pytest.param(b"\x7fELF\x02\x01\x01\0" + b"\0" * 100, "ELF", marks=pytest.mark.case("TYP-03")),
    pytest.param(b"\0asm\x0e\0\x01\0", "another version"),
    pytest.param(b"", "unknown"),
]


@pytest.mark.parametrize(("code", "word"), WRONG)
def test_refuses_what_is_not_a_binary_component(
    engine: PluginEngine, code: bytes, word: str
) -> None:
    with pytest.raises(ArtifactError, match=word) as caught:
        Compiler(engine, None).compile(code)
    assert caught.value.code == "artifact.not-a-component"


@pytest.mark.case("TYP-03")
def test_refuses_a_precompiled_component(engine: PluginEngine) -> None:
    compiled = bytes(wasmtime.component.Component(engine.wasm, guest("hostile")).serialize())
    with pytest.raises(ArtifactError, match="native or precompiled"):
        Compiler(engine, None).compile(compiled)


def test_refuses_an_invalid_component(engine: PluginEngine) -> None:
    with pytest.raises(ArtifactError) as caught:
        Compiler(engine, None).compile(guest("hostile")[:-3])
    assert caught.value.code == "artifact.compile"


OFF = {
    "shared memory": ("(memory 1 1 shared)", ("RES-10",)),
    "garbage collection": ("(type (struct (field i32)))", ("RES-11",)),
    "64-bit memory": ("(memory i64 1)", ()),
    "many memories": ("(memory 1) (memory 1)", ()),
    "exceptions": ("(tag)", ()),
}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(text, id=name, marks=[pytest.mark.case(*ids)] if ids else [])
        for name, (text, ids) in OFF.items()
    ],
)
@pytest.mark.case("RES-10", "RES-11")
def test_refuses_proposals_that_are_off(engine: PluginEngine, text: str) -> None:
    code = wasm(f"(component (core module {text}))")
    with pytest.raises(ArtifactError) as caught:
        Compiler(engine, None).compile(code)
    assert caught.value.code == "artifact.compile"


@pytest.mark.case("RES-22")
def test_refuses_code_that_compiles_longer_than_allowed(engine: PluginEngine) -> None:
    # Many locals that are all alive at once: slow to allocate registers for.
    body = "".join(f"(local.set {i} (i32.load (i32.const {i * 4})))" for i in range(4_000))
    use = "".join(f"(i32.add (local.get {i}))" for i in range(4_000))
    text = (
        f'(component (core module (memory 1) (func (export "f") (result i32)'
        f" (local {'i32 ' * 4_000}) {body} (i32.const 0) {use})))"
    )
    inner = text.removeprefix("(component ").removesuffix(")")
    many = f"(component {inner * 40})"
    limits = CompileLimits(seconds=1)
    began = time.monotonic()
    with pytest.raises(ArtifactError) as caught:
        Compiler(engine, None, limits).compile(wasm(many))
    assert caught.value.code == "artifact.compile-limit"
    assert time.monotonic() - began < 30


@pytest.mark.case("RES-22")
def test_refuses_code_that_needs_more_memory_to_compile_than_allowed(engine: PluginEngine) -> None:
    limits = CompileLimits(memory_bytes=64 * 2**20)
    with pytest.raises(ArtifactError) as caught:
        Compiler(engine, None, limits).compile(guest("prober"))
    assert caught.value.code == "artifact.compile-limit"


@pytest.mark.case("RES-23")
def test_refuses_larger_code_than_allowed_before_it_is_parsed(engine: PluginEngine) -> None:
    limits = CompileLimits(code_bytes=100)
    with pytest.raises(ArtifactError) as caught:
        Compiler(engine, None, limits).compile(guest("hostile"))
    assert caught.value.code == "artifact.compile-limit"


@pytest.mark.case("RES-23")
def test_refuses_or_survives_components_of_thousands_of_parts(engine: PluginEngine) -> None:
    parts = "(component " + "(core module)" * 10_000 + ")"
    nested = "(component " * 90 + ")" * 90
    for text in (parts, nested):
        began = time.monotonic()
        with contextlib.suppress(ArtifactError):
            Compiler(engine, None).compile(wasm(text))
        assert time.monotonic() - began < 60


# -- the cache ---------------------------------------------------------------------------------------


def compiles(compiler: Compiler, code: bytes) -> bool:
    """Whether the code was compiled, and not taken from the cache."""
    with mock.patch.object(Compiler, "_compile_apart", wraps=compiler._compile_apart) as spy:
        compiler.compile(code)
    return bool(spy.called)


def entries(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.cwasm"))


def test_what_was_compiled_once_is_taken_from_the_cache(
    engine: PluginEngine, tmp_path: Path
) -> None:
    assert compiles(Compiler(engine, tmp_path), guest("hostile"))
    assert not compiles(Compiler(engine, tmp_path), guest("hostile"))
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert tmp_path.stat().st_mode & 0o777 == 0o700


@pytest.mark.case("SIG-22", "PER-04")
@pytest.mark.parametrize("at", [0, 31, 32, 100, -1])
def test_refuses_a_cache_entry_of_which_one_byte_changed(
    engine: PluginEngine, tmp_path: Path, at: int
) -> None:
    compiler = Compiler(engine, tmp_path)
    compiler.compile(guest("hostile"))
    (entry,) = entries(tmp_path)
    data = bytearray(entry.read_bytes())
    data[at] ^= 1
    entry.write_bytes(data)
    with mock.patch.object(Compiler, "_load", side_effect=AssertionError("it was run")):
        assert compiler._read(entry.stem) is None
    assert compiles(compiler, guest("hostile"))


@pytest.mark.case("SIG-22", "PER-04")
def test_refuses_cache_entries_of_other_code_other_machines_and_half_a_write(
    engine: PluginEngine, tmp_path: Path
) -> None:
    compiler = Compiler(engine, tmp_path / "a")
    compiler.compile(guest("hostile"))
    compiler.compile(guest("caller"))
    one, two = entries(tmp_path / "a")
    swapped = one.read_bytes()
    one.write_bytes(two.read_bytes())
    assert compiler._read(one.stem) is None
    one.write_bytes(swapped[: len(swapped) // 2])
    assert compiler._read(one.stem) is None
    other = Compiler(engine, tmp_path / "b")
    (tmp_path / "b" / two.name).write_bytes(two.read_bytes())
    assert other._read(two.stem) is None


@pytest.mark.case("SIG-22", "SIG-25")
def test_refuses_a_key_that_others_can_read(engine: PluginEngine, tmp_path: Path) -> None:
    Compiler(engine, tmp_path).compile(guest("hostile"))
    (tmp_path / "key").chmod(0o644)
    again = Compiler(engine, tmp_path)
    assert compiles(again, guest("hostile"))
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


@pytest.mark.case("PER-02")
def test_a_cache_that_can_not_be_written_costs_time_only(
    engine: PluginEngine, tmp_path: Path
) -> None:
    compiler = Compiler(engine, tmp_path)
    with mock.patch.object(module.tempfile, "mkstemp", side_effect=OSError(28, "full")):
        compiler.compile(guest("hostile"))
    assert entries(tmp_path) == []


@pytest.mark.case("PER-06")
def test_many_compile_the_same_code_at_once(engine: PluginEngine, tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            Compiler(engine, tmp_path).compile(guest("hostile"))
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert len(entries(tmp_path)) == 1
    assert not compiles(Compiler(engine, tmp_path), guest("hostile"))


@pytest.mark.case("TYP-11")
def test_compiled_code_is_bound_to_the_settings_of_the_engine(engine: PluginEngine) -> None:
    # What another engine compiled does not load into ours: its settings differ.
    config = wasmtime.Config()
    foreign = wasmtime.component.Component(wasmtime.Engine(config), guest("hostile")).serialize()
    with pytest.raises(ArtifactError):
        Compiler(engine, None)._load(bytes(foreign))
    same = wasmtime.component.Component(wasmtime.Engine(make_config()), guest("hostile"))
    Compiler(engine, None)._load(bytes(same.serialize()))
    assert len(fingerprint()) == 64


# -- what a small component can cost, and where the compiler runs -------------------------------------


def amplified(depth: int, width: int) -> bytes:
    """Each component holds ten of the one before: 10^n instances in a few hundred bytes."""
    text = "(component $c0 (core module $m) (core instance (instantiate $m)))"
    for level in range(1, depth + 1):
        inside = f"(instance (instantiate $c{level - 1}))" * width
        text = f"(component $c{level} {text} {inside})"
    return wasm(text)


@pytest.mark.case("RES-22", "RES-23")
def test_refuses_to_let_a_few_hundred_bytes_take_the_process_down(engine: PluginEngine) -> None:
    import psutil

    code = amplified(9, 10)
    assert len(code) < 1_000
    before = psutil.Process().memory_info().rss
    limits = CompileLimits(seconds=2, memory_bytes=512 * 2**20)
    with pytest.raises(ArtifactError) as caught:
        Compiler(engine, None, limits).compile(code)
    assert caught.value.code == "artifact.compile-limit"
    assert psutil.Process().memory_info().rss - before < 100 * 2**20


@pytest.mark.case("RES-22")
def test_refuses_compiled_code_that_is_larger_than_allowed(engine: PluginEngine) -> None:
    with pytest.raises(ArtifactError) as caught:
        Compiler(engine, None, CompileLimits(output_bytes=4096)).compile(guest("hostile"))
    assert caught.value.code == "artifact.compile-limit"


@pytest.mark.case("RES-22", "RES-23")
def test_refuses_compiled_code_out_of_all_proportion(engine: PluginEngine) -> None:
    # What is loaded takes some fifteen times its size: here that would be most of a gigabyte.
    with pytest.raises(ArtifactError) as caught:
        Compiler(engine, None).compile(amplified(6, 14))
    assert caught.value.code == "artifact.compile-limit"


def test_lower_limits_of_the_process_itself_are_kept() -> None:
    # A container's own limit, below ours: it is no fault of the component.
    script = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (100, 100))\n"
        "from capwasm.engine.compile import Compiler\n"
        "from capwasm.engine.engine import PluginEngine\n"
        "from tests.kit import guest\n"
        "engine = PluginEngine()\n"
        "Compiler(engine, None).compile(guest('hostile'))\n"
        "engine.close()\n"
        "print('compiled')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.stdout.strip() == "compiled", run.stderr


def test_refuses_to_compile_where_no_process_can_be_started(
    engine: PluginEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module.sys, "executable", str(tmp_path / "missing"))
    with pytest.raises(ArtifactError) as caught:
        Compiler(engine, None).compile(guest("hostile"))
    assert caught.value.code == "artifact.compile"


def test_a_failure_of_the_compile_process_is_not_told_as_the_components(
    engine: PluginEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.sys, "executable", "/bin/false")
    with pytest.raises(InternalError):
        Compiler(engine, None).compile(guest("hostile"))


@pytest.mark.parametrize("kind", ["file", "link", "key directory", "key fifo", "key link"])
def test_a_cache_that_can_not_be_used_costs_time_only(
    engine: PluginEngine, tmp_path: Path, kind: str
) -> None:
    cache, key = tmp_path / "cache", tmp_path / "cache" / "key"
    other = tmp_path / "other"
    other.mkdir(mode=0o755)
    if kind == "file":
        cache.write_text("")
    elif kind == "link":
        cache.symlink_to(other)
    else:
        cache.mkdir()
        if kind == "key directory":
            key.mkdir()
        elif kind == "key fifo":
            os.mkfifo(key)
        else:
            (tmp_path / "known").write_bytes(b"k" * 32)
            (tmp_path / "known").chmod(0o600)
            key.symlink_to(tmp_path / "known")
    told: list[str] = []
    compiler = Compiler(engine, cache, on_slow=told.append)
    compiler.compile(guest("hostile"))
    if kind == "key fifo":  # unsafe, and replaced
        assert key.is_file()
        return
    assert len(told) == 1
    assert "not cached" in told[0]
    assert not list(other.iterdir())
    assert other.stat().st_mode & 0o777 == 0o755


def test_what_a_killed_process_left_in_the_cache_is_swept(
    engine: PluginEngine, tmp_path: Path
) -> None:
    old, new = tmp_path / ".new-old", tmp_path / ".new-young"
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, (1, 1))
    Compiler(engine, tmp_path)
    assert not old.exists()
    assert new.exists()


@pytest.mark.case("LOG-07")
def test_the_words_of_a_component_are_printable_in_its_error(engine: PluginEngine) -> None:
    code = wasm('(component (import "url=<\\1b[31mred>" (func)) (import "url=<x>" (func)))')
    at = code.index(b"\x1b[31mred")
    with pytest.raises(ArtifactError) as caught:
        Compiler(engine, None).compile(code[: at + 12] + b"\xff" + code[at + 13 :])
    assert str(caught.value).isprintable()
