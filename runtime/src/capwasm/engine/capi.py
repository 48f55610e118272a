"""The C API that the wheel ships: the layout that call plans rely on, and the functions they call.

Structures follow `wasmtime/component/val.h` of wasmtime 50: a value is 32 bytes, a kind and a union
at offset 8; lists, records, tuples, flags and strings are a size and a pointer.  `layout_faults`
compares that with what the wheel itself declares; where they differ, `wheel.py` is used instead.

Addresses are plain integers here.  The wheel's own function objects are not touched: each function
below is a second ctypes object for the same symbol, with cheaper argument types.
"""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_char_p, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any

import wasmtime
from wasmtime import _ffi as ffi

from .config import wheel_version

__all__ = [
    "CALLBACK",
    "DESTRUCTOR",
    "FINALIZER",
    "KINDS",
    "VAL_SIZE",
    "address",
    "any_clone",
    "any_delete",
    "any_drop",
    "any_to_host",
    "context_at",
    "error_new",
    "export_index",
    "export_index_delete",
    "fuel_get",
    "fuel_set",
    "func_call",
    "get_fuel",
    "host_delete",
    "host_rep",
    "host_to_any",
    "host_type",
    "instance_func",
    "instantiate",
    "layout_faults",
    "linker_add_func",
    "linker_add_resource",
    "pointer_arg",
    "set_epoch_deadline",
    "set_fuel",
    "size_arg",
    "store_context",
    "store_delete",
    "store_limiter",
    "store_new",
    "store_on_epoch",
    "take_error",
    "uint64_arg",
    "val_clone",
    "val_delete",
]

_KNOWN_MAJORS = frozenset({"50"})

VAL_SIZE = 32
ENTRY_SIZE = 48  # a record's entry: a name, then a value
NAME_SIZE = 16

# `wasmtime_component_valkind_t`, in the order of val.h.
_WORDS = """
    bool s8 u8 s16 u16 s32 u32 s64 u64 f32 f64 char string
    list record tuple variant enum option result flags resource
"""
KINDS = {word: number for number, word in enumerate(_WORDS.split())}


def layout_faults() -> list[str]:
    """Why the structures are not the ones that this module was written for; empty if they are."""
    faults = []
    installed = wheel_version()
    if installed.split(".")[0] not in _KNOWN_MAJORS:
        faults.append(f"wasmtime {installed} is not a version that was checked")
    for name, value in KINDS.items():
        constant = getattr(ffi, f"WASMTIME_COMPONENT_{name.upper()}", None)
        if constant is None or constant.value != value:
            faults.append(f"the kind of {name} is not {value}")
    for struct, size, offsets in (
        ("wasmtime_component_val", VAL_SIZE, {"kind": 0, "of": 8}),
        ("wasmtime_component_vallist", 16, {"size": 0, "data": 8}),
        ("wasmtime_component_valtuple", 16, {"size": 0, "data": 8}),
        ("wasmtime_component_valrecord", 16, {"size": 0, "data": 8}),
        ("wasmtime_component_valflags", 16, {"size": 0, "data": 8}),
        ("wasm_byte_vec_t", NAME_SIZE, {"size": 0, "data": 8}),
        ("wasmtime_component_valrecord_entry", ENTRY_SIZE, {"name": 0, "val": 16}),
        ("wasmtime_component_valvariant", 24, {"discriminant": 0, "val": 16}),
        ("wasmtime_component_valresult", 16, {"is_ok": 0, "val": 8}),
        ("wasmtime_component_valunion", 24, {"u8": 0, "f64": 0, "option": 0, "resource": 0}),
    ):
        theirs = getattr(ffi, struct, None)
        if theirs is None or ctypes.sizeof(theirs) != size:
            faults.append(f"{struct} is not {size} bytes")
            continue
        for field, offset in offsets.items():
            if getattr(getattr(theirs, field, None), "offset", None) != offset:
                faults.append(f"{struct}.{field} is not at {offset}")
    return faults


def _bind(name: str, result: Any, *args: Any, releases_gil: bool = False) -> Any:
    # Only what runs guest code gives up the GIL: for the rest, taking it back costs more than the
    # call, and far more when other threads want it.
    prototype = (ctypes.CFUNCTYPE if releases_gil else ctypes.PYFUNCTYPE)(result, *args)
    return prototype((name, ffi.dll))


