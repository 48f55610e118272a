"""The boundary: whatever a host function does, its own call tells, and the process lives."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from capwasm.call import current_call
from capwasm.capability import Interface
from capwasm.engine.engine import PluginEngine
from capwasm.engine.link import link
from capwasm.errors import (
    CallInterrupted,
    CapError,
    CapwasmError,
    DeadlineExceeded,
    FuelExhausted,
    GuestError,
    HostCallLimitExceeded,
    InternalError,
    LinkError,
    NetBudgetExceeded,
    OutputLimitExceeded,
)
from capwasm.instance import HOST_CALL_FUEL, Instance
from capwasm.limits import DEFAULTS
from capwasm.values import Err, Ok
from tests.kit import ListServed, compiled

SIGNATURES = {
    "number": "func(n: u32) -> u32",
    "nothing": "func() -> _",
    "maybe": "func(n: u32) -> result<u32, enum{denied, closed}>",
}


class Caller:
    """The guest that calls these functions."""

    def __init__(self, engine: PluginEngine, **functions: Callable[..., Any]) -> None:
        default: dict[str, Callable[..., Any]] = {
            "number": lambda n: n,
            "nothing": lambda: None,
            "maybe": lambda n: n,
        }
        self.engine = engine
        self.served = [Interface("test:host/api@1.0.0", default | functions, signatures=SIGNATURES)]
        component = compiled(engine, "caller")
        self.linked = link(engine, component, self.served, owners={}, unserved=lambda _: None)

    def new(self, **limits: int) -> Instance:
        instance = Instance(
            self.engine, self.linked, "t@1", replace(DEFAULTS, **limits), ListServed(self.served)
        )
        instance.start()
        return instance

    def __call__(self, name: str, *args: Any, **limits: int) -> Any:
        instance = self.new(**limits)
        try:
            return instance.call(self.linked.exports.find(name), args)[0]
        finally:
            instance.close()


@pytest.fixture(scope="module")
def engine() -> Iterator[PluginEngine]:
    engine = PluginEngine()
    yield engine
    engine.close()


def test_allows_a_host_call_and_its_answer(engine: PluginEngine) -> None:
    caller = Caller(engine, number=lambda n: n + 1)
    assert caller("number", 41) == 42
    assert caller("maybe", 7) == Ok(7)


def test_a_refusal_is_the_guests_own_word(engine: PluginEngine) -> None:
    def maybe(_n: int) -> int:
        raise CapError("closed", "what only the operator may know")

    assert Caller(engine, maybe=maybe)("maybe", 1) == Err("closed")


def test_a_word_that_the_type_does_not_have_becomes_denied(engine: PluginEngine) -> None:
    def maybe(_n: int) -> int:
        raise CapError("not-found")

    assert Caller(engine, maybe=maybe)("maybe", 1) == Err("denied")


def test_refuses_to_go_on_where_the_type_has_no_word(engine: PluginEngine) -> None:
    calls: list[int] = []

    def number(n: int) -> int:
        calls.append(n)
        raise CapError("denied")

    with pytest.raises(InternalError):
        Caller(engine, number=number)("twice", 1)
    assert calls == [1]


class Own(Exception):
    """An embedder's mistake."""


RAISED = [
    ValueError("x"),
    Own("y"),
    RecursionError(),
    MemoryError(),
    StopIteration(),
    AssertionError(),
]


@pytest.mark.parametrize("error", RAISED, ids=lambda e: type(e).__name__)
def test_a_failing_host_function_is_an_internal_error_with_its_cause(
    engine: PluginEngine, error: Exception
) -> None:
    def number(_n: int) -> int:
        raise error

    with pytest.raises(InternalError) as caught:
        Caller(engine, number=number)("twice", 1)
    assert caught.value.__cause__ is error


WRONG = [-1, 2**32, 2**40 + 7, "1", 1.5, None, True, b"", [1]]


@pytest.mark.case("TYP-04", "TYP-05")
@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_refuses_a_wrong_answer_of_a_host_function(engine: PluginEngine, value: object) -> None:
    with pytest.raises(InternalError):
        Caller(engine, number=lambda _n: value)("number", 1)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()], ids=repr)
def test_what_ends_the_process_ends_the_call_first(
    engine: PluginEngine, error: BaseException
) -> None:
    def nothing() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        Caller(engine, nothing=nothing)("nothing")
    assert caught.value is error


