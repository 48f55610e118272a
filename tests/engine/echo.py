"""A component for any type: it exports `g: func(x: T) -> T`, which calls its import `f` of that type.

The core module passes the flattened value through, in whichever way the canonical ABI has it for
that type: flat, or by pointer for more than 16 parameters, and by pointer for more than one result.
"""

from __future__ import annotations

import math
import weakref
from dataclasses import fields, is_dataclass
from enum import Enum as PyEnum
from itertools import count

import wasmtime
from wasmtime import component as wc

from capwasm.engine import types as t
from capwasm.engine.crossing import Boundary
from capwasm.engine.plan import Plans, define_func
from capwasm.engine.walk import walk
from capwasm.handles import HandleTable
from capwasm.values import Err, Ok, Some, Variant

ENGINE = wasmtime.Engine()
_FLAT = {"f32": "f32", "f64": "f64", "s64": "i64", "u64": "i64"}


def flat(type_: t.ValType | None) -> list[str]:
    """The core types of a flattened value."""
    match type_:
        case None:
            return []
        case t.Prim("string") | t.List():
            return ["i32", "i32"]
        case t.Prim(word):
            return [_FLAT.get(word, "i32")]
        case t.Record(_, parts):
            return [x for _, part in parts for x in flat(part)]
        case t.Tuple(items):
            return [x for part in items for x in flat(part)]
        case t.Variant(_, cases):
            return _variant([c for _, c in cases])
        case t.Option(payload):
            return _variant([None, payload])
        case t.Result(ok, err):
            return _variant([ok, err])
        case _:
            return ["i32"]


def _variant(cases: list[t.ValType | None]) -> list[str]:
    joined: list[str] = []
    for case in cases:
        for i, x in enumerate(flat(case)):
            if i == len(joined):
                joined.append(x)
            elif joined[i] != x:
                joined[i] = "i32" if {joined[i], x} == {"i32", "f32"} else "i64"
    return ["i32", *joined]


class _Wat:
    def __init__(self) -> None:
        self.head: list[str] = []
        self.numbers = count()
        self.known: dict[t.ValType, str] = {}

    def ref(self, type_: t.ValType) -> str:
        match type_:
            case t.Prim(word):
                return word
            case t.List(element):
                return f"(list {self.ref(element)})"
            case t.Tuple(items):
                return f"(tuple {' '.join(map(self.ref, items))})"
            case t.Option(payload):
                return f"(option {self.ref(payload)})"
            case t.Result(ok, err):
                first = "" if ok is None else self.ref(ok)
                return f"(result {first}{'' if err is None else f' (error {self.ref(err)})'})"
            case _:
                return self.named(type_)

    def named(self, type_: t.ValType) -> str:
        if type_ not in self.known:
            match type_:
                case t.Record(_, parts):
                    body = " ".join(f'(field "{n}" {self.ref(x)})' for n, x in parts)
                    body = f"(record {body})"
                case t.Variant(_, cases):
                    body = " ".join(
                        f'(case "{n}"{"" if x is None else " " + self.ref(x)})' for n, x in cases
                    )
                    body = f"(variant {body})"
                case t.Enum(_, words):
                    body = "(enum {})".format(" ".join(f'"{w}"' for w in words))
                case t.Flags(_, words):
                    body = "(flags {})".format(" ".join(f'"{w}"' for w in words))
                case _:
                    raise AssertionError(type_)
            n = next(self.numbers)
            self.head.append(f'(type $t{n} {body}) (import "t{n}" (type $n{n} (eq $t{n})))')
            self.known[type_] = f"$n{n}"
        return self.known[type_]


