"""The types of an imported interface, as WebAssembly text.

They come from `walk`, which has read a component that the engine took; still every name in them is
the component's own choice.  One that is not made of the few characters that WIT names are made of is
refused: nothing is ever escaped.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import NoReturn

from capwasm.engine import types as t

__all__ = ["OddTypes", "Scope", "Spelling", "name_in_text"]

# Names of interfaces, functions, fields and cases, with `[method]a.b` and `@1.0.0-rc.1+7`.
_NAME = re.compile(r"[][A-Za-z0-9:/@.+-]{1,512}", re.ASCII)


class OddTypes(Exception):
    """Types that no WIT file gives; the component is run as it is, without the lane."""


def name_in_text(name: str) -> str:
    """The name in quotation marks.

    Raises:
        OddTypes: it holds a character that no WIT name has.
    """
    if _NAME.fullmatch(name) is None:
        raise OddTypes("a name that is not a WIT name")
    return f'"{name}"'


class Spelling:
    """How types are spelled where some have names already; structure alone decides which."""

    def __init__(
        self,
        handle: Callable[[t.ResourceId], str],
        unnamed: Callable[[t.ValType, str], str],
    ) -> None:
        """Begin without names.

        Args:
            handle: the identifier of a resource.
            unnamed: for a record, variant, enum or flags that has no name here, and how it is spelled
                out: the identifier to use from now on.
        """
        self._handle = handle
        self._unnamed = unnamed
        self._named: dict[str, str] = {}

    def name(self, type_: t.ValType, identifier: str) -> str:
        """From now on `identifier` stands for types of that structure; returns it spelled out."""
        text = self._structure(type_)
        self._named.setdefault(text, identifier)
        return text

    def __call__(self, type_: t.ValType) -> str:
        """The type as it is written where it is used."""
        text = self._structure(type_)
        if isinstance(type_, t.Record | t.Variant | t.Enum | t.Flags):
            if text not in self._named:
                self._named[text] = self._unnamed(type_, text)
            return self._named[text]
        return text

    def function(self, type_: t.FuncType) -> str:
        """`(func (param "a" u32) (result string))`."""
        params = [f" (param {name_in_text(n)} {self(x)})" for n, x in type_.params]
        result = "" if type_.result is None else f" (result {self(type_.result)})"
        return f"(func{''.join(params)}{result})"

    def _structure(self, type_: t.ValType) -> str:
        match type_:
            case t.Prim(word):
                return word
            case t.List(element):
                return f"(list {self(element)})"
            case t.Option(payload):
                return f"(option {self(payload)})"
            case t.Tuple(items):
                return f"(tuple {' '.join(map(self, items))})"
            case t.Result(ok, err):
                good = "" if ok is None else f" {self(ok)}"
                return f"(result{good}{'' if err is None else f' (error {self(err)})'})"
            case t.Record(_, fields):
                inside = [f" (field {name_in_text(n)} {self(x)})" for n, x in fields]
                return f"(record{''.join(inside)})"
            case t.Variant(_, cases):
                inside = [
                    f" (case {name_in_text(n)}{'' if x is None else f' {self(x)}'})"
                    for n, x in cases
                ]
                return f"(variant{''.join(inside)})"
            case t.Enum(_, words):
                return f"(enum{''.join(f' {name_in_text(w)}' for w in words)})"
            case t.Flags(_, words):
                return f"(flags{''.join(f' {name_in_text(w)}' for w in words)})"
            case t.Own(resource):
                return f"(own {self._handle(resource)})"
            case t.Borrow(resource):
                return f"(borrow {self._handle(resource)})"
        raise TypeError(type_)


# Spelled out to the last part, whatever has a name: what two types of one structure have in common.
_whole = Spelling(lambda r: f"{r.interface} {r.name} {r.imported}", lambda _type, text: text)


class Scope:
    """The text of one component, with the resources and types that its imports bring in."""

    def __init__(self, identifier: str) -> None:
        """Begin; `identifier` is how what is within refers to the component."""
        self.lines = [f"(component {identifier}"]
        self._identifier = identifier
        self._resources: dict[t.ResourceId, str] = {}
        self._types: dict[str, tuple[str, str]] = {}
        self._aliases: dict[str, str] = {}

    def add(self, *lines: str) -> None:
        """Write lines."""
        self.lines += lines

    def resource(self, resource: t.ResourceId) -> str:
        """The identifier of a resource.

        Raises:
            OddTypes: no interface that was imported so far defines it.
        """
        if resource not in self._resources:
            raise OddTypes("a resource that is used before it is imported")
        return self._resources[resource]

    def type_(self, type_: t.ValType, _text: str = "") -> str:
        """The identifier of a type of that structure.

        Raises:
            OddTypes: no interface that was imported so far names one.
        """
        key = _whole(type_)
        if key not in self._types:
            raise OddTypes("a type that no interface names")
        if key not in self._aliases:
            instance, name = self._types[key]
            self._aliases[key] = f"$alias{len(self._aliases)}"
            self.add(f"(alias export {instance} {name} (type {self._aliases[key]}))")
        return self._aliases[key]

    def spelling(self) -> Spelling:
        """How types are spelled within the component itself."""
        return Spelling(self.resource, self.type_)

    def know(self, interface: t.InterfaceType, instance: str) -> None:
        """From now on, `instance` provides the resources and types of that interface."""
        for j, (name, resource) in enumerate(interface.resources):
            if resource not in self._resources:
                self._resources[resource] = f"{instance}-r{j}"
                self.add(f"(alias export {instance} {name_in_text(name)} (type {instance}-r{j}))")
        for name, type_ in interface.types:
            self._types.setdefault(_whole(type_), (instance, name_in_text(name)))

    def import_interface(
        self, interface: t.InterfaceType, instance: str, *, functions: bool = True
    ) -> None:
        """Import an interface exactly as the plugin does, or its types alone."""
        known: dict[t.ResourceId, str] = {}
        lines = []
        for j, (name, resource) in enumerate(interface.resources):
            bound = "(sub resource)"
            if resource in known:
                bound = f"(eq {known[resource]})"
            elif (resource.interface, resource.name) != (interface.name, name):
                lines.append(self._outer(self.resource(resource), f"$o{j}"))
                bound = f"(eq $o{j})"
            known.setdefault(resource, f"$r{j}")
            lines.append(f"  (export {name_in_text(name)} (type $r{j} {bound}))")
        count = itertools.count()

        def unnamed(type_: t.ValType, _text: str) -> str:
            # Used by a type that another interface names: as there.
            identifier = f"$u{next(count)}"
            lines.append(self._outer(self.type_(type_), identifier))
            return identifier

        spell = Spelling(lambda r: known.get(r) or self._missing(), unnamed)
        for j, (name, type_) in enumerate(interface.types):
            text = spell.name(type_, f"$t{j}")
            lines.append(f"  (type $s{j} {text})")
            lines.append(f"  (export {name_in_text(name)} (type $t{j} (eq $s{j})))")
        for name, func in interface.functions if functions else ():
            text = spell.function(func)
            lines.append(f"  (export {name_in_text(name)} {text})")
        self.add(f"(import {name_in_text(interface.name)} (instance {instance}", *lines, "))")
        self.know(interface, instance)

    def _outer(self, source: str, identifier: str) -> str:
        return f"  (alias outer {self._identifier} {source} (type {identifier}))"

    @staticmethod
    def _missing() -> NoReturn:
        raise OddTypes("a handle of a resource that its interface does not name")
