"""The lane's memory is shared by all calls of the process: from threads, within each other, for long."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from capwasm.engine import capi
from capwasm.engine import types as t
from capwasm.engine.crossing import EngineFault
from capwasm.engine.lane import plan
from capwasm.errors import ValueLimitExceeded
from tests.engine.laned import LanedEcho

U8, U32, STRING = (t.Prim(w) for w in ("u8", "u32", "string"))
BYTES = t.List(U8)
PAIRS = t.List(t.Record(None, (("name", STRING), ("data", BYTES))))


class Calling(Mapping[str, object]):
    """A record whose fields are found by calls of another plugin, over the same lane."""

    def __init__(self, other: LanedEcho, name: str, data: bytes) -> None:
        self._other = other
        self._fields = {"name": name, "data": data}

    def __getitem__(self, key: str) -> object:
        assert self._other(b"between " * 1000) == b"between " * 1000
        return self._fields[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


@pytest.mark.case("TYP-13")
def test_a_value_that_calls_another_plugin_while_it_crosses() -> None:
    other, echo = LanedEcho(BYTES), LanedEcho(PAIRS)

    out = echo([Calling(other, f"n{i}", bytes([i]) * 300) for i in range(20)])

    assert [(x.name, x.data) for x in out] == [(f"n{i}", bytes([i]) * 300) for i in range(20)]


@pytest.mark.case("TYP-13")
def test_a_host_function_that_calls_another_plugin() -> None:
    inner, outer = LanedEcho(BYTES), LanedEcho(BYTES)
    outer.host = lambda x: inner(x) + inner(x[::-1])

    assert outer(b"abc" * 5000) == b"abc" * 5000 + b"cba" * 5000


def test_threads_never_see_each_others_values() -> None:
    wrong: list[object] = []

    def work(seed: int) -> None:
        rng, echo = random.Random(seed), LanedEcho(BYTES)
        for _ in range(60):
            # Past what is copied while the interpreter is held, now and then.
            data = bytes([seed]) * rng.choice((3, 100, 5000, 40_000, 400_000))
            if echo(data) != data or echo.seen.pop() != data:
                wrong.append(seed)
            # The guest never frees; a fresh one does.
            echo.open()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(plan._codecs.free) <= 8


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.case("RES-18")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_stays_flat_over_calls_and_failures_at_every_place() -> None:
    echo, small = LanedEcho(PAIRS), LanedEcho(PAIRS, value_bytes=5000)
    failing = LanedEcho(PAIRS)
    failing.host = lambda _: [{"name": "x"}]
    rows = [{"name": f"n{i}" * 20, "data": os.urandom(400)} for i in range(60)]

    def round_() -> None:
        for _ in range(10):
            echo(rows)
        with pytest.raises(TypeError, match=r"argument x\[59\].name"):
            echo([*rows[:59], {"name": 3, "data": b""}])
        with pytest.raises(ValueLimitExceeded):
            small(rows)
        with pytest.raises(EngineFault):
            failing(rows[:1])
        failing.open()
        for one in (echo, failing):
            one.seen.clear()
            one.failures.clear()

    for _ in range(5):
        round_()
    gc.collect()
    before = _resident()
    for _ in range(60):
        round_()
    gc.collect()
    # 60 rounds move some 20 MB each way; one lost string in each call would show.
    assert _resident() - before < 8 << 20


def test_a_call_that_is_torn_when_it_has_returned_leaves_nothing_in_its_codec(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A signal's handler may raise when the engine has written its result: it must be freed, once."""
    real, torn = capi.func_call, False

    def enter(*args: object) -> object:
        error = real(*args)
        if torn:
            raise KeyboardInterrupt
        return error

    monkeypatch.setattr(capi, "func_call", enter)
    monkeypatch.setattr(plan._codecs, "free", [])
    echo = LanedEcho(BYTES)
    for _ in range(3):
        torn = True
        with pytest.raises(EngineFault, match="torn"):
            echo(b"x" * 5000)
        torn = False
        echo.open()
        # Whoever has that codec next, an import or an export.
        plan._codecs.free.reverse()
        for _ in range(4):
            assert echo(b"y" * 5000) == b"y" * 5000
            plan._codecs.free.reverse()
    assert {codec.buf[32] for codec in plan._codecs.free} == {0}


_CROWDED = """
import resource
from capwasm.engine import types as t
from capwasm.errors import InstancesExceeded
from tests.engine.laned import LanedEcho
from capwasm.engine.lane import plan

echo = LanedEcho(t.List(t.Prim("u8")))
held = [plan._codecs.take(1000)]  # the next call needs two, one for each way
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (1 << 30),) * 2)
plan._codecs.free.clear()
for _ in range(2):
    try:
        echo(b"x")
    except InstancesExceeded as exc:
        assert exc.code == "limit.capacity", exc.code
    else:
        raise AssertionError("there was room")
plan._codecs.give_back(held.pop())
try:
    echo(b"x")
except Exception as exc:
    assert "told on the record" in str(exc), exc
assert [type(x) for x in echo.failures] == [InstancesExceeded]
"""


@pytest.mark.case("RES-08")
def test_refuses_a_crossing_for_which_there_is_no_address_space() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CROWDED],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