def echo_wat(type_: t.ValType) -> str:
    """The component's text."""
    wat = _Wat()
    ref = wat.ref(type_)
    parts = flat(type_)
    params = parts if len(parts) <= 16 else ["i32"]
    by_pointer = len(parts) > 1
    f_params = [*params, "i32"] if by_pointer else params
    f_result = "" if by_pointer else f"(result {parts[0]})"
    g_result = "i32" if by_pointer else parts[0]
    gets = " ".join(f"(local.get {i})" for i in range(len(params)))
    body = f"(call $f {gets} (i32.const 64)) (i32.const 64)" if by_pointer else f"(call $f {gets})"
    canon = '(memory (core memory $me "mem")) (realloc (core func $me "realloc"))'
    return f"""(component
      {" ".join(wat.head)}
      (import "f" (func $f (param "x" {ref}) (result {ref})))
      (core module $mem
        (memory (export "mem") 64)
        (global $top (mut i32) (i32.const 65536))
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (local i32)
          (local.set 4 (i32.and (i32.add (global.get $top) (i32.const 15)) (i32.const -16)))
          (global.set $top (i32.add (local.get 4) (local.get 3)))
          (if (i32.gt_u (global.get $top) (i32.const 4000000))
            (then (global.set $top (i32.const 65536))))
          (local.get 4)))
      (core instance $me (instantiate $mem))
      (core func $lf (canon lower (func $f) {canon}))
      (core module $m
        (import "" "f" (func $f (param {" ".join(f_params)}) {f_result}))
        (func (export "g") (param {" ".join(params)}) (result {g_result}) {body}))
      (core instance $i (instantiate $m (with "" (instance (export "f" (func $lf))))))
      (func (export "g") (param "x" {ref}) (result {ref})
        (canon lift (core func $i "g") {canon})))"""


class Echo:
    """One instance of the echo component for a type.  `host` may be replaced at any time."""

    def __init__(
        self, type_: t.ValType, *, fast: bool = True, value_bytes: int = 1 << 24, wat: str = ""
    ) -> None:
        self.component = wc.Component(ENGINE, wat or echo_wat(type_))
        self.types = walk(self.component, ENGINE)
        self.plans = Plans(self.types, fast=fast)
        self.boundary = Boundary(HandleTable(100), {}, value_bytes)
        self.seen: list[object] = []
        self.failures: list[BaseException] = []
        self.host = lambda x: x
        self.linker = wc.Linker(ENGINE)
        with self.linker.root() as root:
            # The engine keeps these: they must not keep the linker, or neither would ever go.
            me, boundary = weakref.ref(self), self.boundary
            define_func(
                root,
                self.plans.host("", "f"),
                lambda args: me()._invoke(args),
                lambda exc: me()._fail(exc),
                lambda: boundary,
            )
        self.open()

    def open(self) -> None:
        """A fresh store: after a trap the old one is dead."""
        self.store = wasmtime.Store(ENGINE)
        instance = self.linker.instantiate(self.store, self.component)
        self.func = instance.get_func(self.store, "g")
        self.bound = self.plans.export("", "g").bind(self.store, self.func, self.boundary)

    def _invoke(self, args: tuple[object, ...]) -> object:
        (x,) = args
        self.seen.append(x)
        return self.host(x)

    def _fail(self, exc: BaseException) -> str:
        self.failures.append(exc)
        return "told on the record"

    def __call__(self, x: object) -> object:
        return self.bound((x,))


def plain(value: object) -> object:
    """A value without the classes made for it: comparable, also with NaN."""
    match value:
        case float():
            return "nan" if math.isnan(value) else (value, math.copysign(1, value))
        case PyEnum():
            return str(value.value)
        case list():
            return [plain(x) for x in value]
        case tuple():
            return tuple(plain(x) for x in value)
        case frozenset() | set():
            return frozenset(map(plain, value))
        case dict():
            return {k: plain(x) for k, x in value.items()}
        case Some(inner):
            return Some(plain(inner))
        case Ok(inner):
            return Ok(plain(inner))
        case Err(inner):
            return Err(plain(inner))
        case Variant(case, inner):
            return Variant(case, plain(inner))
        case _ if is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
        case _:
            return value
