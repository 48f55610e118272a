"""What would leak memory, or kill the process: long loops, odd layouts, signals, a full stack."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from capwasm.engine import capi, plan, trampoline
from capwasm.engine import types as t
from capwasm.engine.crossing import EngineFault
from capwasm.values import Ok, Variant
from tests.engine.echo import Echo

U8, U32, STRING = (t.Prim(w) for w in ("u8", "u32", "string"))
CITY = t.Record(None, (("name", STRING), ("max-size", U32), ("class", t.Option(U8))))
MODES = t.Flags(None, ("read", "write", "append"))
SHAPE = t.Variant(None, (("none", None), ("circle", t.Prim("f64"))))


# -- memory --------------------------------------------------------------------------------------


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.case("RES-18")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_stays_flat_over_calls_and_failures_at_every_place() -> None:
    rich = t.List(
        t.Tuple((STRING, t.Option(t.List(U8)), t.Result(SHAPE, MODES), CITY, t.List(U32)))
    )
    city = {"name": "n" * 200, "max_size": 1, "class_": 3}
    row = ("s" * 300, b"b" * 200, Ok(Variant("circle", 1.0)), city, [1] * 50)
    bad_rows = [
        (*row[:4], [1, -1]),
        (*row[:3], {**city, "class_": 300}, row[4]),
        (*row[:2], Ok(Variant("circle", "x")), *row[3:]),
        (row[0], "x", *row[2:]),
    ]
    echo = Echo(rich)
    failing = Echo(rich)
    failing.host = lambda _: [row, bad_rows[0]]

    def round_() -> None:
        for _ in range(40):
            echo([row] * 4)
        for bad in bad_rows:
            with pytest.raises((TypeError, ValueError)):
                echo([row, row, bad])
        with pytest.raises(EngineFault):
            failing([row])
        failing.open()
        echo.seen.clear()
        failing.seen.clear()
        failing.failures.clear()

    for _ in range(5):
        round_()
    gc.collect()
    before = _resident()
    for _ in range(60):
        round_()
    gc.collect()
    # 60 rounds move about 20 MB each way; one lost value in each call would show.
    assert _resident() - before < 8 << 20


def test_nothing_is_kept_for_a_linker_that_is_gone() -> None:
    gc.collect()
    before = trampoline.live_entries()
    echoes = [Echo(STRING) for _ in range(20)]
    assert trampoline.live_entries() == before + 20
    del echoes
    gc.collect()
    assert trampoline.live_entries() == before


# -- the layout ----------------------------------------------------------------------------------


def test_the_installed_wheels_layout_is_the_known_one() -> None:
    assert capi.layout_faults() == []


def test_an_unknown_layout_warns_once_and_works(monkeypatch) -> None:
    monkeypatch.setattr(plan, "_warned", threading.Event())
    monkeypatch.setattr(capi, "_KNOWN_MAJORS", frozenset({"49"}))
    assert "is not a version that was checked" in capi.layout_faults()[0]
    types = Echo(STRING).types
    with pytest.warns(RuntimeWarning, match="values cross slowly: wasmtime"):
        plans = plan.Plans(types)
    assert type(plans.export("", "g")).__name__ == "WheelExportPlan"
    plan.Plans(types)  # no second warning: it would be an error here


@pytest.mark.parametrize("field", ["of", "kind"])
def test_a_structure_that_differs_is_noticed(monkeypatch, field) -> None:
    import ctypes

    class Other(ctypes.Structure):
        _fields_ = [(field, ctypes.c_uint64), ("rest", ctypes.c_uint8 * 24)]

    monkeypatch.setattr(capi.ffi, "wasmtime_component_val", Other)
    assert any("wasmtime_component_val." in fault for fault in capi.layout_faults())


def test_plans_are_made_once_and_unknown_functions_refused() -> None:
    plans = Echo(STRING).plans
    assert plans.export("", "g") is plans.export("", "g")
    for side, name in ((plans.export, "f"), (plans.host, "g"), (plans.host, "")):
        with pytest.raises(KeyError):
            side("", name)
    with pytest.raises(KeyError):
        plans.export("a:b/c", "g")


def test_host_functions_are_built_at_their_first_call_and_told_of_when_they_can_not_be() -> None:
    tries: list[int] = []
    got: list[tuple[int, ...]] = []

    def make() -> Callable[..., None]:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("not a WIT name")
        return lambda *args: got.append(args)

    entry = trampoline.Entry.lazy(make, str)
    assert tries == []
    with pytest.raises(ValueError, match="WIT"):
        entry.run(1, 2, 3)
    entry.run(1, 2, 3)
    entry.run(4, 5, 6)
    assert got == [(1, 2, 3), (4, 5, 6)]
    assert len(tries) == 2


# -- what would kill the process -----------------------------------------------------------------

_CRASH = """
import signal, sys, threading
sys.path.insert(0, {root!r})
from capwasm.engine import types as t
from capwasm.engine.crossing import EngineFault, short
from tests.engine.echo import Echo
"""

_SIGNALS = """
class Stop(BaseException):
    pass

