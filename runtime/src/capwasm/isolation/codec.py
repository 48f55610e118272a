"""How one function's arguments and result stand in frames, for both ends of a lane."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from capwasm.engine import types as t
from capwasm.engine.classes import Classes
from capwasm.engine.crossing import BadValue
from capwasm.engine.host import hint_of, miscounted, returned
from capwasm.errors import CapError, InternalError
from capwasm_shim.frames import ProtocolFault

from .decode import Decode, decoder
from .encode import Encode, encoder
from .wire import Crossing

__all__ = ["Codec"]


class Codec:
    """One function's.  Safe from threads; what it needs is made when first needed."""

    def __init__(self, name: str, type_: t.FuncType, classes: Classes) -> None:
        """Keep what to convert."""
        self.name = name
        self.type = type_
        self._classes = classes
        self._hint = hint_of(name)

    @cached_property
    def _outs(self) -> tuple[tuple[str, Encode], ...]:
        classes, hint = self._classes, self._hint
        return tuple((n, encoder(x, classes, f"{hint}-{n}")) for n, x in self.type.params)

    @cached_property
    def _ins(self) -> tuple[Decode, ...]:
        classes, hint = self._classes, self._hint
        return tuple(decoder(x, classes, f"{hint}-{n}") for n, x in self.type.params)

    @cached_property
    def _out(self) -> Encode | None:
        result = self.type.result
        return None if result is None else encoder(result, self._classes, f"{self._hint}-result")

    @cached_property
    def _in(self) -> Decode | None:
        result = self.type.result
        return None if result is None else decoder(result, self._classes, f"{self._hint}-result")

    def encode_args(self, args: tuple[Any, ...], c: Crossing) -> list[Any]:
        """What a caller passed, for a frame.

        Raises:
            TypeError, ValueError: an argument is not of its type; the message says which and where.
            ValueLimitExceeded, HandleLimitExceeded, CapError: it can't cross.
        """
        if len(args) != len(self.type.params):
            raise miscounted(self.type, self.name, len(args))
        made: list[Any] = []
        try:
            for (_, go), value in zip(self._outs, args, strict=True):
                made.append(go(value, c))
        except BadValue as fault:
            raise fault.at(f"argument {self._outs[len(made)][0]}").to_error() from None
        return made

    def decode_args(self, raw: Any, c: Crossing) -> tuple[Any, ...]:
        """What a peer passes.  A dead handle is told of when all the others have been taken.

        Raises:
            ProtocolFault: it is not of these types.
            ValueLimitExceeded: it is too large.
            CapError: the first handle that was dead.
        """
        if type(raw) is not list or len(raw) != len(self._ins):
            raise ProtocolFault(f"other arguments than {self.name} has")
        values: list[Any] = []
        refused: CapError | None = None
        for go, item in zip(self._ins, raw, strict=True):
            try:
                values.append(go(item, c))
            except CapError as exc:
                refused = refused or exc
        if refused is not None:
            raise refused
        return tuple(values)

    def encode_result(self, value: Any, c: Crossing) -> Any:
        """What a function returned, for a frame; the good value of a `result` may come bare.

        Raises:
            InternalError: it is not of the function's type.
            ValueLimitExceeded, HandleLimitExceeded, CapError: it can't cross.
        """
        value = returned(self.name, self.type.result, value)
        if self._out is None:
            return None
        try:
            return self._out(value, c)
        except BadValue as fault:
            raise InternalError(f"host function {self.name}: {fault.at('result')}") from None

    def decode_result(self, raw: Any, c: Crossing) -> Any:
        """What a peer returned.

        Raises:
            ProtocolFault: it is not of that type.
            ValueLimitExceeded: it is too large.
            CapError: a handle was dead.
        """
        if self._in is not None:
            return self._in(raw, c)
        if raw is not None:
            raise ProtocolFault(f"{self.name} has no result")
        return None
