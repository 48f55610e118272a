"""Values across the boundary: what is taken, what is refused with which words, and who owns what."""

from __future__ import annotations

import threading
from array import array
from dataclasses import dataclass

import pytest
import wasmtime.component._enter

from capwasm.engine import types as t
from capwasm.engine.crossing import EngineFault, short
from capwasm.errors import CapError, InternalError, ValueLimitExceeded
from capwasm.values import Err, Ok, Some, Variant
from tests.engine.echo import Echo, plain

U8, U32, STRING, CHAR, BOOL = (t.Prim(w) for w in ("u8", "u32", "string", "char", "bool"))
CITY = t.Record(None, (("name", STRING), ("max-size", U32), ("class", t.Option(U8))))
COLOR = t.Enum(None, ("red", "light-blue"))
MODES = t.Flags(None, ("read", "write", "append"))
SHAPE = t.Variant(None, (("none", None), ("circle", t.Prim("f64"))))
BOTH = pytest.mark.parametrize("fast", [True, False], ids=["fast", "slow"])


# -- what is refused, in which words -------------------------------------------------------------

REFUSED = [
    (U8, 256, ValueError, "x: expected u8 (0 to 255), got 256"),
    (U8, -1, ValueError, "x: expected u8 (0 to 255), got -1"),
    (U32, True, TypeError, "x: expected u32, got bool"),
    (U32, 1.0, TypeError, "x: expected u32, got float"),
    (U32, 1 << 40_000, ValueError, "got a number of 40001 bits"),
    (t.Prim("s64"), 2**63, ValueError, "x: expected s64"),
    (t.Prim("f32"), 1e300, ValueError, "x: 1e+300 is too large for f32"),
    (t.Prim("f64"), 10**400, ValueError, "x: a number of 1329 bits is too large for f64"),
    (t.Prim("f64"), "1", TypeError, "x: expected f64, got str"),
    (BOOL, 1, TypeError, "x: expected bool, got int"),
    (CHAR, "ab", ValueError, "x: expected char (one Unicode scalar value), got 'ab'"),
    (CHAR, "", ValueError, "x: expected char"),
    (CHAR, "\ud800", ValueError, "x: expected char"),
    (STRING, b"abc", TypeError, "x: expected string, got bytes"),
    (STRING, "ab\udc00", ValueError, "x: a string with a lone surrogate at index 2"),
    (t.List(U8), "abc", TypeError, "x: expected list<u8> (bytes), got str"),
    (t.List(U8), [1, 2], TypeError, "x: expected list<u8> (bytes), got list"),
    (t.List(U32), b"abc", TypeError, "x: expected list<u32>, got bytes"),
    (t.List(U32), [1, 2, 2**32], ValueError, "x[2]: expected u32 (0 to 4294967295)"),
    (t.List(U32), [1, True], TypeError, "x[1]: expected u32, got bool"),
    (t.List(t.Prim("f32")), [1.0, 1e300], ValueError, "x[1]: 1e+300 is too large for f32"),
    (t.List(STRING), ["a", 1], TypeError, "x[1]: expected string, got int"),
    (t.List(STRING), "ab", TypeError, "x: expected list<string>, got str"),
    (t.Tuple((U8, STRING)), (1,), ValueError, "x: expected tuple<u8, string>, got 1 items"),
    (t.Tuple((U8, STRING)), (1, 2), TypeError, "x[1]: expected string, got int"),
    (CITY, {"name": 3, "max_size": 1, "class_": None}, TypeError, "x.name: expected string"),
    (
        CITY,
        {"name": "a"},
        TypeError,
        "lacks max_size, class_; the fields of TYPE are name, max_size",
    ),
    (CITY, {"name": "a", "max_size": 1, "class_": 1, "z": 1}, TypeError, "unknown fields 'z'"),
    (CITY, "Oslo", TypeError, "x: expected TYPE, got str"),
    (CITY, {"name": "a", "max_size": 1, "class_": 300}, ValueError, "x.class: expected u8"),
    (COLOR, "green", ValueError, "x: 'green' is not one of TYPE's words: red, light-blue"),
    (COLOR, 0, TypeError, "x: expected TYPE, got int"),
    (MODES, "read", TypeError, "x: expected TYPE (a set of words), got str"),
    (MODES, {"read", "exec"}, ValueError, "x: 'exec' is not one of TYPE's words"),
    (SHAPE, "circle", TypeError, "x: expected TYPE (a Variant), got str"),
    (SHAPE, Variant("square"), ValueError, "x: 'square' is not one of TYPE's words: none, circle"),
    (SHAPE, Variant("none", 1), ValueError, "x: the case none of TYPE has no value"),
    (SHAPE, Variant("circle", "r"), TypeError, "x.circle: expected f64, got str"),
    (t.Option(t.Option(U8)), 1, TypeError, "x: expected option<option<u8>> (Some or None)"),
    (t.Option(U8), Some(1), TypeError, "x: expected u8, got Some"),
    (t.Result(U8, None), 1, TypeError, "x: expected result<u8> (Ok or Err), got int"),
    (t.Result(U8, None), Err(1), ValueError, "x: the case err of result<u8> has no value"),
    (t.Result(U8, None), Ok("a"), TypeError, "x.ok: expected u8, got str"),
]


