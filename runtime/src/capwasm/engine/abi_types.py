"""The signatures of `abi.txt` as types: for who converts the values of our interfaces without a component.

The text is our own, and still read strictly: what `parse` takes, `abi.canonical` writes again as it was.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from . import types as t
from .abi import signature
from .lift import FORMATS

__all__ = ["function_type", "parse"]

_PRIMS: Final = frozenset({*FORMATS, "char", "string"})


@cache
def function_type(interface: str, name: str) -> t.FuncType | None:
    """The type of a function of ours, or None if the table has none."""
    text = signature(interface, name)
    return None if text is None else parse(text)


def parse(text: str) -> t.FuncType:
    """The type that `abi.canonical` wrote so.

    Raises:
        ValueError: it wrote no such thing.
    """
    return _Parser(text).function()


class _Parser:
    """Goes through the text once; the types nest as deep as ours do."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def function(self) -> t.FuncType:
        self._take("func(")
        params = self._pairs(")", ": ", "")
        self._take(" -> ")
        result = self._maybe()
        if self._at != len(self._text):
            raise self._wrong("the end")
        return t.FuncType(tuple((n, x) for n, x in params if x is not None), result)

    # -- types ----------------------------------------------------------------------------------

    def _maybe(self) -> t.ValType | None:
        return None if self._skip("_") else self._type()

    def _type(self) -> t.ValType:
        word = self._word(r"[a-z0-9]+")
        if word in _PRIMS:
            return t.Prim(word)
        match word:
            case "list" | "option":
                self._take("<")
                inner = self._type()
                self._take(">")
                return t.List(inner) if word == "list" else t.Option(inner)
            case "tuple":
                self._take("<")
                items = [self._type()]
                while self._skip(", "):
                    items.append(self._type())
                self._take(">")
                return t.Tuple(tuple(items))
            case "result":
                self._take("<")
                ok = self._maybe()
                self._take(", ")
                err = self._maybe()
                self._take(">")
                return t.Result(ok, err)
            case "record":
                self._take("{")
                fields = self._pairs("}", ": ", "")
                return t.Record(None, tuple((n, x) for n, x in fields if x is not None))
            case "variant":
                self._take("{")
                return t.Variant(None, tuple(self._pairs("}", "(", ")")))
            case "enum" | "flags":
                self._take("{")
                words = tuple(n for n, _ in self._pairs("}", None, ""))
                return t.Enum(None, words) if word == "enum" else t.Flags(None, words)
            case "own" | "borrow":
                self._take("<")
                interface, _, name = self._word(r"[a-z0-9:/.-]+").rpartition(".")
                self._take(">")
                resource = t.ResourceId(interface, name, imported=True)
                return t.Own(resource) if word == "own" else t.Borrow(resource)
        raise self._wrong("a type")

    def _pairs(
        self, end: str, between: str | None, after: str
    ) -> list[tuple[str, t.ValType | None]]:
        """Names up to `end`, each with a type between these texts, or without one."""
        pairs: list[tuple[str, t.ValType | None]] = []
        while not self._skip(end):
            if pairs:
                self._take(", ")
            name = self._word(r"[A-Za-z0-9-]+")
            type_ = None
            if between is not None:
                self._take(between)
                type_ = self._maybe() if after else self._type()
                self._take(after)
            pairs.append((name, type_))
        return pairs

    # -- text -----------------------------------------------------------------------------------

    def _word(self, pattern: str) -> str:
        found = re.compile(pattern).match(self._text, self._at)
        if found is None:
            raise self._wrong("a word")
        self._at = found.end()
        return found[0]

    def _skip(self, text: str) -> bool:
        here = self._text.startswith(text, self._at)
        self._at += len(text) if here else 0
        return here

    def _take(self, text: str) -> None:
        if not self._skip(text):
            raise self._wrong(repr(text))

    def _wrong(self, wanted: str) -> ValueError:
        return ValueError(f"expected {wanted} at {self._at} of {self._text[:200]!r}")
