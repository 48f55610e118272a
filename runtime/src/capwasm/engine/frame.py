"""The memory of one crossing: values are laid out in Python's own memory, and lent to the engine.

The C API copies the arguments that it is given, and `val_clone` copies a host function's result.
So nothing that a plan lays out is ever owned by the engine, nothing has to be freed when a
conversion fails half way, and nothing can be freed twice.  The exceptions are handles (a few bytes
each, made by the engine), which the frame keeps a list of.
"""

from __future__ import annotations

import contextlib
from ctypes import addressof, c_char
from typing import Any, cast

import wasmtime

from capwasm.errors import CapError
from capwasm.handles import Handle

from . import capi
from .crossing import Boundary, Budget, over_limit

__all__ = ["Frame", "Frames"]

_CHUNK = 4096
_KEPT = 16


_NOWHERE = cast("Boundary", None)


class Frame(Budget):
    """The memory of one crossing.  Used by one thread at a time, and again after it was given back.

    Attributes:
        buf: the first chunk; the plan's own slots stand at its beginning.
        base: its address.   args, result: those of the first and last slot, as ctypes wants them.
        left: bytes that may still cross, of `limit`.
        context: the store; `boundary`: the instance.  Set for plans with handles only.
        top, start, extra: what of the chunk is used, what of that is slots, more chunks.
    """

    __slots__ = (
        "_given",
        "_lent",
        "_moved",
        "_pin",
        "_taken",
        "args",
        "base",
        "boundary",
        "buf",
        "context",
        "extra",
        "result",
        "start",
        "top",
    )

    def __init__(self, slots: int, *, flat: bool) -> None:
        """Begin with the plan's own slots, of 32 bytes; the last is for the result.

        Args:
            slots: how many.
            flat: nothing else will be laid out.
        """
        reserved = 32 * slots
        self.buf = bytearray(reserved + (0 if flat else _CHUNK))
        # The pin is an open export: were the chunk ever resized, Python would refuse.
        self._pin = c_char.from_buffer(self.buf)
        self.base = addressof(self._pin)
        assert self.base % 8 == 0
        self.args = capi.pointer_arg(self.base)
        self.result = capi.pointer_arg(self.base + reserved - 32)
        self.start = self.top = reserved
        self.extra: list[bytearray] = []
        self.left = self.limit = 0
        self.context = 0
        self.boundary = _NOWHERE
        self._given: list[tuple[int, int]] = []  # (rep, handle): own, to the guest
        self._lent: list[tuple[int, int]] = []  # (rep, handle): borrowed by the guest
        self._taken: list[Handle] = []  # own, from the guest
        self._moved: list[Any] = []  # the guest's own resources that go back to it

    # -- memory --------------------------------------------------------------------------------

    def alloc(self, size: int) -> tuple[bytearray, int, int]:
        """`size` bytes (a multiple of 8): the buffer, the offset in it, the address.

        Charges nothing: the caller did.
        """
        top = self.top
        if top + size <= len(self.buf):
            self.top = top + size
            return self.buf, top, self.base + top
        chunk = bytearray(size)
        start = addressof(c_char.from_buffer(chunk))
        assert start % 8 == 0  # as all that malloc gives
        self.extra.append(chunk)
        return chunk, 0, start

    def fill(self, pattern: bytearray, count: int) -> tuple[bytearray, int, int]:
        """`pattern` (a multiple of 8 bytes), `count` times: as `alloc`."""
        size = len(pattern) * count
        top = self.top
        if top + size <= len(self.buf):
            self.top = top + size
            self.buf[top : top + size] = pattern * count
            return self.buf, top, self.base + top
        chunk = pattern * count
        start = addressof(c_char.from_buffer(chunk))
        assert start % 8 == 0  # as all that malloc gives
        self.extra.append(chunk)
        return chunk, 0, start

    def put(self, data: bytes) -> int:
        """A copy of `data`: its address.  Charges its size."""
        size = len(data)
        self.left -= size
        if self.left < 0:
            raise over_limit(self.limit)
        top = self.top
        if top + size <= len(self.buf):
            self.buf[top : top + size] = data
            self.top = (top + size + 7) & ~7
            return self.base + top
        chunk = bytearray(data)
        self.extra.append(chunk)
        return addressof(c_char.from_buffer(chunk))

    # -- handles -------------------------------------------------------------------------------

    def give(self, handle: Handle, type_id: int, *, lend: bool) -> int:
        """The engine's handle for `handle`, which the guest gets, or borrows for this call.

        Raises:
            HandleLimitExceeded, CapError: the instance's table takes no more.
        """
        table = self.boundary.handles
        rep = table.add(handle)
        try:
            box = capi.host_to_any(self.context, rep, type_id)
        except wasmtime.WasmtimeError:
            table.drop(rep)
            raise
        (self._lent if lend else self._given).append((rep, box))
        return box

    def took(self, handle: Handle) -> None:
        """The guest gave `handle` back; it is the host's if the crossing succeeds."""
        self._taken.append(handle)

    def moves(self, resource: Any) -> None:
        """The guest gets its own `resource` back if the crossing succeeds."""
        if any(r is resource for r in self._moved):
            raise ValueError("one resource can't be given back twice in a call")
        self._moved.append(resource)

    def commit(self) -> None:
        """The values have crossed: what was given belongs to the guest, what was taken to us."""
        for resource in self._moved:
            resource.mark_moved()
        for _, box in self._given:
            capi.any_delete(box)
        self._moved.clear()
        self._given.clear()
        self._taken.clear()

    def settle(self, *, crossed: bool, alive: bool = True) -> None:
        """The crossing is over; `rollback` it unless it `crossed`, and take back what was lent.

        Args:
            crossed: the values arrived.
            alive: the store is still usable.
        """
        if crossed:
            self.commit()
        else:
            self.rollback()
        for rep, box in self._lent:
            if alive:
                self._drop(box)
            capi.any_delete(box)
            with contextlib.suppress(CapError):
                self.boundary.handles.take(rep, Handle)
        self._lent.clear()
        # A pooled frame must not keep an instance.
        self.context, self.boundary = 0, _NOWHERE

    def rollback(self) -> None:
        """The crossing failed: what was to be given is closed, and what was taken too."""
        for rep, box in self._given:
            self._drop(box)
            capi.any_delete(box)
            self.boundary.handles.drop(rep)
        for handle in self._taken:
            handle.close()
        self._given.clear()
        self._taken.clear()
        self._moved.clear()

    def _drop(self, box: int) -> None:
        error = capi.any_drop(self.context, box)
        if error:
            capi.take_error(error)  # frees it; there is nothing to be done about it


class Frames:
    """A plan's frames.

    Taking and giving back is one list operation each: safe from threads, and from a call that
    nests in another of the same plan.
    """

    __slots__ = ("_flat", "_slots", "free")

    def __init__(self, slots: int, *, flat: bool) -> None:
        """Frames with that many slots."""
        self._slots = slots
        self._flat = flat
        self.free: list[Frame] = []

    def new(self) -> Frame:
        """One more; `free` was empty."""
        return Frame(self._slots, flat=self._flat)

    def take(self) -> Frame:
        """A clean frame for the caller alone."""
        try:
            return self.free.pop()
        except IndexError:
            return self.new()

    def give_back(self, frame: Frame) -> None:
        """Let another crossing have it."""
        frame.top = frame.start
        if frame.extra:
            frame.extra.clear()
        if len(self.free) < _KEPT:
            self.free.append(frame)