@pytest.mark.case("TYP-04", "TYP-05", "TYP-06", "TYP-07")
@BOTH
@pytest.mark.parametrize(
    ("type_", "value", "error", "message"), REFUSED, ids=map(str, range(len(REFUSED)))
)
def test_refuses_an_argument_with_its_path_and_type(type_, value, error, message, fast) -> None:
    echo = Echo(type_, fast=fast)
    with pytest.raises(error) as info:
        echo(value)
    assert str(info.value).startswith("argument x")
    assert message.replace("TYPE", short(type_)) in str(info.value)
    assert echo.seen == []


@pytest.mark.case("TYP-04", "TYP-05")
@BOTH
@pytest.mark.parametrize(
    ("type_", "value", "error", "message"), REFUSED, ids=map(str, range(len(REFUSED)))
)
def test_refuses_a_host_functions_result_of_the_wrong_shape(
    type_, value, error, message, fast
) -> None:
    if isinstance(type_, t.Result) and not isinstance(value, Ok | Err):
        pytest.skip("a host function returns the good value itself")
    good = {
        CITY: {"name": "a", "max_size": 1, "class_": None},
        COLOR: "red",
        MODES: {"read"},
        SHAPE: Variant("none"),
        t.Tuple((U8, STRING)): (1, "a"),
        t.Result(U8, None): Ok(1),
        STRING: "a",
        CHAR: "a",
        BOOL: True,
    }
    echo = Echo(type_, fast=fast)
    echo.host = lambda _: value
    fallback: object = b"" if type_ == t.List(U8) else [] if isinstance(type_, t.List) else None
    argument = good.get(type_, 1 if isinstance(type_, t.Prim) else fallback)
    with pytest.raises(EngineFault):
        echo(argument)
    (failure,) = echo.failures
    assert isinstance(failure, InternalError)
    assert message.removeprefix("x").replace("TYPE", short(type_)) in str(failure)
    assert "host function f: result" in str(failure)


@pytest.mark.case("TYP-04")
@BOTH
def test_refuses_the_wrong_number_of_arguments(fast) -> None:
    echo = Echo(U8, fast=fast)
    for args in ((), (1, 2)):
        with pytest.raises(TypeError, match=r"g\(x: u8\) -> u8 takes 1 argument, got"):
            echo.bound(args)


# -- what is taken -------------------------------------------------------------------------------


@dataclass
class Town:
    name: str
    max_size: int
    class_: int | None
    mayor: str = "not crossing"


@BOTH
def test_allows_whatever_has_a_records_fields(fast) -> None:
    echo = Echo(CITY, fast=fast)
    out = echo({"name": "Oslo", "max_size": 7, "class_": None})
    assert (out.name, out.max_size, out.class_) == ("Oslo", 7, None)
    assert echo(out) == out
    assert echo(Town("Oslo", 7, None)) == out
    assert type(echo(out)) is type(out), "one class a type"
    with pytest.raises(AttributeError):
        out.name = "Bergen"
    assert type(out).__name__ in {"FX", "GX"}, "named after where it was met first"


@BOTH
def test_enum_and_flags_are_members_and_words(fast) -> None:
    color = Echo(COLOR, fast=fast)("light-blue")
    assert color == "light-blue"
    assert color.name == "LIGHT_BLUE"
    echo = Echo(MODES, fast=fast)
    out = echo(["write", "read", "write"])
    assert out == frozenset({"read", "write"})
    assert echo(out) == out
    assert echo(()) == frozenset()


@BOTH
def test_allows_bytes_like_objects_as_bytes(fast) -> None:
    echo = Echo(t.List(U8), fast=fast)
    data = bytes(range(256)) * 3
    for given in (data, bytearray(data), memoryview(data)):
        assert echo(given) == data
    assert echo(memoryview(data)[::2]) == data[::2]
    assert echo(array("H", [1, 2])) == array("H", [1, 2]).tobytes()
    assert echo(b"") == b""


@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 8193, 40_000])
def test_lists_of_numbers_cross_whole_at_every_block_size(size) -> None:
    assert Echo(t.List(U8))(bytes(i % 251 for i in range(size))) == bytes(
        i % 251 for i in range(size)
    )
    for word in ("u16", "s32", "u64", "f64", "bool"):
        make = {"f64": float, "bool": lambda i: i % 3 == 0}.get(word, lambda i: i)
        given = [make(i) for i in range(size)]
        assert Echo(t.List(t.Prim(word)))(given) == given