def test_the_process_survives_what_ends_processes() -> None:
    # In a process of its own: what is tested against is a segmentation fault.
    script = textwrap.dedent(
        """
        from tests.stages.test_boundary import Caller
        from capwasm.engine.engine import PluginEngine
        engine = PluginEngine()
        for error in (KeyboardInterrupt, SystemExit, GeneratorExit) * 100:
            def fail(*_args, error=error):
                raise error
            for name, args in (("number", (1,)), ("nothing", ()), ("maybe", (1,))):
                try:
                    Caller(engine, number=fail, nothing=fail, maybe=fail)(name, *args)
                except error:
                    continue
                raise AssertionError
        print("alive")
        """
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "alive"
    assert "Exception ignored" not in run.stderr


def test_ten_thousand_failures_from_four_threads_each_in_its_own_call(engine: PluginEngine) -> None:
    def number(n: int) -> int:
        raise Own(n)

    caller = Caller(engine, number=number)
    export = caller.linked.exports.find("number")
    wrong: list[object] = []
    right = [0] * 4

    def work(thread: int) -> None:
        for i in range(2_500):
            number = thread * 10_000 + i
            instance = caller.new()
            try:
                instance.call(export, (number,))
                wrong.append("no error")
            except InternalError as exc:
                if isinstance(exc.__cause__, Own) and exc.__cause__.args == (number,):
                    right[thread] += 1
                else:
                    wrong.append(exc.__cause__)
            except BaseException as exc:
                wrong.append(exc)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert wrong == []
    assert right == [2_500] * 4


@pytest.mark.case("RES-03")
def test_host_work_is_paid_in_fuel(engine: PluginEngine) -> None:
    def number(n: int) -> int:
        current_call().charge_host_work(1_000_000)
        return n

    with pytest.raises(FuelExhausted):
        Caller(engine, number=number)("loop", 1_000, fuel=50_000_000)
    with pytest.raises(FuelExhausted):
        Caller(engine)("loop", 1_000, fuel=HOST_CALL_FUEL * 500)
    Caller(engine)("loop", 1_000, fuel=HOST_CALL_FUEL * 1_100)


def test_refuses_more_host_calls_than_the_limit(engine: PluginEngine) -> None:
    Caller(engine)("loop", 100, host_calls=100)
    with pytest.raises(HostCallLimitExceeded):
        Caller(engine)("loop", 101, host_calls=100)


@pytest.mark.parametrize(
    ("charge", "error"),
    [("charge_output", OutputLimitExceeded), ("charge_net", NetBudgetExceeded)],
)
def test_refuses_more_bytes_than_the_limit(
    engine: PluginEngine, charge: str, error: type[CapwasmError]
) -> None:
    def number(n: int) -> int:
        getattr(current_call(), charge)(100)
        return n

    caller = Caller(engine, number=number)
    caller("loop", 10, output_bytes=1000, net_bytes=1000)
    with pytest.raises(error):
        caller("loop", 11, output_bytes=1000, net_bytes=1000)


@pytest.mark.case("RES-04")
def test_a_blocking_host_call_is_told_how_long_it_may_block(engine: PluginEngine) -> None:
    waits: list[float] = []

    def nothing() -> None:
        waits.append(current_call().remaining())

    Caller(engine, nothing=nothing)("nothing", wall_ms=200, host_call_ms=5_000)
    Caller(engine, nothing=nothing)("nothing", wall_ms=5_000, host_call_ms=100)
    assert 0.0 < waits[0] <= 0.2
    assert 0.0 < waits[1] <= 0.1


@pytest.mark.case("RES-04")
def test_the_deadline_is_seen_at_the_next_host_call(engine: PluginEngine) -> None:
    count = 0

    def nothing() -> None:
        nonlocal count
        count += 1
        time.sleep(0.03)

    with pytest.raises(DeadlineExceeded):
        Caller(engine, nothing=nothing)("forever", wall_ms=50, fuel=2**50)
    assert count <= 3


@pytest.mark.case("LIFE-02", "TYP-13")
def test_a_host_function_may_close_its_own_instance(engine: PluginEngine) -> None:
    closed: list[Instance] = []
    caller = Caller(engine, nothing=lambda: closed[0].close("from inside"))
    instance = caller.new()
    closed.append(instance)
    with pytest.raises(CallInterrupted, match="from inside"):
        instance.call(caller.linked.exports.find("forever"), ())
    assert instance._store is None


@pytest.mark.case("TYP-13")
def test_refuses_to_enter_an_instance_from_its_own_host_call(engine: PluginEngine) -> None:
    seen: list[str] = []

    def nothing() -> None:
        try:
            instance.call(caller.linked.exports.find("number"), (1,))
        except GuestError as exc:
            seen.append(exc.code)

    caller = Caller(engine, nothing=nothing)
    instance = caller.new()
    instance.call(caller.linked.exports.find("nothing"), ())
    assert seen == ["guest.busy"]
    instance.close()


@pytest.mark.case("TYP-10")
def test_refuses_an_import_of_another_shape(engine: PluginEngine) -> None:
    served = [
        Interface(
            "test:host/api@1.0.0",
            {"number": lambda n: n, "nothing": lambda: None, "maybe": lambda n: n},
            signatures=SIGNATURES | {"number": "func(n: string) -> u32"},
        )
    ]
    component = compiled(engine, "caller")
    with pytest.raises(LinkError, match="imported as"):
        link(engine, component, served, owners={}, unserved=lambda _: None)


def test_refuses_a_function_without_a_signature(engine: PluginEngine) -> None:
    served = [
        Interface(
            "test:host/api@1.0.0",
            {"number": lambda n: n, "nothing": lambda: None, "maybe": lambda n: n},
        )
    ]
    component = compiled(engine, "caller")
    with pytest.raises(LinkError) as caught:
        link(engine, component, served, owners={}, unserved=lambda _: None)
    assert len(caught.value.faults) == 3
