"""WASI 0.2 for plugins, every function our own, each as far as a capability was granted.

The engine's ready-made WASI is all or nothing: it can't be revoked, metered or recorded.  So none of
it is linked; these interfaces stand in its place, on top of the same capabilities as `capwasm:*`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
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
    "WasiServer",
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


class WasiServer:
    """WASI for one instance, a package at a time: what is never called costs nothing."""

    def __init__(self, ctx: OpenContext, config: WasiConfig | None = None) -> None:
        """Serve from `ctx.opened`, in which a missing name is not granted.

        Args:
            ctx: the instance; its states, and where refusals are recorded.
            config: arguments and variables; none unless given.
        """
        self._opened = ctx.opened
        self._ledger = Ledger(ctx.record)
        self._config = config or WasiConfig()

    def serve(self, interface: str) -> Sequence[Interface]:
        """The interfaces of the package that `interface` (`wasi:io/streams@0.2.12`) is of.

        Raises:
            KeyError: no such package is served.
        """
        return self._package(interface.partition("/")[0])

    def everything(self) -> list[Interface]:
        """Every interface of WASI 0.2."""
        return [i for name in _PACKAGES for i in self._package(name)]

    def _package(self, name: str) -> Sequence[Interface]:
        return _package(name, self._opened, self._ledger, self._config)


def _package(
    name: str, opened: Mapping[str, Any], ledger: Ledger, config: WasiConfig
) -> Sequence[Interface]:
    match name:
        case "wasi:io":
            return io.interfaces()
        case "wasi:cli":
            return cli.interfaces(opened.get("log"), ledger, config)
        case "wasi:clocks":
            return clocks.interfaces(opened.get("clock"), ledger)
        case "wasi:random":
            return random.interfaces(opened.get("random"), ledger)
        case "wasi:filesystem":
            return filesystem.interfaces(opened.get("fs"), ledger)
        case "wasi:sockets":
            return sockets.interfaces(ledger)
    raise KeyError(name)


_PACKAGES = (
    "wasi:io",
    "wasi:cli",
    "wasi:clocks",
    "wasi:random",
    "wasi:filesystem",
    "wasi:sockets",
)


def wasi_interfaces(
    opened: Mapping[str, Any], ctx: OpenContext, config: WasiConfig | None = None
) -> Sequence[Interface]:
    """Every interface of WASI 0.2, for `ctx` with other states in place of its own."""
    return WasiServer(replace(ctx, opened=opened), config).everything()


def served_functions() -> dict[str, dict[str, str]]:
    """Interface (without version) → function → `ours`, or `refused`: to every plugin, always."""
    ledger = Ledger(lambda *_args, **_fields: None)  # nothing is called, so nothing is refused
    return {
        i.name.partition("@")[0]: {
            name: "refused" if isinstance(f, Refused) and not f.table else "ours"
            for name, f in i.functions.items()
        }
        for package in _PACKAGES
        for i in _package(package, {}, ledger, WasiConfig())
    }


def unserved_reason(interface: str) -> str | None:
    """Why an imported interface (`wasi:http/types@0.2.3`) is not served, or None: not known."""
    return UNSERVED.get(interface.partition("/")[0])
