"""The memory of one crossing on the lane, and the code that makes a string of it.

A block of bytes crosses as a string, nineteen characters for sixteen bytes (see `codec.wat`).  Python
can't do that at the speed of memory; WebAssembly can.  So the block is laid out in the memory of a
small core instance of our own, which holds no guest's code: it runs without fuel, as it does a bounded
amount of work that is ours.  A block stands in it at the very address at which it stands in the
plugin's lane, so the pointers in it are offsets here.

Why that is safe: the instance's memory never moves, the engine is told so, and that it has not is
checked after each growth.  Every offset that Python uses is one of a `memoryview` of exactly that
memory.  What a crossing hands out is zeroed first: nothing of another crossing's values is left in it.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from struct import Struct
from typing import Any

import wasmtime
from wasmtime import _bindings as bindings
from wasmtime import _ffi as ffi

from capwasm.engine import capi
from capwasm.engine.crossing import Budget, EngineFault, over_limit
from capwasm.errors import InstancesExceeded, InternalError

from .layout import BASE
from .wire import GROUP, PACKED, PAGE, most_bytes

__all__ = ["Codec", "Codecs", "functions", "module"]

_FIRST_PAGES = 16  # the address space alone; what is never touched costs nothing
_MAX_PAGES = 1 << 15
_KEPT, _KEPT_BYTES = 8, 1 << 22
_ZEROS = bytes(4096)
# From here on a copy is worth a C call, and a run is worth letting other threads have the interpreter.
_LARGE = 1 << 14
_VERY_LARGE = 1 << 18

_ARGS = Struct("=Q8xQ8xQ8x").pack_into  # three i32, each in a slot of 16 bytes
_VAL = Struct("=B7xQQ")
_VAL_INTO, _VAL_FROM = _VAL.pack_into, _VAL.unpack_from
_POINTER = Struct("=Q").pack_into
_STRING = capi.KINDS["string"]
# The scratch below BASE holds the two C values of a call: its argument, its result.
_RESULT = 32
_POINTER_AT = _RESULT + 16

_P = ctypes.c_void_p


def functions() -> str:
    """The WAT text of `$enc` and `$dec`, for whichever module has a memory."""
    return (Path(__file__).parent / "codec.wat").read_text(encoding="utf-8")


@cache
def module() -> tuple[wasmtime.Engine, wasmtime.Module]:
    """The engine and the code of all codecs, made when first asked for; no thread is started."""
    config = wasmtime.Config()
    bindings.wasmtime_config_parallel_compilation_set(config.ptr(), False)  # noqa: FBT003
    config.memory_may_move = False
    config.memory_reservation = 1 << 32
    engine = wasmtime.Engine(config)
    text = f"""(module
      (memory (export "memory") {_FIRST_PAGES} {_MAX_PAGES})
      {functions()}
      (export "enc" (func $enc)) (export "dec" (func $dec)))"""
    return engine, wasmtime.Module(engine, bytes(wasmtime.wat2wasm(text)))


def _bind(prototype: Any) -> Any:
    return prototype(_P)(("wasmtime_func_call_unchecked", ffi.dll))


_run_holding = _bind(ctypes.PYFUNCTYPE)
_run_releasing = _bind(ctypes.CFUNCTYPE)


class Codec(Budget):
    """The memory of one crossing.  Used by one thread at a time, and again after it was given back.

    Attributes:
        buf: the memory, as bytes.  It is replaced when the memory grows; the old one stays good for
            what it covers.
        base: its address.   args, result: those of the two C values, as ctypes wants them.
        left: bytes that may still cross, of `limit`.
        top: the end of the block that is being laid out.
        low, high: the bounds of the block that was decoded.
        frame: the frame for what crosses beside the string, if the plan has any.
    """

    __slots__ = (
        "_cap",
        "_decode",
        "_encode",
        "_memory",
        "_raw",
        "_size",
        "_store",
        "_trap",
        "_window",
        "args",
        "base",
        "buf",
        "frame",
        "high",
        "low",
        "result",
        "top",
    )

    def __init__(self) -> None:
        """Make an instance."""
        engine, code = module()
        self._store = wasmtime.Store(engine)
        exports = wasmtime.Instance(self._store, code, []).exports(self._store)
        self._memory: Any = exports["memory"]
        self._raw = bytearray(3 * 16)
        self._trap = ctypes.c_void_p()
        self._encode = self._call_of(exports["enc"])
        self._decode = self._call_of(exports["dec"])
        self.base = self._where()
        self._see()
        self.args = capi.pointer_arg(self.base)
        self.result = capi.pointer_arg(self.base + _RESULT)
        # A pointer whose own storage is the memory at that offset: reading through it needs no
        # new object.
        window = ctypes.POINTER(ctypes.c_char)
        self._window: Any = window.from_address(self.base + _POINTER_AT)
        self.top = self.low = self.high = BASE
        self.left = self.limit = 0
        self.frame: Any = None

    def _call_of(self, function: Any) -> tuple[Any, ...]:
        raw = ctypes.addressof(ctypes.c_char.from_buffer(self._raw))
        context = capi.address(self._store._context())  # noqa: SLF001
        # The pointer keeps `function` alive as long as this tuple.
        target = ctypes.pointer(function._func)  # noqa: SLF001
        return (
            capi.pointer_arg(context),
            target,
            capi.pointer_arg(raw),
            capi.size_arg(3),
            capi.pointer_arg(ctypes.addressof(self._trap)),
        )

    def _where(self) -> int:
        return capi.address(self._memory.data_ptr(self._store))

    def _see(self) -> None:
        self._size = self._memory.data_len(self._store)
        whole = (ctypes.c_ubyte * self._size).from_address(self.base)
        self.buf = memoryview(whole).cast("B")

    # -- memory --------------------------------------------------------------------------------

    def begin(self, limit: int) -> None:
        """A new crossing, of values of at most `limit` bytes each way."""
        self.left = limit
        if limit != self.limit:
            self.limit = limit
            self._cap = min(self._size, most_bytes(limit))

    def open(self, at: int, size: int) -> None:
        """Lay out a block at `at`, whose first `size` bytes are zero.

        Raises:
            ValueLimitExceeded: more than there may be.
        """
        end = self.top = at + size
        if end > self._cap:
            self._make_room(end)
        self.buf[at:end] = _ZEROS[:size] if size <= len(_ZEROS) else bytes(size)

    def alloc(self, size: int, align: int) -> int:
        """The offset of `size` zero bytes.  Charges nothing: the caller did.

        Raises:
            ValueLimitExceeded: more than there may be.
        """
        top = self.top
        at = (top + align - 1) & -align
        end = at + size
        if end > self._cap:
            self._make_room(end)
        gap = end - top
        self.buf[top:end] = _ZEROS[:gap] if gap <= len(_ZEROS) else bytes(gap)
        self.top = end
        return at

    def put(self, data: bytes, align: int = 1) -> int:
        """The offset of a copy of `data`.  Charges nothing: the caller did.

        Raises:
            ValueLimitExceeded: more than there may be.
        """
        top = self.top
        at = (top + align - 1) & -align
        end = at + len(data)
        if end > self._cap:
            self._make_room(end)
        if at > top:
            self.buf[top:at] = _ZEROS[: at - top]
        self.buf[at:end] = data
        self.top = end
        return at

    def _make_room(self, end: int) -> None:
        most = most_bytes(self.limit)
        if end > most:
            raise over_limit(self.limit)
        self._grow(end)
        self._cap = min(most, self._size)

    def _grow(self, end: int) -> None:
        """Have at least `end` bytes of memory, for the block and for its string."""
        if end <= self._size:
            return
        # Half as much again, so that many small steps are few growths.
        pages = -(-(end + end // 2) // PAGE)
        if pages > _MAX_PAGES:
            raise over_limit(self.limit)
        try:
            self._memory.grow(self._store, pages - self._size // PAGE)
        except wasmtime.WasmtimeError:
            raise over_limit(self.limit) from None
        if self._where() != self.base:
            raise InternalError("the memory of a crossing has moved")
        self._see()

    # -- strings -------------------------------------------------------------------------------

    def lend(self, start: int) -> int:
        """Make a string of the block from `start` to `top`, in its place, as the C value at `args`.

        Returns:
            The string's length.

        Raises:
            ValueLimitExceeded: there is no memory for it.
        """
        top, buf = self.top, self.buf
        size = (top - start + GROUP - 1) & -GROUP
        end, length = start + size, size // GROUP * PACKED
        if start + length > self._size:
            self._grow(start + length)
            buf = self.buf
        if end > top:
            buf[top:end] = _ZEROS[: end - top]
        if size:
            _ARGS(self._raw, 0, start, size, start)
            if (_run_holding if size < _VERY_LARGE else _run_releasing)(*self._encode):
                raise InternalError("a block could not be encoded")
        _VAL_INTO(buf, 0, _STRING, length, self.base + start)
        return length

    def decode_result(self, at: int) -> None:
        """Decode the string that a call left at `result`, to the offset `at`.

        Raises:
            EngineFault: that is no string, or no block.
            ValueLimitExceeded: it is too large.
        """
        kind, length, pointer = _VAL_FROM(self.buf, _RESULT)
        if kind != _STRING:
            raise EngineFault("the lane did not return a string")
        self._decode_at(at, length, pointer)

    def forget(self) -> None:
        """What stood at `result` was deleted: the engine drops what stands there before it writes."""
        self.buf[_RESULT] = 0

    def decode(self, at: int, length: int, pointer: int) -> None:
        """Decode a string of the engine's to the offset `at`: its size, its address.

        Raises:
            EngineFault: it is no block.
            ValueLimitExceeded: it is too large.
        """
        _POINTER(self.buf, _POINTER_AT, pointer)
        self._decode_at(at, length, pointer)

    def _decode_at(self, at: int, length: int, pointer: int) -> None:
        groups, odd = divmod(length, PACKED)
        if odd:
            raise EngineFault("a block that is cut off")
        size = groups * GROUP
        self.low, high = at, at + size
        self.high = high
        if not size:
            return
        if high > self._cap:
            self._make_room(high)
        # The codec reads a few bytes past the last group.
        if at + length + GROUP > self._size:
            self._grow(at + length + GROUP)
        if length < _LARGE:
            self.buf[at : at + length] = self._window[:length]
        else:
            ctypes.memmove(self.base + at, pointer, length)
        _ARGS(self._raw, 0, at, size, at)
        if (_run_holding if size < _VERY_LARGE else _run_releasing)(*self._decode):
            raise InternalError("a block could not be decoded")

    def peek(self, pointer: int, size: int) -> bytes:
        """A copy of `size` bytes of the engine's memory."""
        _POINTER(self.buf, _POINTER_AT, pointer)
        data: bytes = self._window[:size]
        return data

    @property
    def small(self) -> bool:
        """Whether it is worth keeping."""
        return bool(self._size <= _KEPT_BYTES)


class Codecs:
    """The codecs of this process.

    Taking and giving back is one list operation each: safe from threads, and from a crossing that
    begins within another.
    """

    __slots__ = ("free",)

    def __init__(self) -> None:
        """Begin with none."""
        self.free: list[Codec] = []

    def take(self, limit: int) -> Codec:
        """One for the caller alone.

        Raises:
            InstancesExceeded: there is no address space for one more.
        """
        try:
            codec = self.free.pop()
        except IndexError:
            try:
                codec = Codec()
            except wasmtime.WasmtimeError as exc:
                raise InstancesExceeded(
                    "no room for the values of one more call now: the system gives no address space"
                ) from exc
        codec.begin(limit)
        return codec

    def give_back(self, codec: Codec) -> None:
        """Let another crossing have it."""
        if len(self.free) < _KEPT and codec.small:
            self.free.append(codec)
