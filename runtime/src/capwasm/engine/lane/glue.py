"""The code of ours in a laned plugin, as text: what turns a string into arguments, and back.

Two core modules.  The one has a memory, in which blocks stand and strings land; the other moves values
between it and the plugin's own memory, as the component model's canonical ABI has it: a value is
copied whole, then what it points to, and the pointer is set to the copy.  In the plugin's memory
room is taken by the plugin's own `realloc`, in ours from the top up.

The code runs inside of the plugin: it can do to the plugin's memory what the plugin can, which is
why every address and length that comes from there is only ever given to a `memory.copy` between two
memories that the engine bounds.  Whatever a plugin makes of it, what leaves is a string, and the
host reads that as the word of a stranger.  The memory is empty again when a call returns.

The wire is described in `docs/adr/0018-the-lane.md`.  Addresses here are those of `layout.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from capwasm.engine import types as t

from .codec import functions
from .layout import (
    BASE,
    MEMORY,
    RBASE,
    SLOT,
    SLOTS,
    Form,
    cases,
    flat,
    owned,
    params_by_pointer,
    result_by_pointer,
)
from .sites import Site, Slot, has_pointers
from .wire import MEMORY_LIMIT, MODULE, PAGE, VALUE_LIMIT

__all__ = ["glue_module", "handle_params", "memory_module"]

# The codec reads and writes so many bytes, at most, past the end of what it is given.
_SLACK = 64
# Where a call of the host's leaves a string and handles: below BASE, from here on.
_RETURNED = 8


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
  ;; A value's `count` parts of `size` bytes: how many bytes, or this traps.
  (func $bytes (param $count i32) (param $size i32) (result i32)
    (local $all i64)
    (local.set $all
      (i64.mul (i64.extend_i32_u (local.get $count)) (i64.extend_i32_u (local.get $size))))
    (if (i64.gt_u (local.get $all) (i64.const 0xffffffff)) (then (unreachable)))
    (i32.wrap_i64 (local.get $all)))
  ;; The block from $at to the top becomes a string, in its place: how long.
  (func $encode (param $at i32) (result i32)
    (local $size i32)
    (local.set $size (i32.and (i32.const -16)
      (i32.add (i32.sub (global.get $top) (local.get $at)) (i32.const 15))))
    (call $room (i32.add (local.get $at)
      (i32.mul (i32.shr_u (local.get $size) (i32.const 4)) (i32.const 19))))
    (i32.sub (call $enc (local.get $at) (local.get $size) (local.get $at)) (local.get $at)))
  ;; The string at $p becomes a block, at $to.
  (func $decode (param $p i32) (param $n i32) (param $to i32)
    (drop (call $dec (local.get $p)
      (i32.mul (i32.div_u (local.get $n) (i32.const 19)) (i32.const 16)) (local.get $to))))"""


@dataclass(frozen=True, slots=True)
class _Way:
    """From one memory to the other: their names in the text, and the number of the `realloc`."""

    source: str
    target: str
    realloc: int | None

    @property
    def name(self) -> str:
        """The function that copies this way."""
        return f"$copy{self.source}{self.target}-{'x' if self.realloc is None else self.realloc}"


