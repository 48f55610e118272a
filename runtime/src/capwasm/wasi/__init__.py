"""WASI 0.2 for plugins, every function our own, each as far as a capability was granted.

The engine's ready-made WASI is all or nothing: it can't be revoked, metered or recorded.  So none of
it is linked; these interfaces stand in its place, on top of the same capabilities as `capwasm:*`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from capwasm.capability import Interface, OpenContext

from . import cli, clocks, filesystem, io, random, sockets
from ._refuse import VERSION, Ledger, Refused
from .cli import GuestExit, WasiConfig

__all__ = [
    "NEEDS",
    "UNSERVED",
    "VERSION",
    "GuestExit",
    "WasiConfig",
    "served_functions",
    "unserved_reason",
    "wasi_interfaces",
]

NEEDS: dict[str, str] = {
    "wasi:cli/stdout": "log",
    "wasi:cli/stderr": "log",
    "wasi:clocks/monotonic-clock": "clock",
    "wasi:clocks/wall-clock": "clock",
    "wasi:filesystem/preopens": "fs",
    "wasi:filesystem/types": "fs",
    "wasi:random/insecure": "random",
    "wasi:random/insecure-seed": "random",
    "wasi:random/random": "random",
}
"""The manifest table without which an interface does nothing.  The others hold no power."""

UNSERVED: dict[str, str] = {
    "wasi:http": "not served yet; use capwasm:fetch, which needs a [[net]] table",
    "wasi:keyvalue": "not served; use capwasm:kv, which needs a [kv] table",
    "wasi:config": "not served; use capwasm:config, which needs a [config] table",
    "wasi:logging": "not served; use capwasm:log, which needs a [log] table",
    "wasi:tls": "not served; capwasm:fetch makes and checks TLS connections itself",
    "wasi:blobstore": "not served; use wasi:filesystem or capwasm:kv",
    "wasi:messaging": "not served",
    "wasi:nn": "not served",
    "wasi:threads": "not served: a plugin has one thread",
}
"""Packages of WASI that plugins ask for and don't get, with what to use instead."""


def wasi_interfaces(
    opened: Mapping[str, Any], ctx: OpenContext, config: WasiConfig | None = None
) -> Sequence[Interface]:
    """Every interface of WASI 0.2 as one instance gets it.

    Args:
        opened: the states of the capabilities that were granted, by name (`fs`, `log`, `clock`,
            `random`).  A missing name is not granted: what needs it refuses.
        ctx: the instance, for recording refusals.
        config: arguments and variables; none unless given.
    """
    return _assemble(opened, Ledger(ctx.record), config or WasiConfig())


def _assemble(opened: Mapping[str, Any], ledger: Ledger, config: WasiConfig) -> list[Interface]:
    return [
        *io.interfaces(),
        *cli.interfaces(opened.get("log"), ledger, config),
        *clocks.interfaces(opened.get("clock"), ledger),
        *random.interfaces(opened.get("random"), ledger),
        *filesystem.interfaces(opened.get("fs"), ledger),
        *sockets.interfaces(ledger),
    ]


def served_functions() -> dict[str, dict[str, str]]:
    """Interface (without version) → function → `ours`, or `refused`: to every plugin, always."""
    ledger = Ledger(lambda *_args, **_fields: None)  # nothing is called, so nothing is refused
    return {
        i.name.partition("@")[0]: {
            name: "refused" if isinstance(f, Refused) and not f.table else "ours"
            for name, f in i.functions.items()
        }
        for i in _assemble({}, ledger, WasiConfig())
    }


def unserved_reason(interface: str) -> str | None:
    """Why an imported interface (`wasi:http/types@0.2.3`) is not served, or None: not known."""
    return UNSERVED.get(interface.partition("/")[0])
