"""What a process says of a call that failed, as an error of ours: a word of a list, and some text."""

from __future__ import annotations

from typing import Final

from capwasm.errors import (
    CapwasmError,
    FuelExhausted,
    GuestTrap,
    HandleLimitExceeded,
    InstancesExceeded,
    InternalError,
    LinkError,
    MemoryLimitExceeded,
    RecursionLimitExceeded,
    StackExhausted,
    TableLimitExceeded,
    ValueLimitExceeded,
)
from capwasm.record.redact import printable
from capwasm_shim.frames import ProtocolFault
from capwasm_shim.protocol import Outcome

from .exchange import Returned

__all__ = ["reported"]

_MESSAGE_CHARS: Final = 1_000
# What a process may say of its own guest.  Limits that the host counts itself are not among these.
_SAID: Final[dict[str, type[CapwasmError]]] = {
    error.default_code: error
    for error in (
        GuestTrap,
        FuelExhausted,
        MemoryLimitExceeded,
        TableLimitExceeded,
        StackExhausted,
        RecursionLimitExceeded,
        HandleLimitExceeded,
        InstancesExceeded,
        ValueLimitExceeded,
        InternalError,
    )
}
_AT_START: Final = "link.instantiate"


def reported(returned: Returned, plugin: str, *, starting: bool, converts: bool) -> Exception:
    """The error of a call that did not return a value.

    Args:
        returned: what the process said.
        plugin: for the error's context.
        starting: whether it was the start of the instance.
        converts: whether values are converted there once more, so that a fault of the caller's may be
            found there, before anything was asked.  Else it may not say so: it is not on record.

    Raises:
        ProtocolFault: it said what it may not.
    """
    match returned.value:
        case [str() as word, str() as text]:
            text = _lines(text)
        case _:
            raise ProtocolFault("not the reason of a failure")
    if returned.outcome == Outcome.MISUSED:
        if word not in {"type", "value"} or starting or not converts:
            raise ProtocolFault("not a kind of misuse")
        return TypeError(text) if word == "type" else ValueError(text)
    if returned.outcome != Outcome.FAILED:
        raise ProtocolFault("it was aborted by nobody")
    if word == _AT_START and starting:
        return LinkError(text, code=_AT_START, context=plugin)
    if word in _SAID:
        return _SAID[word](text, context=plugin)
    # Whatever else it may say, it has failed.
    return GuestTrap(text, context=plugin)


def _lines(text: str) -> str:
    """The text, short and printable; a trap's has a line a frame (LOG-07)."""
    return "\n".join(printable(line) for line in text[:_MESSAGE_CHARS].split("\n")[:8])
