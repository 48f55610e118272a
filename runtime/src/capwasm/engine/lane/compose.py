"""A plugin between two adapters: one component that the host talks to in strings.

    outer component (the export adapter)     imports what the plugin imports, and capwasm:lane/imports
    ├── the import adapter, nested           for the imported functions that take the lane
    └── the plugin, its bytes unchanged      given the adapter's functions in place of those
                                             exports what the plugin exports, and capwasm:lane/exports

The adapters are two components since a component can't be entered again while it waits for a call
to return: host → export adapter → plugin → import adapter → host.
"""

from __future__ import annotations

from collections.abc import Iterator

import wasmtime

from capwasm.engine import types as t

from .adapter import MODULE, export_glue, handle_params, import_glue, memory_module
from .binary import splice
from .choose import Chosen, Function
from .layout import BASE, RBASE, owned
from .typetext import OddTypes, Scope, Spelling, name_in_text

__all__ = [
    "LANE_EXPORTS",
    "LANE_IMPORTS",
    "VERSION",
    "compose",
    "composition",
    "function_name",
    "is_lane",
    "without_lane",
]

# Raised whenever the text below, the wire or the choice of functions changes: it is part of the
# key of the compile cache.
VERSION = 1

_PACKAGE = "capwasm:lane/"
LANE_EXPORTS, LANE_IMPORTS = f"{_PACKAGE}exports@0.1.0", f"{_PACKAGE}imports@0.1.0"

# What is larger is no plugin's own interface; the text of each goes through a parser.
_MAX_FUNCTIONS, _MAX_TEXT = 1_000, 2_000_000
_CANON = '(memory (core memory {0} "memory")) (realloc (core func {0} "realloc"))'


def is_lane(interface: str) -> bool:
    """Whether that is a name of ours, which no plugin may use."""
    return interface.startswith(_PACKAGE)


def function_name(k: int) -> str:
    """What the function of that number is called in the lane's interfaces."""
    return f"f{k}"


def without_lane(types: t.ComponentTypes) -> t.ComponentTypes:
    """The types of the plugin in a composition."""
    return t.ComponentTypes(
        tuple(i for i in types.imports if not is_lane(i.name)),
        tuple(i for i in types.exports if not is_lane(i.name)),
    )


def compose(code: bytes | memoryview, types: t.ComponentTypes, chosen: Chosen, pages: int) -> bytes:
    """The composition with that plugin.

    Args:
        code: the plugin's component.
        types: what `walk` read of it.
        chosen: the functions that take the lane; at least one.
        pages: how large the memory of each adapter may become, in pages of 64 KiB.

    Raises:
        OddTypes: it can't be composed, or its types can't be spelled; the plugin is run as it is.
    """
    text = composition(types, chosen, pages)
    try:
        outer = wasmtime.wat2wasm(text)
    except wasmtime.WasmtimeError as exc:
        raise OddTypes(f"the composition can't be written: {exc}") from None
    return splice(bytes(outer), code)


def composition(types: t.ComponentTypes, chosen: Chosen, pages: int) -> str:
    """The text of the composition, with an empty component in place of the plugin.

    Raises:
        OddTypes: as `compose`.
    """
    if any(is_lane(i.name) for i in (*types.imports, *types.exports)):
        raise OddTypes("the plugin uses the lane's own names")
    if any(not i.name for i in types.imports):
        raise OddTypes("the plugin imports outside of an interface")
    if len(chosen.exports) + len(chosen.imports) > _MAX_FUNCTIONS:
        raise OddTypes("too many functions")
    laned = {f.interface for f in chosen.imports}
    outer = Scope("$outer")
    outer.add(";; What the plugin imports.")
    for k, interface in enumerate(types.imports):
        outer.import_interface(interface, f"$i{k}")
    if chosen.imports:
        outer.add(";; The functions of the host that the import adapter calls.")
        outer.add(*_lane_import(chosen.imports, outer, "$outer"))
        outer.add(*_importer(types, chosen.imports, pages))
        outer.add(";; The host's interfaces with the adapter's functions in them.")
        for k, interface in enumerate(types.imports):
            if interface.name in laned:
                _join(outer, k, interface, chosen.imports)
    # Without a name, or it would not be empty; it is the last of the nested components.
    outer.add(";; The plugin itself.", "(component)")
    outer.add(f"(instance $plugin (instantiate {bool(laned) + len(laned)}")
    for k, interface in enumerate(types.imports):
        given = f"$j{k}" if interface.name in laned else f"$i{k}"
        outer.add(f"  (with {name_in_text(interface.name)} (instance {given}))")
    outer.add("))")
    # What stands outside of any interface may use the types of one: it comes last.
    for k, interface in sorted(enumerate(types.exports), key=lambda x: not x[1].name):
        if interface.name:
            name = name_in_text(interface.name)
            outer.add(f"(alias export $plugin {name} (instance $p{k}))")
            outer.add(f"(export $e{k} {name} (instance $p{k}))")
            outer.know(interface, f"$e{k}")
        else:
            _root_exports(outer, interface)
    if chosen.exports:
        outer.add(*_exporter(types, chosen.exports, pages))
    text = "\n".join((*outer.lines, ")", ""))
    if len(text) > _MAX_TEXT:
        raise OddTypes("too many types")
    return text


