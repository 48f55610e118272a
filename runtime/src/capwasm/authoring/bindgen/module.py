"""The module's text: classes, a Protocol an interface, the table of functions, `bind` and `abind`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from capwasm.engine import types as t
from capwasm.engine.abi import canonical
from capwasm.engine.classes import enum_name, field_name
from capwasm.engine.exports import Export
from capwasm.engine.witdoc import wit_docs

from .names import world_name
from .plan import Named, Place, Plan
from .source import Source
from .text import alias, call, docstring, imports, literal, names_list, nested, signature

__all__ = ["generate"]

_IN: Final = "    "
# A case that has a value must be given one; the class that it narrows has a default.
_NO_DEFAULT: Final = "  # pyright: ignore[reportGeneralTypeIssues]"


def generate(source: Source, name: str | None = None) -> str:
    """The module for that component; the same for the same component.

    Args:
        source: the component.
        name: of the class for all of it; made of its title, if not given.

    Raises:
        BuildError: `build.project`: the name can't be a class's.
    """
    return _Module(source, world_name(name, source.title)).text()


class _Module:
    def __init__(self, source: Source, world: str) -> None:
        self.source = source
        self.docs = wit_docs(source.wit)
        self.plan = Plan(source.types, world)

    def text(self) -> str:
        blocks = [*self._resources(), *self._types(), *self._protocols(), *self._door()]
        plan = self.plan
        names = [plan.world, plan.async_world, "bind", "abind", *plan.classes.values()]
        names += [*plan.resources.values(), *(c for cases in plan.cases.values() for c in cases)]
        names += [n for p in plan.places if p.attribute for n in (p.name, p.async_name)]
        head = [
            *docstring(
                f"Typed functions of `{self.source.title}`.\n\n"
                "Written by `capwasm bindgen`, and to be written again when the plugin changes.",
                "",
            ),
            "",
            "# ruff: noqa: E501",
            "",
            "from __future__ import annotations",
            "",
            *(["import builtins as _builtins"] if plan.builtins else []),
        ]
        standard = sorted(m for m in plan.used if not m.startswith("capwasm"))
        for module in standard:
            head += imports(module, plan.used[module])
        head += [""] * bool(standard or plan.builtins)
        for module in sorted(m for m in plan.used if m.startswith("capwasm")):
            head += imports(module, plan.used[module])
        head += ["", *names_list("__all__", names)]
        return "\n".join(["\n\n\n".join("\n".join(b) for b in [head, *blocks]), ""])

    # -- docs ---------------------------------------------------------------------------------

    def _doc(self, *path: str, instead: str = "", indent: str = _IN) -> list[str]:
        text = self.docs.get(path) or instead
        return docstring(text, indent) if text else []

    def _type_doc(self, type_: Named, *inner: str) -> list[str]:
        where, name = self.plan.homes[type_], type_.name or ""
        instead = (
            "" if inner else f"`{name or self.plan.classes[type_]}` of `{where or 'the world'}`."
        )
        return self._doc(where, name, *inner, instead=instead)

    # -- types --------------------------------------------------------------------------------

    def _resources(self) -> Iterator[list[str]]:
        lines: list[str] = []
        for resource, name in self.plan.resources.items():
            base = self.plan.use("GuestResource")
            lines.append(f"{name} = {self.plan.use('NewType')}({literal(name)}, {base})")
            where = self.plan.homes[resource]
            lines += self._doc(
                where, resource.name, instead=f"`{resource.name}` of `{where}`.", indent=""
            )
        if lines:
            yield lines

    def _types(self) -> Iterator[list[str]]:
        for type_, name in self.plan.classes.items():
            match type_:
                case t.Record():
                    yield self._record(type_, name)
                case t.Variant():
                    yield from self._variant(type_, name)
                case t.Enum(_, words) | t.Flags(_, words):
                    yield self._words(type_, name, words)

    def _dataclass(self, head: str) -> list[str]:
        return [f"@{self.plan.use('dataclass')}(frozen=True, slots=True)", f"class {head}:"]

    def _record(self, type_: t.Record, name: str) -> list[str]:
        hidden = {field_name(n) for n, _ in type_.fields}
        lines = [*self._dataclass(name), *self._type_doc(type_), ""]
        for word, inner in type_.fields:
            lines.append(f"{_IN}{field_name(word)}: {self.plan.annotation(inner, hidden)}")
            lines += self._type_doc(type_, word)
        return lines

    def _words(self, type_: t.Enum | t.Flags, name: str, words: Sequence[str]) -> list[str]:
        lines = [f"class {name}({self.plan.use('StrEnum')}):", *self._type_doc(type_), ""]
        for word in words:
            lines += [f"{_IN}{enum_name(word)} = {literal(word)}", *self._type_doc(type_, word)]
        return lines

    def _variant(self, type_: t.Variant, name: str) -> Iterator[list[str]]:
        plan = self.plan
        classes = plan.cases[type_]
        for case, (word, payload) in zip(classes, type_.cases, strict=True):
            doc = self._type_doc(type_, word) or docstring(f"The case `{word}` of `{name}`.")
            tag = f"{plan.use('Literal')}[{literal(word)}]"
            preset = f"{plan.use('field')}(default={{}}, init=False, repr=False)"
            value = plan.annotation(payload)
            yield [
                *self._dataclass(f"{case}({plan.use('Variant')})"),
                *doc,
                "",
                *_preset(f"case: {tag}", preset, literal(word)),
                f"{_IN}value: {value}{_NO_DEFAULT}"
                if payload
                else f"{_IN}value: None = {preset.format('None')}",
            ]
        plan.use("TypeAlias")
        where = plan.homes[type_]
        yield [
            *alias(name, classes),
            *self._doc(where, type_.name or "", instead=f"Any case of `{name}`.", indent=""),
        ]

    # -- functions ----------------------------------------------------------------------------

    def _protocols(self) -> Iterator[list[str]]:
        for waits in (False, True):
            for place in self.plan.places:
                yield self._protocol(place, waits=waits)

    def _protocol(self, place: Place, *, waits: bool) -> list[str]:
        plan, world = self.plan, not place.attribute
        instead = f"The functions of `{self.source.title if world else place.interface}`."
        name = place.async_name if waits else place.name
        lines = [
            f"class {name}({plan.use('Protocol')}):",
            *(docstring(instead) if world else self._doc(place.interface, instead=instead)),
        ]
        others = [p for p in plan.places if p.attribute] if world else []
        hidden = {*place.functions, *(p.attribute for p in others)}
        for other in others:
            annotation = other.async_name if waits else other.name
            lines += [
                "",
                f"{_IN}@{plan.builtin('property', hidden)}",
                f"{_IN}def {other.attribute}(self) -> {annotation}:",
                *docstring(f"The functions of `{other.interface}`.", _IN * 2),
                f"{_IN * 2}...",
            ]
        for attribute, export in place.functions.items():
            lines += ["", *self._method(attribute, export, hidden, waits=waits)]
        return lines

    def _method(self, name: str, export: Export, hidden: set[str], *, waits: bool) -> list[str]:
        params = [
            f"{_param(n)}: {self.plan.annotation(x, hidden, given=True)}"
            for n, x in export.type.params
        ]
        doc = self._doc(export.interface, *export.path, indent=_IN * 2)
        head = f"{'async ' * waits}def {name}"
        result = self.plan.annotation(export.type.result, hidden)
        lines = signature(head, params, result, _IN, "" if doc else " ...")
        # Without it, a type checker takes a body of docs alone for one that returns None.
        return [*lines, *doc, f"{_IN * 2}..."] if doc else lines

    # -- bind ---------------------------------------------------------------------------------

    def _door(self) -> Iterator[list[str]]:
        plan = self.plan
        functions = [self._function(p, n, e) for p in plan.places for n, e in p.functions.items()]
        if functions:
            inner = [line for function in functions for line in function]
            yield [f"_BINDING = {plan.use('Binding')}(", *inner, ")"]
        else:
            yield [f"_BINDING = {plan.use('Binding')}()"]
        yield _binder("bind", plan.world, plan.use("Callee"), "call those of a plugin or a session")
        yield _binder(
            "abind",
            plan.async_world,
            plan.use("AsyncCallee"),
            "call those of a plugin from asyncio",
        )

    def _function(self, place: Place, name: str, export: Export) -> list[str]:
        classes = tuple(self.plan.made(export.type.result))
        items = [
            literal(place.attribute),
            f"{place.name}.{name}",
            literal(export.whole),
            literal(canonical(export.type)),
            *([nested(classes, _IN * 2)] if classes else []),
        ]
        lines = call(self.plan.use("Function"), items, _IN)
        return [*lines[:-1], f"{lines[-1]},"]


def _param(word: str) -> str:
    name = field_name(word)
    return "self_" if name == "self" else name


def _preset(head: str, preset: str, value: str) -> list[str]:
    line = f"{_IN}{head} = {preset.format(value)}"
    if len(line) <= 88:
        return [line]
    name, _, inner = preset.partition("(")
    return [f"{_IN}{head} = {name}(", f"{_IN * 2}{inner[:-1].format(value)}", f"{_IN})"]


def _binder(name: str, world: str, callee: str, what: str) -> list[str]:
    return [
        f"def {name}(plugin: {callee}) -> {world}:",
        f'{_IN}"""The functions, to {what}.',
        "",
        f"{_IN}Raises:",
        f"{_IN * 2}LinkError: `link.binding`: it exports other functions than these.",
        f'{_IN}"""',
        f"{_IN}bound: {world} = _BINDING.{name}(plugin)",
        f"{_IN}return bound",
    ]