class _Text:
    """The module that moves values, while it is written.  `""` is our memory, the first."""

    def __init__(self) -> None:
        self.imports: list[str] = []
        self.functions: list[str] = []
        self._known: dict[object, str] = {}

    def once(self, key: object, name: str, *lines: str, imported: bool = False) -> str:
        """The lines, the first time that the key is seen; the name that it has."""
        if key not in self._known:
            self._known[key] = name
            (self.imports if imported else self.functions).extend(lines)
        return self._known[key]

    def memory(self, number: int) -> str:
        """The plugin's memory of that number."""
        name = f"$m{number}"
        line = f'(import "p" "m{number}" (memory {name} 0))'
        return self.once(("m", number), name, line, imported=True)

    def realloc(self, number: int) -> str:
        """The plugin's `realloc` of that number."""
        name = f"$r{number}"
        line = f'(import "p" "r{number}" (func {name} (param i32 i32 i32 i32) (result i32)))'
        return self.once(("r", number), name, line, imported=True)

    def copy(self, way: _Way) -> str:
        """The function that copies what is pointed to, and gives where the copy is."""
        call = "$alloc" if way.realloc is None else self.realloc(way.realloc)
        return self.once(
            way,
            way.name,
            f"(func {way.name} (param $p i32) (param $count i32) (param $size i32)"
            " (param $align i32) (result i32)",
            "  (local $bytes i32) (local $to i32)",
            "  (local.set $bytes (call $bytes (local.get $count) (local.get $size)))",
            f"  (local.set $to (call {call} (i32.const 0) (i32.const 0) (local.get $align)"
            " (local.get $bytes)))",
            f"  (memory.copy {way.target or 0} {way.source or 0}"
            " (local.get $to) (local.get $p) (local.get $bytes))",
            "  (local.get $to))",
        )

    def each(self, element: t.ValType, way: _Way) -> str:
        """The function that moves what the elements of a list point to."""
        key = (element, way)
        if key not in self._known:
            name = self._known[key] = f"$each{len(self._known)}"
            moves = self.moves(element, MEMORY, way, way.target, "(local.get $at)", 0)
            self.functions += (
                f"(func {name} (param $at i32) (param $count i32)",
                "  (block $done (loop $next",
                "    (br_if $done (i32.eqz (local.get $count)))",
                *(f"    {line}" for line in moves),
                f"    (local.set $at (i32.add (local.get $at) (i32.const {MEMORY.size(element)})))",
                "    (local.set $count (i32.sub (local.get $count) (i32.const 1)))",
                "    (br $next))))",
            )
        return self._known[key]

    def moves(
        self, type_: t.ValType, form: Form, way: _Way, held: str, base: str, at: int
    ) -> list[str]:
        """Move what a value points to, and point to the copy.

        Args:
            type_: of the value, which was copied already.
            form: the form that it stands in.
            way: where what it points to goes.
            held: the memory that the value itself stands in.
            base: where it stands, as an expression.
            at: how far behind that.
        """
        if not has_pointers(type_):
            return []
        match type_:
            case t.Prim() | t.List():
                return self._move(type_, form, way, held, base, at)
            case t.Record() | t.Tuple():
                parts = tuple(t.children(type_))
                offsets, _ = form.fields(parts)
                return [
                    line
                    for part, offset in zip(parts, offsets, strict=True)
                    for line in self.moves(part, form, way, held, base, at + offset)
                ]
            case _:
                return self._cases(type_, form, way, held, base, at)

    def _move(
        self, type_: t.ValType, form: Form, way: _Way, held: str, base: str, at: int
    ) -> list[str]:
        element = type_.element if isinstance(type_, t.List) else t.Prim("u8")
        pointer = f"(i32.load {held} offset={at} {base})"
        count = f"(i32.load {held} offset={at + form.leaf(4)} {base})"
        size, align = MEMORY.size(element), MEMORY.align(element)
        copy = f"(call {self.copy(way)} {pointer} {count} (i32.const {size}) (i32.const {align}))"
        lines = [f"(i32.store {held} offset={at} {base} {copy})"]
        if has_pointers(element):
            lines.append(f"(call {self.each(element, way)} {pointer} {count})")
        return lines

    def _cases(
        self, type_: t.ValType, form: Form, way: _Way, held: str, base: str, at: int
    ) -> list[str]:
        payloads = cases(type_) or ()
        load = {1: "i32.load8_u", 2: "i32.load16_u"}.get(
            form.discriminant(len(payloads)), "i32.load"
        )
        lines: list[str] = []
        for number, payload in enumerate(payloads):
            if payload is not None and has_pointers(payload):
                inner = self.moves(payload, form, way, held, base, at + form.payload(type_))
                lines += (
                    f"(if (i32.eq ({load} {held} offset={at} {base}) (i32.const {number})) (then",
                    *(f"  {line}" for line in inner),
                    "))",
                )
        return lines

    def __str__(self) -> str:
        lines = (
            f"(core module ${MODULE}-glue",
            '(import "m" "memory" (memory 0))',
            '(import "m" "top" (global $top (mut i32)))',
            '(import "m" "room" (func $room (param i32)))',
            '(import "m" "realloc" (func $alloc (param i32 i32 i32 i32) (result i32)))',
            '(import "m" "enc" (func $enc (param i32 i32 i32) (result i32)))',
            '(import "m" "dec" (func $dec (param i32 i32 i32) (result i32)))',
            *self.imports,
            _USES,
            *self.functions,
            ")",
        )
        return "\n".join(lines)


