"""Which class serves which of the world's interfaces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

__all__ = ["SetupError", "find", "plugin"]

T = TypeVar("T")

# interface, or "" for all that no other class names → the class.
_classes: dict[str, type[Any]] = {}


class SetupError(Exception):
    """The author's module doesn't fit its world; the message says what to change."""


@overload
def plugin(cls: type[T], /) -> type[T]: ...
@overload
def plugin(*, interface: str) -> Callable[[type[T]], type[T]]: ...
def plugin(cls: type[Any] | None = None, /, *, interface: str = "") -> Any:
    """Say that a class is the plugin: its methods are the functions that the world exports.

    It is made without arguments at the first call, so `__init__` may use capabilities.  With
    `interface="…"` (its name in WIT) it serves just that one, and other classes serve the others.

    Raises:
        SetupError: another class has that place already.
    """

    def take(taken: type[T]) -> type[T]:
        other = _classes.setdefault(interface, taken)
        if other is not taken:
            what = f"interface {interface!r}" if interface else "all interfaces"
            raise SetupError(
                f"{taken.__name__} and {other.__name__} are both @plugin for {what}: "
                'give each its own, as in @plugin(interface="api")'
            )
        return taken

    return take if cls is None else take(cls)


def find(interface: str) -> type[Any] | None:
    """The class for an interface, by its WIT name."""
    return _classes.get(interface) or _classes.get("")
