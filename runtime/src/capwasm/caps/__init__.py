"""The capabilities, one folder each, and the one list of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .standard import standard_capabilities

__all__ = ["NAMES", "standard_capabilities"]

NAMES = ("clock", "random", "config", "log", "kv", "fs", "secret", "net", "exec")
"""Their tables, in the order in which they open: a later one may use an earlier one's state."""


def __getattr__(name: str) -> Any:
    # Whoever needs one capability, or the names, should not pay for all.
    if name == "standard_capabilities":
        from .standard import standard_capabilities

        return standard_capabilities
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
