"""Compiling untrusted code, and the cache that only this machine can write."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import wasmtime
import wasmtime.component

from capwasm.engine import compile_process as module
from capwasm.engine.compile import CompileLimits, Compiler, Compiling
from capwasm.engine.config import fingerprint, make_config
from capwasm.engine.engine import PluginEngine
from capwasm.engine.sealed import Sealed
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
    compiled = Compiler(engine, None).compile(guest("hostile"))
    assert "spin" in compiled.component.type.exports(engine.wasm)


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


def slow(many: int = 40) -> bytes:
    """Code with many locals that are all alive at once: slow to allocate registers for."""
    body = "".join(f"(local.set {i} (i32.load (i32.const {i * 4})))" for i in range(4_000))
    use = "".join(f"(i32.add (local.get {i}))" for i in range(4_000))
    module = (
        '(core module (memory 1) (func (export "f") (result i32)'
        f" (local {'i32 ' * 4_000}) {body} (i32.const 0) {use}))"
    )
    return wasm(f"(component {module * many})")


@pytest.mark.case("RES-22")
def test_refuses_code_that_compiles_longer_than_allowed(engine: PluginEngine) -> None:
    limits = CompileLimits(seconds=1)
    began = time.monotonic()
    with pytest.raises(ArtifactError) as caught:
        Compiler(engine, None, limits).compile(slow())
    assert caught.value.code == "artifact.compile-limit"
    assert time.monotonic() - began < 30


class Enough(Exception):
    """What an embedder raises to give up."""


@pytest.mark.case("RES-22")
def test_tells_how_far_it_is_and_refuses_to_go_on_for_whoever_gives_up(
    engine: PluginEngine,
) -> None:
    told: list[Compiling] = []

    def tell(how_far: Compiling) -> None:
        told.append(how_far)
        if len(told) == 3:
            raise Enough

    with pytest.raises(Enough):
        Compiler(engine, None, on_compile=tell).compile(slow())
    assert psutil.Process().children() == []
    assert [c.done for c in told] == [False, False, False, True]
    assert 0.5 <= told[0].seconds < told[1].seconds < told[2].seconds
    assert {c.code_bytes for c in told} == {len(slow())}
    assert not any(c.elsewhere for c in told)
    # And nothing of what is quick.
    Compiler(engine, None, on_compile=told.append).compile(guest("hostile"))
    assert len(told) == 4


@pytest.mark.case("RES-22")
def test_refuses_to_go_on_compiling_for_a_process_that_was_killed() -> None:
    script = (
        "from capwasm.engine.compile import Compiler\n"
        "from capwasm.engine.engine import PluginEngine\n"
        "from tests.engine.test_compile import slow\n"
        "tell = lambda how_far: print('slow', flush=True)\n"
        "Compiler(PluginEngine(), None, on_compile=tell).compile(slow(400))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "slow\n"
    (child,) = psutil.Process(parent.pid).children()
    parent.kill()
    parent.communicate()
    assert psutil.wait_procs([child], timeout=3)[1] == []


def test_the_compile_process_has_nothing_of_its_parents(
    engine: PluginEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spy = tmp_path / "spy"
    spy.write_text(
        f"#!{sys.executable}\n"
        "import os, sys\n"
        "fds = sorted(map(int, os.listdir('/proc/self/fd')))\n"
        "sys.stderr.write(f'{dict(os.environ)} {fds[:4]} {sys.argv[1:3]}')\n"
        "sys.exit(1)\n"
    )
    spy.chmod(0o755)
    monkeypatch.setenv("CAPWASM_SECRET", "nothing of worth")
    monkeypatch.setattr(module.sys, "executable", str(spy))
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        with pytest.raises(InternalError) as caught:
            Compiler(engine, None).compile(guest("hostile"))
    # The fourth is the listing's own.
    assert "[0, 1, 2, 3] ['-I', '-S']" in caught.value.message
    assert "CAPWASM_SECRET" not in caught.value.message


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


def load(engine: PluginEngine, compiled: bytes) -> None:
    with Sealed.holding(compiled) as sealed:
        Compiler(engine, None)._load(sealed)


@pytest.mark.case("TYP-11")
def test_compiled_code_is_bound_to_the_settings_of_the_engine(engine: PluginEngine) -> None:
    # What another engine compiled does not load into ours: its settings differ.
    config = wasmtime.Config()
    foreign = wasmtime.component.Component(wasmtime.Engine(config), guest("hostile")).serialize()
    with pytest.raises(ArtifactError):
        load(engine, bytes(foreign))
    same = wasmtime.component.Component(wasmtime.Engine(make_config()), guest("hostile"))
    load(engine, bytes(same.serialize()))
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


@pytest.mark.case("LOG-07")
def test_the_words_of_a_component_are_printable_in_its_error(engine: PluginEngine) -> None:
    code = wasm('(component (import "url=<\\1b[31mred>" (func)) (import "url=<x>" (func)))')
    at = code.index(b"\x1b[31mred")
    with pytest.raises(ArtifactError) as caught:
        Compiler(engine, None).compile(code[: at + 12] + b"\xff" + code[at + 13 :])
    assert str(caught.value).isprintable()
