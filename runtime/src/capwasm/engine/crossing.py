"""What a conversion needs to know of the instance, and the objects that cross with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from capwasm.errors import ValueLimitExceeded
from capwasm.handles import Handle, HandleTable

from .types import ResourceId

__all__ = [
    "BadValue",
    "Boundary",
    "Budget",
    "EngineFault",
    "GuestResource",
    "HostKind",
    "over_limit",
    "short",
]


class EngineFault(Exception):
    """A call into a component failed, in the engine's words; the message can be empty.

    Never leaves the engine package: `instance.py` finds out from the call's own record what it
    means.

    A second argument is what came in between at the call's very end, and is to be raised in its place.
    That is where a signal's handler runs, or another thread's exception arrives.  How the call ended is
    not known then, so it counts as failed.
    """

    @property
    def torn(self) -> BaseException | None:
        """The second argument.  There is no `__init__`: there may be no room for one more call."""
        return self.args[1] if len(self.args) > 1 else None

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class HostKind:
    """The host's side of an imported resource.

    Attributes:
        type_id: the number given to `ResourceType.host`; a different one for each kind (TYP-09).
        handle: the class that stands for it.
    """

    type_id: int
    handle: type[Handle]


@dataclass(frozen=True, slots=True, eq=False)
class Boundary:
    """One instance as conversions see it; its identity is the instance's.

    Attributes:
        handles: the instance's table.
        kinds: imported resource to the host's side of it.
        value_bytes: `limits.value_bytes`: what the arguments of one call may measure together,
            and what its result may.
    """

    handles: HandleTable
    kinds: Mapping[ResourceId, HostKind]
    value_bytes: int


class Budget:
    """What may still cross, of a limit: a base for what a crossing is done with.

    Attributes:
        left: bytes that may still cross.   limit: of how many.
    """

    __slots__ = ("left", "limit")

    left: int
    limit: int

    def charge(self, size: int) -> None:
        """Count bytes that cross.

        Raises:
            ValueLimitExceeded: more than the limit.
        """
        self.left -= size
        if self.left < 0:
            raise over_limit(self.limit)


class GuestResource:
    """A handle to a resource that the component defines.  Opaque, and of one instance only.

    The instance keeps the resource until `drop` or until the instance closes.
    """

    __slots__ = ("_boundary", "_delete", "_drop", "_owned", "_pointer", "resource")

    def __init__(
        self,
        resource: ResourceId,
        boundary: Boundary,
        pointer: Any,
        drop: Callable[[Any], None],
        delete: Callable[[Any], None],
    ) -> None:
        """Hold `pointer`, which `drop` ends in the instance and `delete` frees."""
        self.resource = resource
        self._boundary = boundary
        self._pointer = pointer
        self._drop = drop
        self._delete = delete
        self._owned = True

    def __repr__(self) -> str:
        state = "" if self._owned else " (gone)"
        return f"<guest resource {self.resource}{state}>"

    @property
    def alive(self) -> bool:
        """Whether it was neither dropped nor given back."""
        return self._owned

    def belongs_to(self, boundary: Boundary) -> bool:
        """Whether that instance made it."""
        return self._boundary is boundary

    def pointer(self) -> Any:
        """The engine's handle.  For conversions only.

        Raises:
            ValueError: it was dropped or given back.
        """
        if not self._owned:
            raise ValueError(f"the {self.resource.name} was dropped or given back")
        return self._pointer

    def mark_moved(self) -> None:
        """The component has it back.  For conversions only."""
        self._owned = False

    def drop_in_instance(self) -> None:
        """End it, running the component's destructor.

        Only the instance calls this, in its own store and while that is open; users call
        `Instance.drop`.

        Raises:
            EngineFault: the destructor trapped.
        """
        if self._owned:
            self._owned = False
            self._drop(self._pointer)

    def __del__(self) -> None:
        # Frees the few bytes on our side alone; the store is not touched.
        self._delete(self._pointer)


class BadValue(Exception):
    """A Python value does not fit its WIT type.  The path grows while the conversion unwinds."""

    def __init__(self, message: str, *, wrong_type: bool) -> None:
        """Keep what is wrong; where is told by `at`."""
        super().__init__(message)
        self.message = message
        self.wrong_type = wrong_type
        self.path: list[str] = []

    @classmethod
    def expected(cls, wanted: object, got: object) -> BadValue:
        """A value of another type."""
        return cls(f"expected {short(wanted)}, got {type(got).__name__}", wrong_type=True)

    @classmethod
    def value(cls, message: str) -> BadValue:
        """The right type, but not a value of it."""
        return cls(message, wrong_type=False)

    def at(self, step: str) -> BadValue:
        """The same fault, seen from one level up."""
        self.path.append(step)
        return self

    def __str__(self) -> str:
        return f"{''.join(reversed(self.path))}: {self.message}"

    def to_error(self) -> TypeError | ValueError:
        """What the caller sees."""
        return TypeError(str(self)) if self.wrong_type else ValueError(str(self))


def short(type_: object) -> str:
    """A type for a message: an untrusted component may have made it as long as it likes."""
    text = str(type_)
    return text if len(text) <= 160 else f"{text[:157]}..."


def over_limit(limit: int) -> ValueLimitExceeded:
    """The error of a value that is too large to cross."""
    return ValueLimitExceeded(
        f"values of more than {limit} bytes at a time can't cross (limits.value-bytes)"
    )
