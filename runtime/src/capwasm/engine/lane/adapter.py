"""The core modules of the two adapters, as text: what turns a string into arguments, and back.

The wire is described in `docs/adr/0014-the-lane.md`.  Addresses here are those of `layout.py`.  Both
adapters have a memory of their own, which is empty again when a call returns: whoever called reads
the result at once, from above the top.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from capwasm.engine import types as t

from .choose import Function
from .codec import GROUP, PACKED, functions, most_bytes
from .layout import (
    BASE,
    MEMORY,
    RBASE,
    SLOT,
    flat,
    owned,
    params_by_pointer,
    result_by_pointer,
)
from .typetext import OddTypes

__all__ = [
    "ADAPTERS",
    "ADAPTER_INSTANCES",
    "ADAPTER_MEMORIES",
    "MEMORY_LIMIT",
    "MODULE",
    "VALUE_LIMIT",
    "export_glue",
    "handle_params",
    "import_glue",
    "memory_module",
    "pages_for",
]

# Names that traps in here show in a backtrace: of every module, and of what an allocation that is
# refused calls.
MODULE = "capwasm-lane"
VALUE_LIMIT, MEMORY_LIMIT = "lane-value-limit", "lane-memory-limit"

# What an adapter adds to an instance: a memory; and a core instance for that, for the calls, and for
# the engine's own code between two components.  There are two at most, and neither has a table.
ADAPTERS, ADAPTER_MEMORIES, ADAPTER_INSTANCES = 2, 1, 3

PAGE = 65536
# The codec reads and writes so many bytes, at most, past the end of what it is given.
_SLACK = 64
# Where a call of the host's leaves a string and handles: below BASE, from here on.
_RETURNED = 8
# Flat values that a function can take; the string of the arguments is two of them.
_MAX_HANDLES = 14


def pages_for(value_bytes: int) -> int:
    """How large the memory of an adapter may become, for values of at most so many bytes.

    It holds the arguments or the result, as a block and then in its place as a string.  The sizes are
    few, since each is a composition of its own.
    """
    block = most_bytes(1 << (value_bytes - 1).bit_length())
    return -(-(block // GROUP * PACKED + RBASE) // PAGE) + 1


def memory_module(base: int, pages: int) -> str:
    """The module with the memory, its allocator, and the codec.

    Args:
        base: where an empty memory's top is.
        pages: how large the memory may become.
    """
    return f"""
