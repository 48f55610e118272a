"""Values on the slow way across: through the wheel's own structures, field by field.

Whatever layout the wheel declares is followed, so this works where `capi.layout_faults` finds one
that the fast way doesn't know.  What may cross, the budgets and the handles are the same.  The
wheel's own conversions are not used: they can't tell `err("x")` of a `result<option<u8>, string>`
from its good case, nor a bool from an int in a variant.

As on the fast way, what is laid out is Python's memory, lent to the engine, which copies it.
"""

from __future__ import annotations

import contextlib
import ctypes
import struct
from typing import Any

import wasmtime
from wasmtime import _ffi as ffi
from wasmtime import component as wc

from capwasm.errors import CapError, InternalError
from capwasm.handles import Handle
from capwasm.values import Err, Ok, Some
from capwasm.values import Variant as VariantValue

from . import checks
from . import types as t
from .classes import Classes, field_name
from .crossing import BadValue, Boundary, Budget, EngineFault, GuestResource
from .lift import FORMATS, WIDTHS

__all__ = ["Session", "Value", "lift", "lower"]

Value = ffi.wasmtime_component_val
_Entry = ffi.wasmtime_component_valrecord_entry
_Name = ffi.wasm_byte_vec_t

# WIT word to the union's member, where they differ.
_MEMBERS = {"bool": "boolean", "char": "character"}


class Session(Budget):
    """One crossing: its budget and its handles, as `frame.Frame` is for the fast way."""

    def __init__(self, store: Any, boundary: Boundary, classes: Classes) -> None:
        """Begin with the whole budget."""
        self.store = store
        self.keep: list[Any] = []
        self.boundary = boundary
        self.classes = classes
        self.left = self.limit = boundary.value_bytes
        self.given: list[tuple[int, Any]] = []
        self.lent: list[tuple[int, Any]] = []
        self.taken: list[Handle] = []
        self.moved: list[GuestResource] = []

    def name(self, data: bytes, into: Any) -> None:
        """Point a string structure to a copy of `data`."""
        memory = (ctypes.c_uint8 * max(1, len(data))).from_buffer_copy(data or b"\0")
        self.keep.append(memory)
        into.size = len(data)
        into.data = ctypes.cast(memory, type(into.data))

    def array(self, of: Any, count: int) -> Any:
        """Memory for `count` structures, zeroed, which lives as long as this."""
        memory = (of * max(1, count))()
        self.keep.append(memory)
        return memory

    def refill(self) -> None:
        """The other direction begins."""
        self.left = self.limit

    def refuse(self) -> None:
        """The host function refused: what the guest gave it is closed."""
        for taken in self.taken:
            taken.close()
        self.taken.clear()

    def finish(self, *, crossed: bool, alive: bool) -> None:
        """Settle who owns the handles.

        Args:
            crossed: the values arrived: what was given is the guest's, what was taken ours.
            alive: the store is still usable.
        """
        for resource in self.moved if crossed else ():
            resource.mark_moved()
        for rep, handle in () if crossed else self.given:
            self._let_go(handle, alive=alive)
            self.boundary.handles.drop(rep)
        for taken in () if crossed else self.taken:
            taken.close()
        for rep, handle in self.lent:
            self._let_go(handle, alive=alive)
            with contextlib.suppress(CapError):
                self.boundary.handles.take(rep, Handle)

    def _let_go(self, handle: Any, *, alive: bool) -> None:
        if alive:
            context = self.store._context()  # noqa: SLF001
            error: Any = ffi.wasmtime_component_resource_any_drop(context, handle.ptr())
            if error:
                wasmtime.WasmtimeError._from_ptr(error)  # noqa: SLF001 - frees it


# -- to C --------------------------------------------------------------------------------------


def lower(type_: t.ValType, value: Any, out: Any, s: Session, hint: str) -> None:
    """Lay `value`, checked, out in `out` and in the session's memory.

    Raises:
        BadValue: it is not of that type.
        ValueLimitExceeded, HandleLimitExceeded, CapError: it may not cross.
    """
    match type_:
        case t.Prim(word):
            _prim_out(word, value, out, s)
        case t.List(element):
            _list_out(type_, element, value, out, s, hint)
        case t.Record(_, fields):
            values = checks.as_fields(type_, s.classes.record(type_, hint))(value)
            s.charge(48 * len(fields))
            entries = s.array(_Entry, len(fields))
            for (name, part), item, entry in zip(fields, values, entries, strict=True):
                s.name(name.encode(), entry.name)
                _at(f".{name}", part, item, entry.val, s, f"{hint}-{name}")
            _kind(out, "RECORD")
            _point(out.of.record, entries, len(fields))
        case t.Tuple(parts):
            items = checks.as_items(value, type_)
            s.charge(32 * len(items))
            memory = s.array(Value, len(items))
            for i, (part, item) in enumerate(zip(parts, items, strict=True)):
                _at(f"[{i}]", part, item, memory[i], s, f"{hint}-{i}")
            _kind(out, "TUPLE")
            _point(out.of.tuple, memory, len(items))
        case t.Enum(_, cases):
            s.name(checks.as_word(value, cases, type_).encode(), out.of.enumeration)
            _kind(out, "ENUM")
        case t.Flags(_, names):
            found = checks.as_words(value, names, type_)
            s.charge(16 * len(found))
            memory = s.array(_Name, len(found))
            for i, word in enumerate(n for n in names if n in found):
                s.name(word.encode(), memory[i])
            _kind(out, "FLAGS")
            _point(out.of.flags, memory, len(found))
        case t.Own(resource) | t.Borrow(resource):
            handle = _handle_out(resource, value, s, lend=isinstance(type_, t.Borrow))
            out.of.resource = handle.ptr()
            _kind(out, "RESOURCE")
        case _:
            _case_out(type_, value, out, s, hint)


