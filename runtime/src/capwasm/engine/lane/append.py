"""A laned plugin: its own bytes, and sections of ours at their end.

Nothing of the plugin is changed or numbered anew: what it imports and exports, it imports and exports,
and its code is its code.  What follows adds a core instance of our own beside the plugin's, and the
interfaces `capwasm:lane/exports` and `capwasm:lane/imports`, whose functions take and give strings.

The sections are written as text, in which what the plugin has is meant by its number, and what is new by
the next numbers.  The engine validates the whole as it would the plugin: a wrong number is a component
that does not compile, and then the plugin is compiled as it came.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

import wasmtime

from capwasm.engine import types as t

from .binary import COMPONENT
from .choose import Chosen, Function
from .glue import glue_module, handle_params, memory_module
from .layout import BASE, owned
from .sites import Site, Slot, sites_of, slots_of
from .spaces import (
    CORE_FUNC,
    CORE_INSTANCE,
    CORE_MEMORY,
    CORE_MODULE,
    CORE_TABLE,
    FUNC,
    INSTANCE,
    TYPE,
    Imported,
    Spaces,
    read_spaces,
)
from .wire import LANE_EXPORTS, LANE_IMPORTS, NotLaned, function_name, is_lane

__all__ = ["compose"]

# Types of all functions together, as they spell out: the code for them is in proportion.  A guest
# that imports every capability of ours, twice, has 2,000.
_MAX_PARTS = 20_000
# What stands in the text of the component's own words.
_NAME = re.compile(r"[a-z][a-zA-Z0-9-]{0,255}", re.ASCII)


def compose(code: bytes | memoryview, types: t.ComponentTypes, chosen: Chosen, pages: int) -> bytes:
    """The laned plugin.

    Args:
        code: the plugin's component.
        types: what `walk` read of it.
        chosen: the functions that may take the lane.
        pages: how large the lane's memory may become, in pages of 64 KiB.

    Raises:
        NotLaned: none of them can take it.
        OddBinary: the bytes are not framed as expected.
    """
    if any(is_lane(i.name) for i in (*types.imports, *types.exports)):
        raise NotLaned("the plugin uses the lane's own names")
    spaces = read_spaces(code)
    appended = _Appended(spaces)
    known = chosen.only(
        {f.number for f in chosen.exports}, {f.number for f in chosen.imports if appended.knows(f)}
    )
    sites: list[Site] = []
    slots: list[Slot] = []
    found: Iterator[Site | Slot] = itertools.chain(sites_of(spaces, known), slots_of(spaces, known))
    left = _MAX_PARTS
    for one in found:
        # As they are found: one function can have a hundred thousand slots.
        left -= _parts(one.function.type)
        if left < 0:
            raise NotLaned("its functions have too many types")
        if isinstance(one, Site):
            sites.append(one)
        else:
            slots.append(one)
    if not sites and not slots:
        raise NotLaned("its functions are not lifted and lowered as toolchains do it")
    text = appended.text(sites, slots, pages)
    try:
        sections = bytes(wasmtime.wat2wasm(text))[len(COMPONENT) :]
    except wasmtime.WasmtimeError as exc:
        raise NotLaned(f"its lane can't be written: {exc}") from None
    return b"".join((code, sections))


class _Appended:
    """The sections to append, while they are written."""

    def __init__(self, spaces: Spaces) -> None:
        """Begin behind what is in these spaces."""
        self._lines: list[str] = []
        core = (CORE_FUNC, CORE_INSTANCE, CORE_MEMORY, CORE_MODULE, CORE_TABLE)
        self._core = {sort: len(spaces.of_core(sort)) for sort in core}
        self._own = {sort: len(spaces.of(sort)) for sort in (FUNC, INSTANCE, TYPE)}
        self._imported = {
            x.name: i for i, x in enumerate(spaces.of(INSTANCE)) if isinstance(x, Imported)
        }

    def _new(self, space: dict[int, int], sort: int, *lines: str) -> int:
        """One more of that sort: its number."""
        self._lines += lines
        space[sort] += 1
        return space[sort] - 1

    def knows(self, function: Function) -> bool:
        """Whether the resources of its handles are those of interfaces that the plugin imports."""
        return all(
            r.interface in self._imported and _NAME.fullmatch(r.name) for r in _resources(function)
        )

    def text(self, sites: list[Site], slots: list[Slot], pages: int) -> str:
        """All of it."""
        self._new(self._core, CORE_MODULE, memory_module(BASE, pages))
        memory_module_at = self._core[CORE_MODULE] - 1
        memory = self._new(
            self._core, CORE_INSTANCE, f"(core instance (instantiate {memory_module_at}))"
        )
        ours = self._alias(memory, "memory", "memory", CORE_MEMORY)
        realloc = self._alias(memory, "realloc", "func", CORE_FUNC)
        canon = f"(memory {ours}) (realloc {realloc})"
        hosts = self._hosts(slots, canon) if slots else None
        plugins = self._plugins(sites, slots)
        glue_at = self._new(self._core, CORE_MODULE, glue_module(sites, slots))
        given = f'(with "m" (instance {memory})) (with "p" (instance {plugins}))'
        if hosts is not None:
            given += f' (with "h" (instance {hosts}))'
        glue = self._new(
            self._core, CORE_INSTANCE, f"(core instance (instantiate {glue_at} {given}))"
        )
        if sites:
            self._exports(sites, glue, canon)
        return "\n".join(("(component", *self._lines, ")", ""))

    def _alias(self, instance: int, name: str, kind: str, sort: int) -> int:
        line = f'(alias core export {instance} "{name}" (core {kind}))'
        return self._new(self._core, sort, line)

    def _hosts(self, slots: list[Slot], canon: str) -> int:
        """The core instance with the host's functions, which take strings and handles."""
        functions = {slot.function.number: slot.function for slot in slots}
        resources = {r for f in functions.values() for r in _resources(f)}
        types = {
            r: self._new(
                self._own,
                TYPE,
                f'(alias export {self._imported[r.interface]} "{r.name}" (type))',
            )
            for r in sorted(resources, key=str)
        }
        type_ = self._new(
            self._own, TYPE, "(type (instance", *_lane_import(functions.values(), types), "))"
        )
        lane = self._new(
            self._own, INSTANCE, f'(import "{LANE_IMPORTS}" (instance (type {type_})))'
        )
        items = []
        for k in functions:
            function = self._new(
                self._own, FUNC, f'(alias export {lane} "{function_name(k)}" (func))'
            )
            lowered = self._new(
                self._core, CORE_FUNC, f"(core func (canon lower (func {function}) {canon}))"
            )
            items.append(f'(export "f{k}" (func {lowered}))')
        return self._new(self._core, CORE_INSTANCE, f"(core instance {' '.join(items)})")

    def _plugins(self, sites: list[Site], slots: list[Slot]) -> int:
        """The core instance with what the glue needs of the plugin."""
        items: dict[str, str] = {}
        for site in sites:
            items[f"f{site.function.number}"] = f"func {site.core}"
            if site.post_return is not None:
                items[f"post{site.function.number}"] = f"func {site.post_return}"
        for slot in slots:
            items[f"t{slot.table}"] = f"table {slot.table}"
        found: list[Site | Slot] = [*sites, *slots]
        for one in found:
            items[f"m{one.memory}"] = f"memory {one.memory}"
            if one.realloc is not None:
                items[f"r{one.realloc}"] = f"func {one.realloc}"
        exports = " ".join(f'(export "{name}" ({item}))' for name, item in items.items())
        return self._new(self._core, CORE_INSTANCE, f"(core instance {exports})")

    def _exports(self, sites: list[Site], glue: int, canon: str) -> None:
        """The functions that the host calls."""
        type_ = self._new(self._own, TYPE, '(type (func (param "args" string) (result string)))')
        items = []
        for site in sites:
            k = site.function.number
            core = self._alias(glue, f"f{k}", "func", CORE_FUNC)
            function = self._new(
                self._own, FUNC, f"(func (type {type_}) (canon lift (core func {core}) {canon}))"
            )
            items.append(f'(export "{function_name(k)}" (func {function}))')
        instance = self._new(self._own, INSTANCE, f"(instance {' '.join(items)})")
        self._lines.append(f'(export "{LANE_EXPORTS}" (instance {instance}))')


