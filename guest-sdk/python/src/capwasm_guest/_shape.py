"""Plain values to the types of the generated bindings, as WIT has them.

A plugin returns what is at hand: a dataclass of its own, a dict, a set of words.  What does not fit
is told by its place in the value and by what WIT wants there; the bindings themselves would end the
call with much less.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Hashable, Iterable, Mapping
from functools import cache
from typing import Any, cast

__all__ = ["convert"]


def convert(value: Any, hint: Any, where: str) -> Any:
    """`value` as the type that an annotation of the bindings names.

    Args:
        value: what the plugin gave.
        hint: a resolved annotation.
        where: what errors call the value, such as `forecast() → .city`.

    Raises:
        TypeError: it does not fit.
    """
    if hint is Any:
        return value
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _union(value, typing.get_args(hint), where)
    if origin is list:
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            raise _misfit(value, "a list", where)
        (item,) = typing.get_args(hint) or (Any,)
        return [convert(v, item, f"{where}[{i}]") for i, v in enumerate(value)]
    if origin is tuple:
        items = typing.get_args(hint)
        if isinstance(value, str | bytes) or not isinstance(value, tuple | list):
            raise _misfit(value, f"a tuple of {len(items)}", where)
        if len(value) != len(items):
            raise _misfit(value, f"a tuple of {len(items)}", where)
        return tuple(
            convert(v, item, f"{where}[{i}]")
            for i, (v, item) in enumerate(zip(value, items, strict=True))
        )
    if isinstance(hint, type):
        return _simple(value, hint, where)
    return value


def _simple(value: Any, hint: type[Any], where: str) -> Any:
    if hint is type(None):
        if value is not None:
            raise _misfit(value, "nothing (None)", where)
        return None
    if hint is float and type(value) is int:
        return float(value)
    if hint is bytes and isinstance(value, bytearray | memoryview):
        return bytes(value)
    if hint in (str, int, float, bool, bytes):
        # A bool is an int to Python, and not to WIT.
        if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
            raise _misfit(value, hint.__name__, where)
        return value
    if isinstance(value, hint):
        return value
    if issubclass(hint, enum.Flag):
        return _flags(value, hint, where)
    if issubclass(hint, enum.Enum):
        return _member(value, hint, where)
    if dataclasses.is_dataclass(hint):
        return _record(value, hint, where)
    return value


def _union(value: Any, choices: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in choices:
        return None
    some = [c for c in choices if c is not type(None)]
    for choice in some:
        kind = typing.get_origin(choice) or choice
        if isinstance(kind, type) and isinstance(value, kind):
            return value if typing.get_origin(choice) else convert(value, choice, where)
    if len(some) == 1:
        return convert(value, some[0], where)
    raise _misfit(value, "one of " + ", ".join(_name(c) for c in some), where)


def _member(value: Any, hint: type[enum.Enum], where: str) -> enum.Enum:
    """By its word in WIT, also as the value or the name of an enum of the plugin's own."""
    words = {_word(m.name): m for m in hint}
    given = [value.value, value.name] if isinstance(value, enum.Enum) else [value]
    for word in given:
        if isinstance(word, str) and _word(word) in words:
            return words[_word(word)]
    raise _misfit(value, "one of " + ", ".join(words), where)


def _flags(value: Any, hint: type[enum.Flag], where: str) -> enum.Flag:
    words = {_word(m.name or ""): m for m in hint}
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise _misfit(value, "a set of " + ", ".join(words), where)
    total = hint(0)
    for word in value:
        if not isinstance(word, str) or _word(word) not in words:
            raise _misfit(word, "some of " + ", ".join(words), where)
        total |= words[_word(word)]
    return total


def _record(value: Any, hint: type[Any], where: str) -> Any:
    hints = _hints(cast("Hashable", hint))
    names = [f.name for f in dataclasses.fields(hint)]
    given: dict[str, Any] = {}
    for name in names:
        try:
            given[name] = value[name] if isinstance(value, Mapping) else getattr(value, name)
        except (KeyError, AttributeError):
            wanted = f"{hint.__name__}({', '.join(names)})"
            raise _misfit(value, f"{wanted}; it has no {name}", where) from None
    return hint(**{n: convert(v, hints[n], f"{where}.{n}") for n, v in given.items()})


@cache
def _hints(hint: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(hint)


def _word(name: str) -> str:
    return name.lower().replace("_", "-")


def _name(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint))


def _misfit(value: Any, wanted: str, where: str) -> TypeError:
    shown = "None" if value is None else f"{type(value).__name__} {value!r:.60}"
    return TypeError(f"{where}: WIT wants {wanted}, got {shown}")
