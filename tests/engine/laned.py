"""The echo component of `echo.py` with the lane, and the same without."""

from __future__ import annotations

import weakref

import wasmtime
from wasmtime import component as wc

from capwasm.engine import types as t
from capwasm.engine.crossing import Boundary
from capwasm.engine.lane.append import compose
from capwasm.engine.lane.choose import Chosen, Function, present
from capwasm.engine.lane.wire import LANE_IMPORTS, without_lane
from capwasm.engine.plan import Plans, define_func
from capwasm.engine.walk import walk
from capwasm.handles import HandleTable
from tests.engine.echo import ENGINE, Echo, _Wat, flat

API = "test:host/api@0.1.0"


def laned_wat(type_: t.ValType) -> str:
    """The component's text, in the shape that toolchains give it.

    What it imports stands in an interface, and is called through a table, which a last module fills.
    """
    wat = _Wat()
    ref = wat.ref(type_)
    named = " ".join(wat.head).replace('(import "t', '(export "t')
    aliases = " ".join(f'(alias export $i "t{n}" (type $n{n}))' for n in range(len(wat.head)))
    parts = flat(type_)
    params = parts if len(parts) <= 16 else ["i32"]
    by_pointer = len(parts) > 1
    result = "i32" if by_pointer else parts[0]
    f_params = [*params, "i32"] if by_pointer else params
    signature = f"(param {' '.join(f_params)}) {'' if by_pointer else f'(result {result})'}"
    gets = " ".join(f"(local.get {i})" for i in range(len(params)))
    body = f"(call $f {gets} (i32.const 64)) (i32.const 64)" if by_pointer else f"(call $f {gets})"
    all_gets = " ".join(f"(local.get {i})" for i in range(len(f_params)))
    canon = '(memory (core memory $m "mem")) (realloc (core func $m "realloc"))'
    return f"""(component
      (import "{API}" (instance $i {named} (export "f" (func (param "x" {ref}) (result {ref})))))
      {aliases} (alias export $i "f" (func $f))
      (core module $main
        (import "api" "f" (func $f {signature}))
        (memory (export "mem") 64)
        (global $top (mut i32) (i32.const 65536))
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (local i32)
          (local.set 4 (i32.and (i32.add (global.get $top) (i32.const 15)) (i32.const -16)))
          (global.set $top (i32.add (local.get 4) (local.get 3)))
          (local.get 4))
        ;; What one call took is free for the next: were a result read after this, it would show.
        (func (export "post") (param {result})
          (memory.fill (i32.const 65536) (i32.const 0xee)
            (i32.sub (global.get $top) (i32.const 65536)))
          (global.set $top (i32.const 65536)))
        (func (export "g") (param {" ".join(params)}) (result {result}) {body}))
      (core module $shim
        (type $t (func {signature})) (table (export "$imports") 1 1 funcref)
        (func (export "0") (type $t) {all_gets} (call_indirect (type $t) (i32.const 0))))
      (core module $fixup
        (import "" "0" (func $f {signature})) (import "" "$imports" (table 1 1 funcref))
        (elem (i32.const 0) func $f))
      (core instance $s (instantiate $shim))
      (core instance $m (instantiate $main
        (with "api" (instance (export "f" (func $s "0"))))))
      (core func $lowered (canon lower (func $f) {canon}))
      (core instance (instantiate $fixup (with "" (instance
        (export "$imports" (table $s "$imports")) (export "0" (func $lowered))))))
      (func (export "g") (param "x" {ref}) (result {ref})
        (canon lift (core func $m "g") {canon} (post-return (core func $m "post")))))"""


class LanedEcho(Echo):
    """One instance of it, with the lane or without.  `host` may be replaced at any time."""

    def __init__(
        self,
        type_: t.ValType,
        *,
        lane: bool = True,
        value_bytes: int = 1 << 24,
        wat: str = "",
        pages: int = 1024,
    ) -> None:
        code = bytes(wasmtime.wat2wasm(wat or laned_wat(type_)))
        self.types = types = walk(wc.Component(ENGINE, code), ENGINE)
        api, root = types.imported(API), types.exported("")
        assert api is not None
        assert root is not None
        # Whether it pays or not.
        chosen = Chosen(
            tuple(Function("", n, f, k) for k, (n, f) in enumerate(root.functions)),
            tuple(Function(API, n, f, k) for k, (n, f) in enumerate(api.functions)),
        )
        self.plans = Plans(types, lane=chosen if lane else None)
        served = [(API, self.plans.host)]
        if lane:
            code = compose(code, types, chosen, pages)
            served.append((LANE_IMPORTS, self.plans.lane_host))
        self.component = wc.Component(ENGINE, code)
        found = walk(self.component, ENGINE)
        assert without_lane(found) == types
        assert present(found, chosen) == (chosen if lane else Chosen((), ()))
        self.boundary = Boundary(HandleTable(100), {}, value_bytes)
        self.seen: list[object] = []
        self.failures: list[BaseException] = []
        self.host = lambda x: x
        self.linker = wc.Linker(ENGINE)
        me, boundary = weakref.ref(self), self.boundary
        with self.linker.root() as top:
            for interface, plan in served:
                with top.add_instance(interface) as instance:
                    for f in chosen.imports:
                        define_func(
                            instance,
                            plan(API, f.name),
                            lambda args: me()._invoke(args),
                            lambda exc: me()._fail(exc),
                            lambda: boundary,
                        )
        self.open()

    def open(self) -> None:
        self.store = wasmtime.Store(ENGINE)
        instance = self.linker.instantiate(self.store, self.component)
        plan = self.plans.export("", "g")
        interface, name = plan.where
        parent = instance.get_export_index(self.store, interface) if interface else None
        index = instance.get_export_index(self.store, name, parent)
        self.func = instance.get_func(self.store, index)
        self.bound = plan.bind(self.store, self.func, self.boundary)