_HERE = "(i32.const 0)"  # what offsets are counted from where the address is known


def glue_module(sites: Sequence[Site], slots: Sequence[Slot]) -> str:
    """The module that moves values.

    It imports as `p` what the plugin has, by number: memories `m…`, `realloc`s `r…`, tables `t…`, the
    functions `f…` and `post…` of each site; and as `h` the host's functions `f…` of each slot.  It
    exports `f…` for each site.
    """
    text = _Text()
    for site in sites:
        _export(text, site)
    for slot in slots:
        _import(text, slot)
    return str(text)


def _export(text: _Text, site: Site) -> None:
    type_, k = site.function.type, site.function.number
    params, results = _lowered_params(type_), flat(type_.result)
    indirect = result_by_pointer(type_)
    results = ("i32",) if indirect else results
    text.imports.append(f'(import "p" "f{k}" (func $p{k} {_signature(params, results)}))')
    if site.post_return is not None:
        text.imports.append(f'(import "p" "post{k}" (func $post{k} {_signature(results, ())}))')
    theirs = text.memory(site.memory)
    out = [
        f'(func (export "f{k}") (param $p i32) (param $n i32) (result i32)',
        *([f"  (local $r {results[0]})"] if results else []),
        f"  (call $decode (local.get $p) (local.get $n) (i32.const {BASE}))",
    ]
    types = tuple(x for _, x in type_.params)
    by_pointer = params_by_pointer(type_)
    form = MEMORY if by_pointer else SLOTS
    offsets, size = form.fields(types)
    there = _Way("", theirs, site.realloc)
    for x, offset in zip(types, offsets, strict=True):
        out += text.moves(x, form, there, "", _HERE, BASE + offset)
    if by_pointer:
        align = max(map(MEMORY.align, types))
        values = (
            f"(call {text.copy(there)} (i32.const {BASE}) (i32.const 1)"
            f" (i32.const {size}) (i32.const {align}))"
        )
    else:
        values = " ".join(
            f"({core}.load offset={BASE + SLOT * i} {_HERE})" for i, core in enumerate(params)
        )
    call = f"(call $p{k} {values})"
    out.append(f"  (local.set $r {call})" if results else f"  {call}")
    # The result takes the place of the arguments.
    if indirect and type_.result is not None:
        size = MEMORY.size(type_.result)
        out += (
            *_top(BASE + size),
            f"  (memory.copy 0 {theirs} (i32.const {BASE}) (local.get $r) (i32.const {size}))",
            *text.moves(type_.result, MEMORY, _Way(theirs, "", None), "", _HERE, BASE),
        )
    elif results:
        out += (*_top(BASE + SLOT), f"  {_store(results[0], BASE, '(local.get $r)')}")
    else:
        out += _top(BASE)
    if site.post_return is not None:
        out.append(f"  (call $post{k} {'(local.get $r)' if results else ''})")
    text.functions += (
        *out,
        f"  (i32.store (i32.const {_RETURNED}) (i32.const {BASE}))",
        f"  (i32.store (i32.const {_RETURNED + 4}) (call $encode (i32.const {BASE})))",
        f"  (global.set $top (i32.const {BASE}))",
        f"  (i32.const {_RETURNED}))",
    )


