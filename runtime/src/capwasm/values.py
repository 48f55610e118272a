"""The Python values that cross the component boundary.

=================  ==========================================================================
WIT                Python
=================  ==========================================================================
bool, ints, float  bool, int, float (ranges are checked; nothing is ever wrapped around)
char, string       str
list<u8>           bytes (any bytes-like object is taken)
list<T>            list
tuple              tuple
record             a frozen dataclass with the record's fields in snake_case; a mapping or any
                   object with these attributes is taken
variant            `Variant(case, value)`
enum               a member of a `StrEnum` whose value is the WIT word; the word itself is taken
flags              a frozenset of such members; any iterable of words is taken
option<T>          the value or None; an option within an option is `Some(value)` or None
result<T, E>       `Ok(value)` or `Err(error)`
own, borrow        a host `Handle`, or a `GuestResource` for a resource of the guest's own
=================  ==========================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar

__all__ = ["Err", "Ok", "Result", "ResultError", "Some", "Variant"]

T = TypeVar("T")
E = TypeVar("E")


class ResultError(Exception):
    """`unwrap()` met an `Err`; `error` is what the plugin returned."""

    def __init__(self, error: object) -> None:
        """Keep the plugin's error value."""
        self.error = error
        super().__init__(repr(error))


@dataclass(frozen=True, slots=True)
class Ok(Generic[T]):
    """The good case of a WIT `result`."""

    value: T

    @property
    def ok(self) -> bool:
        """True."""
        return True

    def unwrap(self) -> T:
        """The value."""
        return self.value


@dataclass(frozen=True, slots=True)
class Err(Generic[E]):
    """The bad case of a WIT `result`."""

    error: E

    @property
    def ok(self) -> bool:
        """False."""
        return False

    def unwrap(self) -> NoReturn:
        """Raise.

        Raises:
            ResultError: always, with the plugin's error value.
        """
        raise ResultError(self.error)


Result: TypeAlias = Ok[T] | Err[E]


@dataclass(frozen=True, slots=True)
class Some(Generic[T]):
    """A present value of an option whose own value may be none."""

    value: T


@dataclass(frozen=True, slots=True)
class Variant:
    """A case of a WIT variant, with its value or None."""

    case: str
    value: Any = None