@BOTH
def test_allows_arrays_and_tuples_as_lists_of_numbers(fast) -> None:
    echo = Echo(t.List(U32), fast=fast)
    for given in ((1, 2, 3), array("I", [1, 2, 3]), memoryview(array("I", [1, 2, 3]))):
        assert echo(given) == [1, 2, 3]
    assert Echo(t.List(t.Prim("f64")), fast=fast)([1, 2.5]) == [1.0, 2.5]


@BOTH
def test_allows_strings_with_nul_and_every_plane(fast) -> None:
    echo = Echo(STRING, fast=fast)
    for text in ("", "\0", "a\0b", "é€😀", "x" * 100_000):
        assert echo(text) == text


def test_a_str_subclass_can_not_lie_about_its_text() -> None:
    class Liar(str):
        __slots__ = ()

        def encode(self, *_: object) -> bytes:  # type: ignore[override]
            return b"\xff\xfe"

        def __len__(self) -> int:
            return 0

    assert Echo(STRING)(Liar("true")) == "true"


def test_a_list_that_grows_while_it_crosses_can_not_overrun() -> None:
    class Sly:
        def __init__(self) -> None:
            self.others: list[object] = []

        @property
        def a(self) -> int:
            self.others.extend([self] * 50)
            return 1

    sly = Sly()
    sly.others = [sly, sly]
    out = Echo(t.List(t.Record(None, (("a", U32),))))(sly.others)
    assert plain(out) == [{"a": 1}, {"a": 1}]


# -- host functions: refusals and failures -------------------------------------------------------

ERROR = t.Enum(None, ("denied", "not-found"))


@BOTH
@pytest.mark.parametrize(
    ("error", "word", "told"),
    [
        (ERROR, "not-found", "not-found"),
        (ERROR, "quota", "denied"),
        (t.Enum(None, ("unavailable",)), "quota", "unavailable"),
        (t.Variant(None, (("denied", None), ("other", STRING))), "denied", Variant("denied")),
        (t.Variant(None, (("denied", None), ("other", STRING))), "other", Variant("denied")),
    ],
)
def test_a_refusal_becomes_the_err_case(error, word, told, fast) -> None:
    echo = Echo(t.Result(STRING, error), fast=fast)

    def refuse(_: object) -> object:
        raise CapError(word, "the operator's detail")

    echo.host = refuse
    assert echo(Ok("x")) == Err(told)
    assert echo.failures == []


@BOTH
@pytest.mark.parametrize(
    "type_", [STRING, t.Result(STRING, None), t.Result(STRING, t.Enum(None, ("odd",)))]
)
def test_a_refusal_without_a_word_ends_the_call(type_, fast) -> None:
    echo = Echo(type_, fast=fast)

    def refuse(_: object) -> object:
        raise CapError("denied")

    echo.host = refuse
    with pytest.raises(EngineFault, match="told on the record"):
        echo("x" if type_ == STRING else Ok("x"))
    (failure,) = echo.failures
    assert isinstance(failure, CapError)


@BOTH
def test_a_host_function_returns_the_good_value_itself(fast) -> None:
    echo = Echo(t.Result(STRING, ERROR), fast=fast)
    for returned, wanted in (("a", Ok("a")), (Ok("b"), Ok("b")), (Err("denied"), Err("denied"))):
        echo.host = lambda _, x=returned: x
        assert echo(Ok("")) == wanted
    unit = Echo(t.Result(None, ERROR), fast=fast)
    unit.host = lambda _: None
    assert unit(Err("denied")) == Ok(None)


@pytest.mark.case("LIFE-05")
@BOTH
def test_every_kind_of_exception_is_kept_and_none_leaves(fast) -> None:
    for kind in (ValueError, KeyboardInterrupt, SystemExit, GeneratorExit, RecursionError):
        echo = Echo(STRING, fast=fast)

        def fail(_: object, kind: type[BaseException] = kind) -> object:
            raise kind("mine")

        echo.host = fail
        with pytest.raises(EngineFault):
            echo("x")
        assert [type(f) for f in echo.failures] == [kind]


@BOTH
def test_a_failing_failure_hook_still_only_fails_the_call(fast) -> None:
    def fail(*_: object) -> object:
        raise KeyboardInterrupt

    class Failing(Echo):
        _fail = fail

    echo = Failing(STRING, fast=fast)
    echo.host = fail
    with pytest.raises(EngineFault, match="host failure"):
        echo("x")
    echo.open()
    echo.host = lambda x: x
    assert echo("x") == "x"