def _import(text: _Text, slot: Slot) -> None:
    type_, k = slot.function.type, slot.function.number
    params, result = _lowered_params(type_), flat(type_.result)
    indirect = result_by_pointer(type_)
    handles = handle_params(type_)
    text.once(
        ("h", k),
        "",
        f'(import "h" "f{k}" (func $h{k} (param{" i32" * (len(handles) + 3)})))',
        imported=True,
    )
    text.once(
        ("t", slot.table),
        "",
        f'(import "p" "t{slot.table}" (table $t{slot.table} 0 funcref))',
        imported=True,
    )
    theirs = text.memory(slot.memory)
    here = _Way(theirs, "", None)
    start = RBASE - SLOT * len(params)
    name = f"$slot{slot.table}-{slot.place}"
    declared = (*params, "i32") if indirect else params
    out = [
        f"(func {name} {_signature(declared, () if indirect else result)}",
        *(f"  {_store(x, start + SLOT * i, f'(local.get {i})')}" for i, x in enumerate(params)),
        *_top(RBASE),
    ]
    types = tuple(x for _, x in type_.params)
    if params_by_pointer(type_):
        offsets, size = MEMORY.fields(types)
        align = max(map(MEMORY.align, types))
        out.append(
            f"  (i32.store (i32.const {start}) (call {text.copy(here)} (local.get 0)"
            f" (i32.const 1) (i32.const {size}) (i32.const {align})))"
        )
        form, held = MEMORY, f"(i32.load (i32.const {start}))"
        passed = [f"(i32.load offset={offsets[i]} {held})" for i, _ in handles]
        places = [(x, held, offset) for x, offset in zip(types, offsets, strict=True)]
    else:
        offsets, _ = SLOTS.fields(types)
        form = SLOTS
        passed = [f"(local.get {offsets[i] // SLOT})" for i, _ in handles]
        places = [(x, _HERE, start + offset) for x, offset in zip(types, offsets, strict=True)]
    for x, base, at in places:
        out += text.moves(x, form, here, "", base, at)
    # The string is read before anything is returned: that may take its place.
    lent = f"(i32.const {start}) (call $lend (i32.const {start}))"
    got = f"(i32.load (i32.const {_RETURNED})) (i32.load (i32.const {_RETURNED + 4}))"
    out += (
        f"  (call $h{k} {' '.join(passed)} {lent} (i32.const {_RETURNED}))",
        f"  (call $decode {got} (i32.const {RBASE}))",
    )
    text.once(
        "lend",
        "",
        "(func $lend (param $at i32) (result i32)",
        "  (call $encode (local.get $at))",
        f"  (global.set $top (i32.const {RBASE})))",
    )
    if type_.result is not None and has_pointers(type_.result):
        there = _Way("", theirs, slot.realloc)
        out += text.moves(type_.result, MEMORY, there, "", _HERE, RBASE)
    for j, (offset, _) in enumerate(owned(type_.result)):
        at = _RETURNED + 8 + 8 * j
        out.append(
            f"  (if (i32.load8_u (i32.const {at})) (then (i32.store "
            f"(i32.const {RBASE + offset}) (i32.load (i32.const {at + 4})))))"
        )
    if indirect and type_.result is not None:
        out.append(
            f"  (memory.copy {theirs} 0 (local.get {len(params)}) (i32.const {RBASE})"
            f" (i32.const {MEMORY.size(type_.result)}))"
        )
    out.append(f"  (global.set $top (i32.const {BASE}))")
    if result and not indirect:
        out.append(f"  ({result[0]}.load (i32.const {RBASE}))")
    text.functions += (
        *out,
        ")",
        f"(elem (table $t{slot.table}) (i32.const {slot.place}) func {name})",
    )


def _top(top: int) -> tuple[str, str]:
    """What is laid out from now on begins there."""
    return f"  (global.set $top (i32.const {top}))", "  (call $room (global.get $top))"


def handle_params(type_: t.FuncType) -> tuple[tuple[int, t.Own | t.Borrow], ...]:
    """The parameters that are handles, with their places among the parameters."""
    return tuple((i, x) for i, (_, x) in enumerate(type_.params) if isinstance(x, t.Own | t.Borrow))


def _lowered_params(type_: t.FuncType) -> tuple[str, ...]:
    """The core types of the parameters."""
    if params_by_pointer(type_):
        return ("i32",)
    return tuple(core for _, x in type_.params for core in flat(x))


def _signature(params: Sequence[str], results: Sequence[str]) -> str:
    return f"(param {' '.join(params)}) (result {' '.join(results)})"


def _store(core: str, at: int, value: str) -> str:
    """Store a flat value in the slot at that address, zero-extended."""
    if core == "f32":
        value = f"(i32.reinterpret_f32 {value})"
    if core in ("i32", "f32"):
        return f"(i64.store (i32.const {at}) (i64.extend_i32_u {value}))"
    return f"({core}.store (i32.const {at}) {value})"