def _kind(out: Any, name: str) -> None:
    out.kind = getattr(ffi, f"WASMTIME_COMPONENT_{name}").value


def _point(into: Any, memory: Any, count: int) -> None:
    into.size = count
    into.data = ctypes.cast(memory, type(into.data))


def _at(step: str, type_: t.ValType, value: Any, out: Any, s: Session, hint: str) -> None:
    try:
        lower(type_, value, out, s, hint)
    except BadValue as fault:
        raise fault.at(step) from None


def _prim_out(word: str, value: Any, out: Any, s: Session) -> None:
    checked: Any
    if word == "string":
        if isinstance(value, str) and str.__len__(value) > s.left:
            s.charge(str.__len__(value))
        data = checks.as_text(value)
        s.charge(len(data))
        s.name(data, out.of.string)
        _kind(out, "STRING")
        return
    if word == "bool":
        checked = checks.as_bool(value)
    elif word == "char":
        checked = ord(checks.as_char(value))
    elif word in {"f32", "f64"}:
        checked = checks.as_float(value, word)
        try:
            struct.pack(f"={FORMATS[word]}", checked)
        except OverflowError:
            raise BadValue.value(f"{checks.show(value)} is too large for {word}") from None
    else:
        checked = checks.as_int(value, word)
    setattr(out.of, _MEMBERS.get(word, word), checked)
    _kind(out, word.upper())


def _unit(element: t.ValType) -> int:
    number = isinstance(element, t.Prim) and element.word in FORMATS
    return WIDTHS[element.word] if number and isinstance(element, t.Prim) else 32


def _list_out(
    type_: t.List, element: t.ValType, value: Any, out: Any, s: Session, hint: str
) -> None:
    items: Any
    if element == t.Prim("u8"):
        s.charge(checks.bytes_size(value))
        items = checks.as_bytes(value)
    else:
        items = checks.as_list(value, type_, _unit(element), s)
    memory = s.array(Value, len(items))
    for i, item in enumerate(items):
        _at(f"[{i}]", element, item, memory[i], s, hint)
    _kind(out, "LIST")
    _point(out.of.list, memory, len(items))


def _cases(type_: t.ValType) -> dict[str, t.ValType | None]:
    match type_:
        case t.Variant(_, cases):
            return dict(cases)
        case t.Option(payload):
            return {"none": None, "some": payload}
        case t.Result(ok, err):
            return {"ok": ok, "err": err}
        case _:
            raise InternalError(f"{type_} has no cases")


def _case_hint(type_: t.ValType, case: str, hint: str) -> str:
    if isinstance(type_, t.Option):
        return hint
    return f"{hint}-error" if isinstance(type_, t.Result) and case == "err" else f"{hint}-{case}"


def _case_out(type_: t.ValType, value: Any, out: Any, s: Session, hint: str) -> None:
    number, inner, step = checks.as_case(type_)(value)
    case, part = list(_cases(type_).items())[number]
    pointer = None
    if part is not None:
        s.charge(32)
        memory = s.array(Value, 1)
        _at(step, part, inner, memory[0], s, _case_hint(type_, case, hint))
        pointer = ctypes.cast(memory, ctypes.POINTER(Value))
    match type_:
        case t.Option():
            out.of.option = pointer
            _kind(out, "OPTION")
        case t.Result():
            out.of.result.is_ok = case == "ok"
            out.of.result.val = pointer
            _kind(out, "RESULT")
        case _:
            s.name(case.encode(), out.of.variant.discriminant)
            out.of.variant.val = pointer
            _kind(out, "VARIANT")


def _handle_out(resource: t.ResourceId, value: Any, s: Session, *, lend: bool) -> Any:
    if not resource.imported:
        if not isinstance(value, GuestResource) or value.resource != resource:
            raise BadValue.expected(resource.name, value)
        if not value.belongs_to(s.boundary):
            raise BadValue.value(f"this {resource.name} belongs to another instance")
        try:
            handle = value.pointer()
        except ValueError as exc:
            raise BadValue.value(str(exc)) from None
        if not lend:
            if any(r is value for r in s.moved):
                raise BadValue.value("one resource can't be given back twice in a call")
            s.moved.append(value)
        return handle
    kind = s.boundary.kinds.get(resource)
    if kind is None:
        raise InternalError(f"{resource} has no host side")
    if not isinstance(value, kind.handle):
        raise BadValue.expected(f"{resource.name} ({kind.handle.__name__})", value)
    rep = s.boundary.handles.add(value)
    try:
        with wc.ResourceHost.own(rep, kind.type_id) as host:
            handle = host.to_any(s.store)
    except wasmtime.WasmtimeError as exc:
        s.boundary.handles.drop(rep)
        raise InternalError(f"the engine refused a handle: {exc}") from exc
    (s.lent if lend else s.given).append((rep, handle))
    return handle


