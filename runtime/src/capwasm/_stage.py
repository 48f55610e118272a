"""The right to make a stage's result is itself a right: only the stage's own module has it."""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

__all__ = ["Proof", "StageOnly"]

T = TypeVar("T")


class StageOnly(type):
    """Makes `Class(...)` a `TypeError`; the class's own module calls `Class.made(...)`.

    `tests/house` checks that no other module calls it.
    """

    def __call__(cls, *_args: object, **_kwargs: object) -> NoReturn:
        """Refuse: whoever holds an instance must have been through the stage."""
        raise TypeError(f"{cls.__name__} is made by its own stage alone, never directly")

    def made(cls: type[T], *args: Any, **kwargs: Any) -> T:
        """The one way round `__call__`, for the module that defines the class."""
        return type.__call__(cls, *args, **kwargs)  # type: ignore[no-any-return]


class Proof(metaclass=StageOnly):
    """Base of a result that proves something: neither called into being, nor unpickled."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse: bytes of a pickle prove nothing."""
        raise TypeError(f"{type(self).__name__} can't be pickled or copied")
