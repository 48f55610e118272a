"""What can go wrong, as one small tree of exceptions.

CapabilityError            a capability said no; `.word` is the word of its WIT interface
├── Denied                 not granted
├── NotFound               no such thing, inside what was granted
├── Invalid                an argument is malformed
├── TooLarge               more than a limit allows
├── Quota                  the room that was granted is used up
├── Timeout                out of time
├── Closed                 the handle was dropped, or the grant revoked
├── Insecure               the origin's TLS is not acceptable
└── Unavailable            the other side can't be reached
Failure                    raise it yourself: the `err` of your function
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = [
    "CapabilityError",
    "Closed",
    "Denied",
    "Failure",
    "Insecure",
    "Invalid",
    "NotFound",
    "Quota",
    "Timeout",
    "TooLarge",
    "Unavailable",
    "from_wit",
]


class CapabilityError(Exception):
    """A capability said no.

    Attributes:
        word: the word of the WIT interface, such as `too-large`.
        action: what was tried, such as `kv.set`.
    """

    def __init__(self, word: str, action: str = "") -> None:
        """Say `word` about `action`."""
        super().__init__(f"{action}: {word}" if action else word)
        self.word = word
        self.action = action


class Denied(CapabilityError):
    """Not granted.  The operator sees which line would grant it; a plugin does not."""


class NotFound(CapabilityError):
    """No such thing, inside what was granted."""


class Invalid(CapabilityError):
    """An argument is malformed."""


class TooLarge(CapabilityError):
    """More than a limit allows."""


class Quota(CapabilityError):
    """The room that was granted is used up."""


class Timeout(CapabilityError):
    """Out of time."""


class Closed(CapabilityError):
    """The handle was dropped, its lease ran out, or the grant was revoked."""


class Insecure(CapabilityError):
    """The origin's certificate or TLS is not acceptable."""


class Unavailable(CapabilityError):
    """The other side can't be reached."""


class Failure(Exception):
    """The `err` of your function: `raise Failure("no such city")`.

    Attributes:
        value: what the caller gets.  Text where WIT says `result<…, string>`; the word of an enum,
            a record, or a generated type where it says so; nothing where it says `result<…>`.
    """

    def __init__(self, value: Any = None) -> None:
        """Fail with that value."""
        super().__init__("" if value is None else str(value))
        self.value = value


_BY_WORD: dict[str, type[CapabilityError]] = {
    "denied": Denied,
    "not-found": NotFound,
    "invalid": Invalid,
    "too-large": TooLarge,
    "quota": Quota,
    "timeout": Timeout,
    "closed": Closed,
    "insecure": Insecure,
    "unavailable": Unavailable,
}


@contextmanager
def from_wit(action: str) -> Iterator[None]:
    """Turn the bindings' `Err` into an exception of this module.

    Raises:
        CapabilityError: the call inside said no.
    """
    from ._bindings import err_type

    try:
        yield
    except err_type() as exc:
        word = _word(exc)
        raise _BY_WORD.get(word, CapabilityError)(word, action) from None


def _word(exc: Any) -> str:
    name = getattr(exc.value, "name", None)
    return name.lower().replace("_", "-") if isinstance(name, str) else str(exc.value)