# -- from C ------------------------------------------------------------------------------------


def lift(type_: t.ValType, val: Any, s: Session, hint: str) -> Any:
    """The Python value of the C value `val`, which is read only: its owner deletes it.

    Raises:
        ValueLimitExceeded, CapError: it may not cross.
    """
    match type_:
        case t.Prim(word):
            return _prim_in(word, val, s)
        case t.List(element):
            size = val.of.list.size
            s.charge(size * _unit(element))
            items = [lift(element, val.of.list.data[i], s, hint) for i in range(size)]
            return bytes(items) if element == t.Prim("u8") else items
        case t.Record(_, fields):
            s.charge(48 * len(fields))
            entries = val.of.record.data
            parts = {
                field_name(n): lift(part, entries[i].val, s, f"{hint}-{n}")
                for i, (n, part) in enumerate(fields)
            }
            return s.classes.record(type_, hint)(**parts)
        case t.Tuple(parts_):
            s.charge(32 * len(parts_))
            memory = val.of.tuple.data
            return tuple(lift(x, memory[i], s, f"{hint}-{i}") for i, x in enumerate(parts_))
        case t.Enum():
            return s.classes.words(type_, hint)[_text(val.of.enumeration)]
        case t.Flags():
            flags = val.of.flags
            s.charge(16 * flags.size)
            words = s.classes.words(type_, hint)
            return frozenset(words[_text(flags.data[i])] for i in range(flags.size))
        case t.Own(resource) | t.Borrow(resource):
            return _handle_in(resource, val, s, owned=isinstance(type_, t.Own))
        case _:
            return _case_in(type_, val, s, hint)


def _text(name: Any) -> str:
    return ctypes.string_at(name.data, name.size).decode() if name.size else ""


def _prim_in(word: str, val: Any, s: Session) -> Any:
    if word == "string":
        s.charge(val.of.string.size)
        return _text(val.of.string)
    value = getattr(val.of, _MEMBERS.get(word, word))
    return chr(value) if word == "char" else value


def _case_in(type_: t.ValType, val: Any, s: Session, hint: str) -> Any:
    match type_:
        case t.Option():
            pointer = val.of.option
            case = "some" if pointer else "none"
        case t.Result():
            pointer = val.of.result.val
            case = "ok" if val.of.result.is_ok else "err"
        case _:
            pointer = val.of.variant.val
            case = _text(val.of.variant.discriminant)
    part, payload = _cases(type_)[case], None
    if part is not None:
        s.charge(32)
        payload = lift(part, pointer[0], s, _case_hint(type_, case, hint))
    match type_:
        case t.Option(inner):
            return Some(payload) if pointer and isinstance(inner, t.Option) else payload
        case t.Result():
            return Ok(payload) if case == "ok" else Err(payload)
        case _:
            return VariantValue(case, payload)


def _handle_in(resource: t.ResourceId, val: Any, s: Session, *, owned: bool) -> Any:
    # Our own copy of the engine's handle; the value's is deleted with the value.
    value = wc.ResourceAny._from_ptr(  # noqa: SLF001
        ffi.wasmtime_component_resource_any_clone(val.of.resource)
    )
    if not resource.imported:
        return _guest_handle_in(resource, value, s)
    kind = s.boundary.kinds.get(resource)
    if kind is None:
        raise InternalError(f"{resource} has no host side")
    try:
        with value.to_host(s.store) as host:
            rep, type_id = host.rep, host.type
    except wasmtime.WasmtimeError as exc:
        raise CapError("closed", f"not a handle of the host: {exc}") from None
    if type_id != kind.type_id:
        raise CapError("closed", f"a handle of another kind than {resource}")
    if not owned:
        return s.boundary.handles.get(rep, kind.handle)
    handle = s.boundary.handles.take(rep, kind.handle)
    s.taken.append(handle)
    return handle


def _guest_handle_in(resource: t.ResourceId, value: Any, s: Session) -> GuestResource:
    store = s.store

    def drop(handle: Any) -> None:
        error: Any = ffi.wasmtime_component_resource_any_drop(store._context(), handle.ptr())  # noqa: SLF001
        if error:
            fault = wasmtime.WasmtimeError._from_ptr(error)  # noqa: SLF001
            raise EngineFault(str(fault)) from fault

    def delete(handle: Any) -> None:
        handle.close()

    return GuestResource(resource, s.boundary, value, drop, delete)
