"""WASI 0.2 for plugins, every function our own, each as far as a capability was granted.

The engine's ready-made WASI is all or nothing: it can't be revoked, metered or recorded.  So none of
it is linked; these interfaces stand in its place, on top of the same capabilities as `capwasm:*`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from capwasm.capability import Interface, OpenContext
from capwasm.errors import CapError, InternalError

from . import cli, clocks, filesystem, io, keyvalue, random, settings, sockets
from ._refuse import VERSION, Ledger, Refused
from .cli import GuestExit, WasiConfig

__all__ = [
    "DECLARED",
    "DRAFTS",
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
    "wasi:http/outgoing-handler": "net",
    "wasi:random/insecure": "random",
    "wasi:random/insecure-seed": "random",
    "wasi:random/random": "random",
    "wasi:keyvalue/store": "kv",
    "wasi:keyvalue/atomics": "kv",
    "wasi:keyvalue/batch": "kv",
    "wasi:config/store": "config",
    "wasi:logging/logging": "log",
}
"""The manifest table without which an interface does nothing.  The others hold no power."""

UNSERVED: dict[str, str] = {
    "wasi:http": "served are types, and outgoing-handler with a [[net]] table",
    "wasi:keyvalue": f"served are {' and '.join(keyvalue.DRAFTS)}; or use capwasm:kv",
    "wasi:config": f"served is {settings.CONFIG}; or use capwasm:config",
    "wasi:logging": f"served is {settings.LOGGING[1]}; or use capwasm:log",
    "wasi:tls": "not served; capwasm:fetch makes and checks TLS connections itself",
    "wasi:blobstore": "not served; use wasi:filesystem or capwasm:kv",
    "wasi:messaging": "not served",
    "wasi:nn": "not served",
    "wasi:threads": "not served: a plugin has one thread",
}
"""Packages of WASI of which something is asked for that is not served, with what to use instead."""


DECLARED: dict[str, str] = {"wasi:http/outgoing-handler": "net"}
"""Interfaces that are refused at load unless the manifest has this table, as those of `capwasm:*`."""

DRAFTS: tuple[str, ...] = ("wasi:keyvalue", "wasi:config", "wasi:logging")
"""Packages that are no part of WASI 0.2 yet, and are served in just the versions that are in use."""


class WasiServer:
    """WASI for one instance, a package at a time: what is never called costs nothing."""

    def __init__(
        self,
        ctx: OpenContext,
        config: WasiConfig | None = None,
        net: Callable[[], Any] | None = None,
    ) -> None:
        """Serve from `ctx.opened`, in which a missing name is not granted.

        Args:
            ctx: the instance; its states, and where refusals are recorded.
            config: arguments and variables; none unless given.
            net: opens the network capability where the manifest declares it, granted or not, and
                else None: then no request can be sent.
        """
        self._net = net
        self._opened = ctx.opened
        self._ledger = Ledger(ctx.record)
        self._config = config or WasiConfig()

    def serve(self, interface: str) -> Sequence[Interface]:
        """The interfaces of the package that `interface` (`wasi:io/streams@0.2.12`) is of.

        Raises:
            KeyError: no such package is served.
        """
        return self._package(interface.partition("/")[0])

    def everything(self, *, http: bool = True) -> list[Interface]:
        """Every interface of WASI 0.2, and of the drafts; without `wasi:http` where none is used."""
        names = [*_PACKAGES, *([_HTTP] if http else [])]
        return [i for name in names for i in self._package(name)]

    def _package(self, name: str) -> Sequence[Interface]:
        if name == _HTTP:
            return _http(self._net, self._secret)
        return _package(name, self._opened, self._ledger, self._config)

    def _secret(self, name: str) -> Any:
        """The secret of that name, to be put into a request.

        Raises:
            CapError: `denied`, `closed`, `unavailable`.
        """
        state = self._opened.get("secret")
        if state is None:
            raise CapError("denied", "no secret is granted")
        return state.get(name)


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
        case "wasi:keyvalue":
            return keyvalue.interfaces(opened.get("kv"), ledger)
        case "wasi:config":
            return settings.config_interfaces(opened.get("config"), ledger)
        case "wasi:logging":
            return settings.logging_interfaces(opened.get("log"), ledger)
    raise KeyError(name)


def _http(net: Callable[[], Any] | None, secrets: Callable[[str], Any]) -> Sequence[Interface]:
    from . import http  # a core whose plugins use no HTTP need not load what speaks it

    return http.interfaces(net, secrets)


_HTTP = "wasi:http"
_PACKAGES = (
    "wasi:io",
    "wasi:cli",
    "wasi:clocks",
    "wasi:random",
    "wasi:filesystem",
    "wasi:sockets",
    *DRAFTS,
)


def wasi_interfaces(
    opened: Mapping[str, Any], ctx: OpenContext, config: WasiConfig | None = None
) -> Sequence[Interface]:
    """Every interface that is served, for `ctx` with other states in place of its own."""
    net = (lambda: opened["net"]) if "net" in opened else None
    return WasiServer(replace(ctx, opened=opened), config, net).everything()


def served_functions() -> dict[str, dict[str, str]]:
    """Interface (without version) → function → `ours`, or `refused`: to every plugin, always."""
    ledger = Ledger(lambda *_args, **_fields: None)  # nothing is called, so nothing is refused
    found: dict[str, dict[str, str]] = {}
    packages = [_package(name, {}, ledger, WasiConfig()) for name in _PACKAGES]
    packages.append(_http(_never, _never))
    for package in packages:
        for interface in package:
            found.setdefault(interface.name.partition("@")[0], {}).update(
                {
                    name: "refused" if isinstance(f, Refused) and not f.table else "ours"
                    for name, f in interface.functions.items()
                }
            )
    return found


def _never(*_args: object) -> NoReturn:
    raise InternalError("this only names functions")


def unserved_reason(interface: str) -> str | None:
    """Why an imported interface (`wasi:http/types@0.2.3`) is not served, or None: not known."""
    return UNSERVED.get(interface.partition("/")[0])