(core module ${MODULE}
  (memory $memory (export "memory") 1 {pages})
  (global $top (export "top") (mut i32) (i32.const {base}))
  (func ${VALUE_LIMIT} unreachable)
  (func ${MEMORY_LIMIT} unreachable)
  ;; There is room up to $end, or this traps.
  (func $room (export "room") (param $end i32)
    (local $more i32)
    (if (i32.gt_u (local.get $end) (i32.const {pages * PAGE - _SLACK}))
      (then (call ${VALUE_LIMIT})))
    (local.set $more (i32.sub
      (i32.shr_u (i32.add (local.get $end) (i32.const {_SLACK + PAGE - 1})) (i32.const 16))
      (memory.size)))
    (if (i32.gt_s (local.get $more) (i32.const 0))
      (then (if (i32.eq (memory.grow (local.get $more)) (i32.const -1))
        (then (call ${MEMORY_LIMIT}))))))
  (func (export "realloc")
    (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (if (i32.gt_u (local.get $size) (i32.const {pages * PAGE}))
      (then (call ${VALUE_LIMIT})))
    (local.set $at (i32.and
      (i32.add (global.get $top) (i32.sub (local.get $align) (i32.const 1)))
      (i32.sub (i32.const 0) (local.get $align))))
    (call $room (i32.add (local.get $at) (local.get $size)))
    (global.set $top (i32.add (local.get $at) (local.get $size)))
    (if (local.get $old_size) (then (memory.copy (local.get $at) (local.get $old)
      (select (local.get $old_size) (local.get $size)
        (i32.lt_u (local.get $old_size) (local.get $size))))))
    (local.get $at))
{functions()}
  (export "enc" (func $enc)) (export "dec" (func $dec)))"""


_USES = """
  (import "m" "memory" (memory 1))
  (import "m" "top" (global $top (mut i32)))
  (import "m" "room" (func $room (param i32)))
  (import "m" "enc" (func $enc (param i32 i32 i32) (result i32)))
  (import "m" "dec" (func $dec (param i32 i32 i32) (result i32)))
  ;; The block from $at to the top becomes a string, in its place: where, and how long.
  (func $encode (param $at i32) (result i32 i32)
    (local $size i32)
    (local.set $size (i32.and (i32.const -16)
      (i32.add (i32.sub (global.get $top) (local.get $at)) (i32.const 15))))
    (call $room (i32.add (local.get $at)
      (i32.mul (i32.shr_u (local.get $size) (i32.const 4)) (i32.const 19))))
    (local.get $at)
    (i32.sub (call $enc (local.get $at) (local.get $size) (local.get $at)) (local.get $at)))
  ;; The string at $p becomes a block, at $to.
  (func $decode (param $p i32) (param $n i32) (param $to i32)
    (drop (call $dec (local.get $p)
      (i32.mul (i32.div_u (local.get $n) (i32.const 19)) (i32.const 16)) (local.get $to))))"""


def export_glue(laned: Sequence[Function]) -> Iterator[str]:
    """The module that calls the plugin: imports its functions as `p` `f0`…, exports `f0`…."""
    yield f"(core module ${MODULE}-exports"
    for k, f in enumerate(laned):
        yield f'  (import "p" "f{k}" (func $p{k} {_signature(*_lowered(f.type))}))'
    yield _USES
    for k, f in enumerate(laned):
        yield f"  ;; {f.interface}#{f.name}"
        yield from _export(k, f.type)
    yield ")"


def _export(k: int, type_: t.FuncType) -> Iterator[str]:
    params, results = _lowered(type_)
    indirect = result_by_pointer(type_)
    if params_by_pointer(type_):
        values = f"(i32.const {BASE})"
    else:
        slots = params[:-1] if indirect else params
        values = " ".join(
            f"({core}.load offset={BASE + SLOT * i} (i32.const 0))" for i, core in enumerate(slots)
        )
    # The result takes the place of the arguments, which are read before there is one.
    size = SLOT * len(results)
    if indirect and type_.result is not None:
        size = MEMORY.size(type_.result)
    yield f'  (func $f{k} (export "f{k}") (param $p i32) (param $n i32) (result i32)'
    yield "    (local $out i32) (local $size i32)"
    yield f"    (call $decode (local.get $p) (local.get $n) (i32.const {BASE}))"
    yield f"    (global.set $top (i32.const {BASE + size}))"
    yield "    (call $room (global.get $top))"
    if indirect:
        yield f"    (call $p{k} {values} (i32.const {BASE}))"
    elif results:
        yield f"    {_store(results[0], BASE, f'(call $p{k} {values})')}"
    else:
        yield f"    (call $p{k} {values})"
    yield f"    (call $encode (i32.const {BASE})) (local.set $size) (local.set $out)"
    yield f"    (global.set $top (i32.const {BASE}))"
    yield f"    (i32.store (i32.const {_RETURNED}) (local.get $out))"
    yield f"    (i32.store (i32.const {_RETURNED + 4}) (local.get $size))"
    yield f"    (i32.const {_RETURNED}))"


def import_glue(laned: Sequence[Function]) -> Iterator[str]:
    """The module that calls the host: imports `h` `f0`… and `drop` `d0-0`…, exports `f0`….

    Raises:
        OddTypes: a function with too many handles.
    """
    yield f"(core module ${MODULE}-imports"
    for k, f in enumerate(laned):
        handles = handle_params(f.type)
        if len(handles) > _MAX_HANDLES or (handles and params_by_pointer(f.type)):
            raise OddTypes("too many handles")
        yield f'  (import "h" "f{k}" (func $h{k} (param{" i32" * (len(handles) + 3)})))'
        for i, handle in handles:
            if isinstance(handle, t.Borrow):
                yield f'  (import "drop" "d{k}-{i}" (func $d{k}-{i} (param i32)))'
    yield _USES
    for k, f in enumerate(laned):
        yield f"  ;; {f.interface}#{f.name}"
        yield from _import(k, f.type)
    yield ")"


def _import(k: int, type_: t.FuncType) -> Iterator[str]:
    if params_by_pointer(type_):
        params: tuple[str, ...] = ("i32",)
    else:
        params = tuple(core for _, x in type_.params for core in flat(x))
    result = flat(type_.result)
    indirect = result_by_pointer(type_)
    results = ("i32",) if indirect else result
    start = RBASE - SLOT * len(params)
    places, handles = _flat_places(type_), handle_params(type_)
    yield f'  (func $f{k} (export "f{k}") {_signature(params, results)}'
    yield "    (local $out i32) (local $size i32)"
    for i, core in enumerate(params):
        yield f"    {_store(core, start + SLOT * i, f'(local.get {i})')}"
    yield f"    (call $encode (i32.const {start})) (local.set $size) (local.set $out)"
    yield f"    (global.set $top (i32.const {RBASE}))"
    passed = " ".join(f"(local.get {places[i]})" for i, _ in handles)
    yield (f"    (call $h{k} {passed} (local.get $out) (local.get $size) (i32.const {_RETURNED}))")
    yield (
        f"    (call $decode (i32.load (i32.const {_RETURNED})) "
        f"(i32.load (i32.const {_RETURNED + 4})) (i32.const {RBASE}))"
    )
    for j, (offset, _) in enumerate(owned(type_.result)):
        at = _RETURNED + 8 + 8 * j
        yield (
            f"    (if (i32.load8_u (i32.const {at})) (then (i32.store "
            f"(i32.const {RBASE + offset}) (i32.load (i32.const {at + 4})))))"
        )
    for i, handle in handles:
        if isinstance(handle, t.Borrow):
            yield f"    (call $d{k}-{i} (local.get {places[i]}))"
    yield f"    (global.set $top (i32.const {RBASE}))"
    if indirect:
        yield f"    (i32.const {RBASE})"
    elif results:
        yield f"    ({results[0]}.load (i32.const {RBASE}))"
    yield "  )"


def handle_params(type_: t.FuncType) -> tuple[tuple[int, t.Own | t.Borrow], ...]:
    """The parameters that are handles, with their places among the parameters."""
    return tuple((i, x) for i, (_, x) in enumerate(type_.params) if isinstance(x, t.Own | t.Borrow))


def _flat_places(type_: t.FuncType) -> list[int]:
    """For each parameter, the place of its first flat value."""
    places, at = [], 0
    for _, x in type_.params:
        places.append(at)
        at += len(flat(x))
    return places


def _lowered(type_: t.FuncType) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The core type of the function when it is imported."""
    params = tuple(core for _, x in type_.params for core in flat(x))
    if params_by_pointer(type_):
        params = ("i32",)
    if result_by_pointer(type_):
        return (*params, "i32"), ()
    return params, flat(type_.result)


def _signature(params: Sequence[str], results: Sequence[str]) -> str:
    return f"(param {' '.join(params)}) (result {' '.join(results)})"


def _store(core: str, at: int, value: str) -> str:
    """Store a flat value in the slot at that address, zero-extended."""
    if core == "f32":
        value = f"(i32.reinterpret_f32 {value})"
    if core in ("i32", "f32"):
        return f"(i64.store (i32.const {at}) (i64.extend_i32_u {value}))"
    return f"({core}.store (i32.const {at}) {value})"