def _parts(type_: t.FuncType) -> int:
    """How many types the function's spell out to."""

    def count(x: t.ValType) -> int:
        return 1 + sum(map(count, t.children(x)))

    whole = [x for _, x in type_.params]
    return 1 + sum(map(count, whole if type_.result is None else [*whole, type_.result]))


def _resources(function: Function) -> Iterator[t.ResourceId]:
    """The resources of the handles that cross beside the string."""
    yield from (handle.resource for _, handle in handle_params(function.type))
    yield from (resource for _, resource in owned(function.type.result))


def _lane_import(functions: Iterable[Function], types: dict[t.ResourceId, int]) -> Iterator[str]:
    """The type of the interface that the host serves: of each function."""
    names = {r: f"$r{i}" for i, r in enumerate(types)}
    for resource, name in names.items():
        yield f"  (alias outer 1 {types[resource]} (type {name}))"
    for f in functions:
        params = ""
        for i, handle in handle_params(f.type):
            kind = "own" if isinstance(handle, t.Own) else "borrow"
            params += f' (param "h{i}" ({kind} {names[handle.resource]}))'
        params += ' (param "args" string)'
        places = "".join(f" (option (own {names[r]}))" for _, r in owned(f.type.result))
        result = f"(tuple string{places})" if places else "string"
        yield f'  (export "{function_name(f.number)}" (func{params} (result {result})))'