def test_the_wheels_global_exception_is_never_used() -> None:
    before = wasmtime.component._enter.LAST_EXCEPTION
    for fast in (True, False):
        echo = Echo(STRING, fast=fast)
        echo.host = lambda _: 1 / 0
        with pytest.raises(EngineFault):
            echo("x")
    assert wasmtime.component._enter.LAST_EXCEPTION is before is None


@pytest.mark.case("LIFE-04")
@BOTH
def test_failures_of_four_threads_surface_in_their_own_calls(fast) -> None:
    shared = Echo(STRING, fast=fast)
    wrong: list[object] = []

    def work(number: int) -> None:
        own = Echo(STRING, fast=fast)
        own.plans = shared.plans
        rounds = 300 if fast else 100
        for i in range(rounds):
            own.open()
            text = f"{number}-{i}"

            def fail(_: object, text: str = text) -> object:
                raise ValueError(text)

            own.host = fail if i % 2 else (lambda x: x)
            own.failures.clear()
            try:
                out = own(text)
            except EngineFault:
                out = str(own.failures[0])
            if out != text:
                wrong.append((out, text))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@BOTH
def test_calls_of_one_plan_may_nest(fast) -> None:
    outer, inner = Echo(STRING, fast=fast), Echo(STRING, fast=fast)
    inner.plans = outer.plans
    inner.open()
    outer.host = lambda x: inner(x + "!") + "?"
    assert outer("a" * 5000) == "a" * 5000 + "!?"


# -- limits --------------------------------------------------------------------------------------


@pytest.mark.case("RES-16", "RES-17", "RES-18")
@BOTH
@pytest.mark.parametrize(
    ("type_", "fits", "too_large"),
    [
        (STRING, "é" * 500, "é" * 501),
        (t.List(U8), b"x" * 1000, b"x" * 1001),
        (t.List(U32), [1] * 250, [1] * 251),
        (t.List(CHAR), ["x"] * 31, ["x"] * 32),
        (t.List(t.List(STRING)), [[]] * 31, [[]] * 32),
        (t.List(t.Option(U8)), [1] * 15, [1] * 16),
    ],
)
def test_refuses_values_over_the_limit_before_the_guest_is_entered(
    type_, fits, too_large, fast
) -> None:
    echo = Echo(type_, fast=fast, value_bytes=1000)
    assert plain(echo(fits)) == plain(fits)
    entered = len(echo.seen)
    with pytest.raises(ValueLimitExceeded, match="1000 bytes"):
        echo(too_large)
    assert len(echo.seen) == entered
    assert plain(echo(fits)) == plain(fits), "each call has the whole budget"


@pytest.mark.case("RES-16", "RES-18")
@BOTH
def test_refuses_a_host_result_over_the_limit(fast) -> None:
    echo = Echo(STRING, fast=fast, value_bytes=1000)
    echo.host = lambda _: "x" * 1001
    with pytest.raises(EngineFault):
        echo("x")
    assert [type(f) for f in echo.failures] == [ValueLimitExceeded]


@pytest.mark.case("RES-16")
def test_refuses_a_guest_that_sends_the_host_too_much() -> None:
    wat = """(component
      (import "f" (func $f (param "x" string) (result string)))
      (core module $mem (memory (export "mem") 200)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 64)))
      (core instance $me (instantiate $mem))
      (core func $lf (canon lower (func $f) (memory (core memory $me "mem"))
        (realloc (core func $me "realloc"))))
      (core module $m
        (import "" "f" (func $f (param i32 i32 i32)))
        (import "me" "mem" (memory 1))
        (func (export "to-host") (param i32 i32) (result i32)
          (call $f (i32.const 0) (i32.const 10000000) (i32.const 12000000)) (i32.const 12000000))
        (func (export "back") (param i32 i32) (result i32)
          (i32.store (i32.const 12000004) (i32.const 10000000))
          (i32.const 12000000)))
      (core instance $i (instantiate $m (with "" (instance (export "f" (func $lf))))
        (with "me" (instance $me))))
      (func (export "g") (param "x" string) (result string)
        (canon lift (core func $i "NAME") (memory (core memory $me "mem"))
          (realloc (core func $me "realloc")))))"""
    for fast in (True, False):
        sends = Echo(STRING, fast=fast, value_bytes=1 << 20, wat=wat.replace("NAME", "to-host"))
        with pytest.raises(EngineFault):
            sends("")
        assert [type(f) for f in sends.failures] == [ValueLimitExceeded]
        assert sends.seen == []
        returns = Echo(STRING, fast=fast, value_bytes=1 << 20, wat=wat.replace("NAME", "back"))
        with pytest.raises(ValueLimitExceeded):
            returns("")
        wide = Echo(STRING, fast=fast, value_bytes=1 << 24, wat=wat.replace("NAME", "back"))
        assert len(wide("")) == 10_000_000