def stop(*_):
    raise Stop

signal.signal(signal.SIGALRM, stop)
seen = escaped = 0

def unraisable(_):
    global escaped
    escaped += 1

sys.unraisablehook = unraisable
for fast in (True, False):
    echo = Echo(t.Prim("u32"), fast=fast)
    for i in range(400):
        try:
            echo.open()
            signal.setitimer(signal.ITIMER_REAL, 0.0003 + i * 0.000005)
            while True:
                echo(1)
                echo.seen.clear()
        except (Stop, EngineFault):
            seen += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
print("survived", seen, escaped)
"""

_DEEP = """
import wasmtime
from wasmtime import component as wc
from capwasm.engine.plan import Plans, define_func
from capwasm.engine.walk import walk
from tests.engine.echo import ENGINE

WAT = '(component (import "f" (func $f)) (core func $lf (canon lower (func $f)))' \\
    '(core module $m (import "" "f" (func $f)) (func (export "g") (call $f)))' \\
    '(core instance $i (instantiate $m (with "" (instance (export "f" (func $lf))))))' \\
    '(func (export "g") (canon lift (core func $i "g"))))'
echo = Echo(t.Prim("string"))
component = wc.Component(ENGINE, WAT)
plans = Plans(walk(component, ENGINE))
linker = wc.Linker(ENGINE)
with linker.root() as root:
    define_func(root, plans.host("", "f"), lambda _: None, str, lambda: echo.boundary)

def fresh():
    store = wasmtime.Store(ENGINE)
    func = linker.instantiate(store, component).get_func(store, "g")
    return plans.export("", "g").bind(store, func, echo.boundary)

bare = fresh()

def dig(n, call):
    return dig(n - 1, call) if n else call()

outcomes = set()
for n in range(900, 1000):
    for call in (lambda: bare(()), lambda: echo("x")):
        try:
            outcomes.add(str(dig(n, call)))
        except RecursionError:
            outcomes.add("RecursionError")
        except EngineFault:
            outcomes.add("EngineFault")
            echo.open()
            bare = fresh()
assert echo("x") == "x"
print("survived", *sorted(outcomes))
"""


def _run(code: str) -> str:
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", _CRASH.format(root=root) + code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"died with {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.case("LIFE-13")
@pytest.mark.skipif(not hasattr(__import__("signal"), "setitimer"), reason="needs a timer signal")
def test_a_signal_at_any_instruction_of_a_host_call_is_survived() -> None:
    word, seen, escaped = _run(_SIGNALS).split()
    assert word == "survived"
    assert int(seen) == 800
    assert int(escaped) == 0, "no exception left a callback"


@pytest.mark.case("RES-12")
def test_a_call_from_the_end_of_pythons_stack_is_survived() -> None:
    outcomes = _run(_DEEP).split()
    assert outcomes[0] == "survived"
    assert {"RecursionError", "x"} <= set(outcomes)


def test_refuses_to_guard_a_function_that_does_not_begin_with_a_try() -> None:
    def bare() -> int:
        value = len("before")
        try:
            return value
        except BaseException:
            return 0

    with pytest.raises(AssertionError):
        trampoline.guarded(bare)