def _lane_import(functions: tuple[Function, ...], scope: Scope, component: str) -> Iterator[str]:
    yield f'(import "{LANE_IMPORTS}" (instance $lane'
    aliased: dict[t.ResourceId, str] = {}

    def of(resource: t.ResourceId) -> Iterator[str]:
        if resource not in aliased:
            aliased[resource] = f"$r{len(aliased)}"
            source = scope.resource(resource)
            yield f"  (alias outer {component} {source} (type {aliased[resource]}))"

    for k, f in enumerate(functions):
        params, places = "", ""
        for i, handle in handle_params(f.type):
            yield from of(handle.resource)
            kind = "own" if isinstance(handle, t.Own) else "borrow"
            params += f' (param "h{i}" ({kind} {aliased[handle.resource]}))'
        for _, resource in owned(f.type.result):
            yield from of(resource)
            places += f" (option (own {aliased[resource]}))"
        params += ' (param "args" string)'
        result = f"(tuple string{places})" if places else "string"
        yield f'  (export "{function_name(k)}" (func{params} (result {result})))'
    yield "))"


def _importer(
    types: t.ComponentTypes, functions: tuple[Function, ...], pages: int
) -> Iterator[str]:
    """The import adapter: a component with the plugin's view of the functions on its outside."""
    scope = Scope("$importer")
    for k, interface in enumerate(types.imports):
        scope.import_interface(interface, f"$i{k}", functions=False)
    scope.add(*_lane_import(functions, scope, "$importer"))
    scope.add(memory_module(RBASE, pages))
    scope.add(f"(core instance $memory (instantiate ${MODULE}))")
    canon = _CANON.format("$memory")
    drops = []
    for k, f in enumerate(functions):
        scope.add(f'(core func $h{k} (canon lower (func $lane "{function_name(k)}") {canon}))')
        for i, handle in handle_params(f.type):
            if isinstance(handle, t.Borrow):
                drops.append(f'(export "d{k}-{i}" (func $d{k}-{i}))')
                source = scope.resource(handle.resource)
                scope.add(f"(core func $d{k}-{i} (canon resource.drop {source}))")
    scope.add(*import_glue(functions))
    scope.add(
        f"(core instance $glue (instantiate ${MODULE}-imports",
        '  (with "m" (instance $memory))',
        f'  (with "h" (instance {_all_core("f", "$h", len(functions))}))',
        f'  (with "drop" (instance {" ".join(drops)}))))',
    )
    spell = scope.spelling()
    for k, f in enumerate(functions):
        type_ = spell.function(f.type)
        scope.add(f"(type $f{k} {type_})")
        scope.add(f'(func $f{k} (type $f{k}) (canon lift (core func $glue "f{k}") {canon}))')
        scope.add(f'(export "{function_name(k)}" (func $f{k}))')
    yield ";; The import adapter."
    yield from scope.lines
    yield ")"
    yield "(instance $importer (instantiate $importer"
    for k, interface in enumerate(types.imports):
        yield f"  (with {name_in_text(interface.name)} (instance $i{k}))"
    yield f'  (with "{LANE_IMPORTS}" (instance $lane))))'