_P = c_void_p
_C = "wasmtime_component_"
# The two of every call have no argument types: they take what `pointer_arg` and `size_arg` made
# once, and nothing else.  That saves ctypes more than half of its work.
func_call = _bind(f"{_C}func_call", _P, releases_gil=True)
val_delete = _bind(f"{_C}val_delete", None)
pointer_arg = c_void_p.from_param
size_arg = c_size_t.from_param
val_clone = _bind(f"{_C}val_clone", None, _P, _P)
any_drop = _bind(f"{_C}resource_any_drop", _P, _P, _P, releases_gil=True)
any_delete = _bind(f"{_C}resource_any_delete", None, _P)
any_clone = _bind(f"{_C}resource_any_clone", _P, _P)
_any_to_host = _bind(f"{_C}resource_any_to_host", _P, _P, _P, _P)
_host_to_any = _bind(f"{_C}resource_host_to_any", _P, _P, _P, _P)
_host_new = _bind(f"{_C}resource_host_new", _P, c_bool, c_uint32, c_uint32)
host_rep = _bind(f"{_C}resource_host_rep", c_uint32, _P)
host_type = _bind(f"{_C}resource_host_type", c_uint32, _P)
host_delete = _bind(f"{_C}resource_host_delete", None, _P)
linker_add_func = _bind(
    f"{_C}linker_instance_add_func", _P, _P, c_char_p, c_size_t, _P, c_size_t, _P
)
linker_add_resource = _bind(
    f"{_C}linker_instance_add_resource", _P, _P, c_char_p, c_size_t, _P, _P, c_size_t, _P
)
_error_new = _bind("wasmtime_error_new", _P, c_char_p)

# A store, from its making to its end; see `store.py`.
store_new = _bind("wasmtime_store_new", _P, _P, _P, _P)
store_context = _bind("wasmtime_store_context", _P, _P)
store_limiter = _bind("wasmtime_store_limiter", None, _P, *[c_int64] * 5)
store_on_epoch = _bind("wasmtime_store_epoch_deadline_callback", None, _P, _P, _P, _P)
set_epoch_deadline = _bind("wasmtime_context_set_epoch_deadline", None, _P, c_uint64)
set_fuel = _bind("wasmtime_context_set_fuel", _P, _P, c_uint64)
get_fuel = _bind("wasmtime_context_get_fuel", _P, _P, _P)
# The same two for every call: without argument types, as above, and without a look at the error, which
# there is only in an engine that does not count fuel; `Store.set_fuel` has seen that ours does.
fuel_set = _bind("wasmtime_context_set_fuel", None)
fuel_get = _bind("wasmtime_context_get_fuel", None)
uint64_arg = c_uint64.from_param
# A large guest's memory takes the system a while to take back.
store_delete = _bind("wasmtime_store_delete", None, _P, releases_gil=True)
# Runs the guest's start functions.
instantiate = _bind(f"{_C}linker_instantiate", _P, _P, _P, _P, _P, releases_gil=True)
instance_func = _bind(f"{_C}instance_get_func", c_bool, _P, _P, _P, _P)
export_index = _bind(f"{_C}get_export_index", _P, _P, _P, c_char_p, c_size_t)
export_index_delete = _bind(f"{_C}export_index_delete", None, _P)

# The C side of a callback.  All pointers are integers, or None for null.
CALLBACK = ctypes.CFUNCTYPE(c_size_t, _P, _P, _P, _P, c_size_t, _P, c_size_t)
DESTRUCTOR = ctypes.CFUNCTYPE(c_size_t, _P, _P, c_uint32)
FINALIZER = ctypes.CFUNCTYPE(None, _P)


def address(pointer: Any) -> int:
    """The address that a ctypes pointer holds."""
    return ctypes.cast(pointer, c_void_p).value or 0


def context_at(store: Any) -> int:
    """The address of a store's context: of ours, or of the wheel's."""
    at: int | None = getattr(store, "context", None)
    return address(store._context()) if at is None else at  # noqa: SLF001


def error_new(message: str) -> int:
    """An error for a callback to return; the engine takes ownership."""
    # A lone surrogate or a NUL would abort the process or cut the message.
    raw = message.encode("utf-8", "replace").replace(b"\0", b"?")
    return int(_error_new(raw))


def take_error(error: int) -> wasmtime.WasmtimeError:
    """The wheel's exception for an error that a function returned; owns it from now on."""
    pointer = ctypes.cast(error, ctypes.POINTER(ffi.wasmtime_error_t))
    return wasmtime.WasmtimeError._from_ptr(pointer)  # noqa: SLF001


def any_to_host(context: int, handle: int) -> int:
    """The host resource of a handle that was lifted; the store lets go of it.

    Raises:
        wasmtime.WasmtimeError: it is a guest's resource, or gone.
    """
    out = c_void_p()
    error = _any_to_host(context, handle, ctypes.addressof(out))
    if error:
        raise take_error(error)
    return out.value or 0


def host_to_any(context: int, rep: int, type_id: int) -> int:
    """A handle, owned by the store's host side, of a host resource.

    Raises:
        wasmtime.WasmtimeError: the store holds too many.
    """
    host = _host_new(True, rep, type_id)  # noqa: FBT003 - the C signature
    out = c_void_p()
    error = _host_to_any(context, host, ctypes.addressof(out))
    host_delete(host)
    if error:
        raise take_error(error)
    return out.value or 0
