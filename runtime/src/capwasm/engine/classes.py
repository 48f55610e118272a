"""Python classes for the named types of a component: dataclasses, `StrEnum`s.

The names come from an untrusted component.  The engine has checked that they are kebab words; they
are checked again where a class is made of them.
"""

from __future__ import annotations

import dataclasses
import keyword
import re
import threading
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from .types import Enum, Flags, Record, ValType

__all__ = ["Classes", "class_name", "draft_of", "enum_name", "field_name"]

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]*(-[A-Za-z0-9]+)*")


def field_name(word: str) -> str:
    """The attribute for a WIT field: `max-size` → `max_size`, `class` → `class_`.

    Raises:
        ValueError: not a kebab word.
    """
    if not _WORD.fullmatch(word):
        raise ValueError(f"not a WIT name: {word[:60]!r}")
    name = word.replace("-", "_")
    return f"{name}_" if keyword.iskeyword(name) else name


def enum_name(word: str) -> str:
    """The member for a word of an enum or of flags: `dark-blue` → `DARK_BLUE`.

    Raises:
        ValueError: not a kebab word.
    """
    return field_name(word).rstrip("_").upper()


def class_name(word: str) -> str:
    """The class for a WIT type: `max-size` → `MaxSize`.

    Raises:
        ValueError: not a kebab word.
    """
    if not _WORD.fullmatch(word):
        raise ValueError(f"not a WIT name: {word[:60]!r}")
    return "".join(part[:1].upper() + part[1:] for part in word.split("-"))


def draft_of(final: type[Any]) -> type[Any]:
    """A twin of a frozen dataclass with slots that is not frozen, to make its instances fast.

    A frozen dataclass sets each field through a call; this one sets them at once.  Who makes an
    instance of it sets its `__class__` to the other before anybody else sees it.
    """
    fields = [(f.name, Any) for f in dataclasses.fields(final)]
    return dataclasses.make_dataclass(final.__name__, fields, slots=True, eq=False)


class Classes:
    """The classes of one component, one a type.  Safe from threads."""

    def __init__(self) -> None:
        """Begin with none."""
        self._made: dict[ValType, type[Any]] = {}
        self._drafts: dict[ValType, type[Any]] = {}
        self._lock = threading.Lock()

    def record(self, type_: Record, hint: str) -> type[Any]:
        """A frozen dataclass with the record's fields; `hint` names it if the interface doesn't."""

        def make() -> type[Any]:
            fields = [(field_name(n), Any) for n, _ in type_.fields]
            name = class_name(type_.name or hint)
            made = dataclasses.make_dataclass(name, fields, frozen=True, slots=True)
            made.__doc__ = f"WIT: `{Record(None, type_.fields)}`."
            return made

        return self._once(type_, make)

    def draft(self, type_: Record, hint: str) -> type[Any]:
        """The `draft_of` the record's class."""
        final = self.record(type_, hint)

        return self._once(type_, lambda: draft_of(final), self._drafts)

    def words(self, type_: Enum | Flags, hint: str) -> dict[str, StrEnum]:
        """Word to member of the `StrEnum` for an enum or flags type; members are UPPER_CASE."""

        def make() -> type[Any]:
            names = type_.cases if isinstance(type_, Enum) else type_.names
            members = [(enum_name(n), n) for n in names]
            enum: Any = StrEnum
            made: type[Any] = enum(class_name(type_.name or hint), members)
            made.__doc__ = f"WIT: `{type_}`."
            return made

        return {member.value: member for member in self._once(type_, make)}

    def _once(
        self,
        type_: ValType,
        make: Callable[[], type[Any]],
        known: dict[ValType, type[Any]] | None = None,
    ) -> type[Any]:
        known = self._made if known is None else known
        with self._lock:
            made = known.get(type_)
            if made is None:
                made = known[type_] = make()
            return made
