"""What is called how: every class has a name of its own, and hides nothing that the module uses."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable
from typing import Final

from capwasm.engine.classes import class_name
from capwasm.errors import BuildError

__all__ = ["Names", "world_name"]

IMPORTED: Final = frozenset(
    {"AsyncCallee", "Binding", "Callee", "Err", "Function", "GuestResource", "Handle", "Iterable"}
    | {"Literal", "NewType", "Ok", "Protocol", "Result", "Sequence", "Some", "StrEnum"}
    | {"TypeAlias", "Variant"}
)
_RESERVED: Final = IMPORTED | frozenset(dir(builtins)) | frozenset(keyword.kwlist)
_CLASS: Final = re.compile(r"[A-Z][A-Za-z0-9]{0,63}")


class Names:
    """The names of a module's classes."""

    def __init__(self, members: Iterable[str]) -> None:
        """None yet; `members` are the names within classes, where they would hide a class."""
        self._taken = {*_RESERVED, *members}

    def take(self, *words: str) -> str:
        """The first of these WIT names that is free as a class, or the last with underscores."""
        return self.take_class(*map(class_name, words))

    def take_class(self, *names: str) -> str:
        """The first of these that is free, or the last with underscores: no WIT name ends so."""
        name = next((n for n in names if n not in self._taken), names[-1])
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name


def world_name(given: str | None, hint: str) -> str:
    """What the class for all of the plugin is called.

    Args:
        given: by whoever runs it.
        hint: where it comes from, if not given: `acme.rain-gauge` → `RainGauge`.

    Raises:
        BuildError: `build.project`: what was given can't be a class's name.
    """
    if given is not None:
        if not _CLASS.fullmatch(given) or given in _RESERVED:
            raise BuildError(
                f"{given[:80]!a} can't be the class's name: an upper-case letter, then letters and "
                "digits, and no name that the module needs itself",
                code="build.project",
            )
        return given
    words = [w for w in re.split(r"[^A-Za-z0-9]+", hint.rpartition(".")[2]) if w]
    name = "".join(w[:1].upper() + w[1:] for w in words)[:64]
    return name if _CLASS.fullmatch(name) and name not in _RESERVED else "World"