def _join(
    outer: Scope, k: int, interface: t.InterfaceType, functions: tuple[Function, ...]
) -> None:
    """`$j<k>`, the instance that the plugin gets for an interface with functions of the lane.

    An instance that is put together from exports can have no methods: those need a resource that
    was exported beside them.  So it is an instance of a component without any code.
    """
    numbers = {f.name: n for n, f in enumerate(functions) if f.interface == interface.name}
    known: dict[t.ResourceId, str] = {}
    lines, given = [], []
    for j, (_, resource) in enumerate(interface.resources):
        bound = f"(eq {known[resource]})" if resource in known else "(sub resource)"
        known.setdefault(resource, f"$r{j}")
        lines.append(f'  (import "r{j}" (type $r{j} {bound}))')
        given.append(f'  (with "r{j}" (type {outer.resource(resource)}))')
    types: list[str] = []

    def unnamed(type_: t.ValType, text: str) -> str:
        x = f"t{len(types)}"
        types.append(f"${x}")
        lines.append(f"  (type $s{x} {text})")
        lines.append(f'  (import "{x}" (type ${x} (eq $s{x})))')
        given.append(f'  (with "{x}" (type {outer.type_(type_)}))')
        return f"${x}"

    spell = Spelling(lambda r: known[r], unnamed)
    named = []
    for _, type_ in interface.types:
        text = spell(type_)
        if not text.startswith("$"):
            text = unnamed(type_, text)
        named.append(text)
    for j, (name, func) in enumerate(interface.functions):
        text = spell.function(func).removeprefix("(func")
        lines.append(f'  (import "f{j}" (func $f{j}{text})')
        n = numbers.get(name)
        source = f"$i{k} {name_in_text(name)}" if n is None else f'$importer "f{n}"'
        given.append(f'  (with "f{j}" (func {source}))')
    inner = Scope(f"$J{k}")
    inner.add(*lines)
    sources = [f"$r{j}" for j in range(len(interface.resources))] + named
    _exports(inner, interface, sources, spell)
    outer.add(*inner.lines, ")", f"(instance $j{k} (instantiate $J{k}", *given, "))")


def _exports(
    scope: Scope, interface: t.InterfaceType, sources: list[str], fallback: Spelling
) -> None:
    """Export what an interface has: the types that `sources` name, then the functions `$f<j>`.

    Functions are exported as of the exported types, which alone are named where they go.
    """
    known: dict[t.ResourceId, str] = {}
    for j, (name, resource) in enumerate(interface.resources):
        scope.add(f"  (export $xr{j} {name_in_text(name)} (type {sources[j]}))")
        known.setdefault(resource, f"$xr{j}")
    spell = Spelling(
        lambda r: known.get(r) or scope.resource(r), lambda type_, _text: fallback(type_)
    )
    for j, (name, type_) in enumerate(interface.types):
        source = sources[len(interface.resources) + j]
        scope.add(f"  (export $xt{j} {name_in_text(name)} (type {source}))")
        spell.name(type_, f"$xt{j}")
    for j, (name, func) in enumerate(interface.functions):
        text = spell.function(func)
        scope.add(f"  (export {name_in_text(name)} (func $f{j}) {text})")


def _root_exports(outer: Scope, interface: t.InterfaceType) -> None:
    """What the plugin exports outside of any interface."""
    sources: list[str] = []
    for name, _ in (*interface.resources, *interface.types):
        sources.append(f"$root-t{len(sources)}")
        outer.add(f"(alias export $plugin {name_in_text(name)} (type {sources[-1]}))")
    for j, (name, _) in enumerate(interface.functions):
        outer.add(f"(alias export $plugin {name_in_text(name)} (func $f{j}))")
    _exports(outer, interface, sources, outer.spelling())


def _exporter(
    types: t.ComponentTypes, functions: tuple[Function, ...], pages: int
) -> Iterator[str]:
    """The export adapter, in the outer component itself."""
    places = {i.name: f"$p{k}" if i.name else "$plugin" for k, i in enumerate(types.exports)}
    yield ";; The export adapter."
    yield memory_module(BASE, pages)
    yield f"(core instance $memory (instantiate ${MODULE}))"
    canon = _CANON.format("$memory")
    for k, f in enumerate(functions):
        yield f"(alias export {places[f.interface]} {name_in_text(f.name)} (func $p{k}))"
        yield f"(core func $l{k} (canon lower (func $p{k}) {canon}))"
    yield from export_glue(functions)
    yield f"(core instance $glue (instantiate ${MODULE}-exports"
    yield '  (with "m" (instance $memory))'
    yield f'  (with "p" (instance {_all_core("f", "$l", len(functions))}))))'
    for k in range(len(functions)):
        lift = f'(canon lift (core func $glue "f{k}") {canon})'
        yield f'(func $x{k} (param "args" string) (result string) {lift})'
    exports = "".join(f' (export "{function_name(k)}" (func $x{k}))' for k in range(len(functions)))
    yield f"(instance $exports{exports})"
    yield f'(export "{LANE_EXPORTS}" (instance $exports))'


def _all_core(name: str, identifier: str, count: int) -> str:
    return " ".join(f'(export "{name}{k}" (func {identifier}{k}))' for k in range(count))
