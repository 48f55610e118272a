"""Write a capwasm plugin as an ordinary Python class.

    from capwasm_guest import fetch, kv, plugin

    @plugin
    class Weather:
        def forecast(self, city: str) -> Forecast: ...

Each capability is a module of its own: `fetch`, `secrets`, `kv`, `log`, `fs`, `clock`, `random`,
`config`, `exec`.  Import one, and plugin.toml must declare its table.  Files need no module: `open()`
and `pathlib` reach the directories that were granted; `fs` says which there are, and why not.
"""

from __future__ import annotations

from ._plugin import plugin
from .errors import (
    CapabilityError,
    Closed,
    Denied,
    Failure,
    Insecure,
    Invalid,
    NotFound,
    Quota,
    Timeout,
    TooLarge,
    Unavailable,
)

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
    "plugin",
]
