"""What all ways of crossing share about functions: names, refusals, faults, definitions."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Any

from capwasm.errors import CapError, CapwasmError, InternalError, LinkError
from capwasm.values import Err, Ok
from capwasm.values import Variant as VariantValue

from . import capi
from . import types as t
from .crossing import EngineFault
from .lift import Lift

__all__ = [
    "call_fault",
    "check_defined",
    "error_value",
    "failure_of",
    "has_handles",
    "hint_of",
    "lift_all",
    "miscounted",
    "returned",
]


def hint_of(name: str) -> str:
    """A kebab word for classes that nothing else names: `[method]file.read` → `file-read`."""
    return name.rpartition("]")[2].replace(".", "-")


def has_handles(type_: t.ValType | None) -> bool:
    """Whether a value of the type can hold a handle."""
    if type_ is None:
        return False
    return isinstance(type_, t.Own | t.Borrow) or any(map(has_handles, t.children(type_)))


def error_value(result: t.ValType | None, refusal: CapError) -> Err[Any]:
    """The `err` case that tells the guest of `refusal`: its word, else `denied`, else `unavailable`.

    Raises:
        CapError: `refusal` itself: the function has no way to tell.
    """
    if isinstance(result, t.Result):
        for word in (refusal.word, "denied", "unavailable"):
            match result.err:
                case t.Enum(_, cases) if word in cases:
                    return Err(word)
                case t.Variant(_, named) if (word, None) in named:
                    return Err(VariantValue(word))
                case _:
                    pass
    raise refusal


def failure_of(error: BaseException) -> BaseException:
    """What ends the call in which a host function raised `error`."""
    if isinstance(error, CapError):
        # The guest has no case for it: to go on would be to guess.
        failure: BaseException = InternalError(
            f"a host function refused with {error.word!r}, which its type can't say"
        )
    elif isinstance(error, CapwasmError) or not isinstance(error, Exception):
        return error
    else:
        failure = InternalError(f"a host function failed: {type(error).__name__}")
    failure.__cause__ = error
    return failure


def returned(name: str, result: t.ValType | None, value: Any) -> Any:
    """What a host function returned, as a value of its result type.

    Raises:
        InternalError: it returned a value and has no result.
    """
    if result is None:
        if value is not None:
            raise InternalError(f"{name} returned a value and has no result")
        return None
    if isinstance(result, t.Result) and not isinstance(value, Ok | Err):
        return Ok(value)
    return value


def lift_all(lifts: Iterable[tuple[Lift, int]], raw: Any, frame: Any) -> tuple[Any, ...]:
    """All the values; a dead handle is told of when the engine has let go of all of them.

    Raises:
        CapError: the first handle that was dead.
    """
    values: list[Any] = []
    refused: CapError | None = None
    for lift, off in lifts:
        try:
            values.append(lift(raw, off, frame))
        except CapError as exc:
            refused = refused or exc
    if refused is not None:
        raise refused
    return tuple(values)


def miscounted(type_: t.FuncType, name: str, got: int) -> TypeError:
    """The fault of a call with too many or too few arguments."""
    count = len(type_.params)
    return TypeError(
        f"{type_.signature(name)} takes {count} argument{'s' * (count != 1)}, got {got}"
    )


def call_fault(error: int) -> EngineFault:
    """What the engine said, as far as there is room left on the stack to ask."""
    try:
        cause = capi.take_error(error)
        fault = EngineFault(str(cause))
    except (RecursionError, ctypes.ArgumentError):
        return EngineFault("")
    fault.__cause__ = cause
    return fault


def check_defined(error: int | None, name: str) -> None:
    """Pass if the linker took a definition.

    Raises:
        LinkError: it did not.
    """
    if error:
        raise LinkError(f"{name}: {capi.take_error(error)}", code="link.instantiate")
