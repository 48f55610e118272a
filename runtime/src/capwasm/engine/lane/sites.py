"""Where a plugin's core code meets its component: what has to be known to go beside the engine's copying.

An export is a core function that the component lifts, with a memory, a `realloc` and a
`post-return`.  An import that takes or gives a list is called through a table, since the function
that the component lowers needs the memory of a module that was made before: `wit-component`, by which
all toolchains make components, fills that table in its last step, and whoever comes later can fill it
anew.  What is found in another shape stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from capwasm.engine import types as t

from .binary import OddBinary
from .choose import Chosen, Function
from .spaces import (
    CORE_FUNC,
    CORE_INSTANCE,
    CORE_TABLE,
    FUNC,
    INSTANCE,
    Alias,
    Canon,
    Imported,
    Inline,
    Instantiated,
    Spaces,
    read_spaces,
)

__all__ = ["Site", "Slot", "sites_of", "slots_of"]

_TABLE = "$imports"
_PLACE = re.compile("0|[1-9][0-9]{0,8}")
_ARGUMENT = "import-func-"


@dataclass(frozen=True, slots=True)
class Site:
    """An exported function as the component lifts it.

    Attributes:
        function: which.
        core: the number of its core function.
        memory, realloc, post_return: the numbers of what it is lifted with.
    """

    function: Function
    core: int
    memory: int
    realloc: int | None
    post_return: int | None


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in a table where an imported function is called.

    Attributes:
        function: which.
        table, place: the number of the table, and the place in it.
        memory, realloc: the numbers of what it is lowered with.
    """

    function: Function
    table: int
    place: int
    memory: int
    realloc: int | None


def has_pointers(type_: t.ValType | None) -> bool:
    """Whether a value of the type points to more than itself."""
    if type_ is None:
        return False
    if isinstance(type_, t.List) or type_ == t.Prim("string"):
        return True
    return any(map(has_pointers, t.children(type_)))


def sites_of(spaces: Spaces, chosen: Chosen) -> Iterator[Site]:
    """The chosen exports that are lifted in the component itself."""
    for function in chosen.exports:
        canon = _lifted(spaces, function)
        if canon is None or not canon.utf8 or canon.memory is None:
            continue
        if canon.realloc is None and any(has_pointers(x) for _, x in function.type.params):
            continue
        yield Site(function, canon.of, canon.memory, canon.realloc, canon.post_return)


def _lifted(spaces: Spaces, function: Function) -> Canon | None:
    """How the component lifts that export, if it does."""
    sort, index = spaces.exports.get(function.interface or function.name, (None, 0))
    if not function.interface:
        return _canon(spaces, index) if sort == FUNC else None
    instance = spaces.get(INSTANCE, index) if sort == INSTANCE else None
    if isinstance(instance, Inline):
        sort, index = instance.items.get(function.name, (None, 0))
    elif isinstance(instance, Instantiated):
        argument = _through(spaces, instance, function.name)
        sort, index = instance.args.get(argument or "", (None, 0))
    else:
        return None
    return _canon(spaces, index) if sort == FUNC else None


def _canon(spaces: Spaces, index: int) -> Canon | None:
    found = spaces.get(FUNC, index)
    return found if isinstance(found, Canon) else None


def _through(spaces: Spaces, instance: Instantiated, name: str) -> str | None:
    """The argument that a component gives back as its export `name`.

    Toolchains put such a component around an exported interface, to give its types their names.
    """
    inner = read_component(spaces, instance.of)
    sort, index = inner.exports.get(name, (None, 0)) if inner is not None else (None, 0)
    if inner is None or sort != FUNC:
        return None
    found = inner.get(FUNC, index)
    return found.name if isinstance(found, Imported) else None


def read_component(spaces: Spaces, index: int) -> Spaces | None:
    """The index spaces of a nested component, or None if it is none that is known here."""
    components = spaces.components()
    if index >= len(components) or components[index] is None:
        return None
    found: Any = components[index]
    if not isinstance(found, Spaces):
        # Read once, whatever comes of it: thousands of functions may lead here.
        components[index] = None
        try:
            found = components[index] = read_spaces(found, spaces.entries)
        except OddBinary:
            return None
    return found  # type: ignore[no-any-return]


def slots_of(spaces: Spaces, chosen: Chosen) -> Iterator[Slot]:
    """The places of the chosen imports in the table that `wit-component` fills."""
    wanted = {(f.interface, f.name): f for f in chosen.imports}
    for instance in spaces.of_core(CORE_INSTANCE):
        if not isinstance(instance, Inline):
            continue
        sort, table = instance.items.get(_TABLE, (None, 0))
        if sort != CORE_TABLE:
            continue
        for name, (kind, index) in instance.items.items():
            canon = spaces.get_core(CORE_FUNC, index) if kind == CORE_FUNC else None
            if not _PLACE.fullmatch(name) or not isinstance(canon, Canon):
                continue
            function = wanted.get(_imported(spaces, canon.of))
            if function is None or not canon.utf8 or canon.memory is None:
                continue
            if canon.realloc is None and has_pointers(function.type.result):
                continue
            yield Slot(function, table, int(name), canon.memory, canon.realloc)


def _imported(spaces: Spaces, index: int) -> tuple[str, str]:
    """The interface and the name of an imported function; "" for what is none."""
    alias = spaces.get(FUNC, index)
    if isinstance(alias, Alias):
        instance = spaces.get(INSTANCE, alias.instance)
        if isinstance(instance, Imported):
            return instance.name, alias.name
    return "", ""
