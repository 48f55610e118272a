"""The echo component of `echo.py` with the lane, and the same without."""

from __future__ import annotations

import weakref

import wasmtime
from wasmtime import component as wc

from capwasm.engine import types as t
from capwasm.engine.crossing import Boundary
from capwasm.engine.lane.choose import LANE_IMPORTS, Chosen, Function
from capwasm.engine.lane.compose import compose, without_lane
from capwasm.engine.plan import Plans, define_func
from capwasm.engine.walk import walk
from capwasm.handles import HandleTable
from tests.engine.echo import ENGINE, Echo, _Wat, echo_wat

API = "test:host/api@0.1.0"


def laned_wat(type_: t.ValType) -> str:
    """The component's text: what it imports stands in an interface, as the lane has it."""
    wat = _Wat()
    ref = wat.ref(type_)
    head = " ".join(wat.head)
    instance = head.replace('(import "t', '(export "t')
    aliases = " ".join(f'(alias export $i "t{n}" (type $n{n}))' for n in range(len(wat.head)))
    text = echo_wat(type_)
    own = f'(import "f" (func $f (param "x" {ref}) (result {ref})))'
    assert head in text
    assert own in text
    func = f'(export "f" (func (param "x" {ref}) (result {ref})))'
    imported = f'(import "{API}" (instance $i {instance} {func}))'
    return text.replace(head, "", 1).replace(
        own, f'{imported} {aliases} (alias export $i "f" (func $f))', 1
    )


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
        assert (found != types) == lane
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
