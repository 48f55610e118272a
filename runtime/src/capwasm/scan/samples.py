"""The emptiest value of each type: what a function is called with to see what it does."""

from __future__ import annotations

from typing import Any, Final

from capwasm.engine import types as t
from capwasm.jsonvalues import from_json

__all__ = ["sample"]

_PRIMS: Final[dict[str, Any]] = {"bool": False, "string": "", "char": "a"}


def sample(type_: t.ValType) -> tuple[Any] | None:
    """A value of that type, alone in a tuple; None where it would need a handle."""
    try:
        return (from_json(type_, _document(type_)),)
    except _NeedsHandleError:
        return None


class _NeedsHandleError(Exception):
    pass


def _document(type_: t.ValType) -> Any:
    """As JSON, the way that the command line takes values."""
    match type_:
        case t.Prim(word):
            return _PRIMS.get(word, 0)
        case t.List():
            return []
        case t.Record(_, fields):
            return {name: _document(inner) for name, inner in fields}
        case t.Tuple(items):
            return [_document(inner) for inner in items]
        case t.Variant(_, cases):
            return _case(cases)
        case t.Result(ok, _):
            return _case((("ok", ok),))
        case t.Enum(_, names):
            return names[0]
        case t.Option():
            return None
        case t.Flags():
            return []
        case _:
            raise _NeedsHandleError


def _case(cases: tuple[tuple[str, t.ValType | None], ...]) -> Any:
    """The first case that needs no value, or else the first."""
    bare = next((name for name, inner in cases if inner is None), None)
    if bare is not None:
        return {bare: None}
    name, inner = cases[0]
    assert inner is not None
    return {name: _document(inner)}
