"""What both ways of crossing share about host functions: names, refusals, definitions."""

from __future__ import annotations

from typing import Any

from capwasm.errors import CapError, LinkError
from capwasm.values import Err
from capwasm.values import Variant as VariantValue

from . import capi
from . import types as t

__all__ = ["check_defined", "error_value", "has_handles", "hint_of"]


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


def check_defined(error: int | None, name: str) -> None:
    """Pass if the linker took a definition.

    Raises:
        LinkError: it did not.
    """
    if error:
        raise LinkError(f"{name}: {capi.take_error(error)}", code="link.instantiate")
