"""`wasi:config` and `wasi:logging`, as far as the config and log capabilities were granted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from capwasm.capability import Interface
from capwasm.values import Err, Variant

from ._refuse import Ledger

__all__ = ["CONFIG", "LOGGING", "config_interfaces", "logging_interfaces"]

CONFIG: Final = "wasi:config/store@0.2.0-rc.1"
LOGGING: Final = ("wasi:logging/logging", "wasi:logging/logging@0.1.0-draft")

# Levels that the log does not have, and what stands for them.
_LEVELS: Final = {"trace": "debug", "critical": "error"}
_ERROR: Final = "variant{upstream(string), io(string)}"


class _Config(Protocol):
    """The part of the config capability's state that is used here."""

    def get(self, key: str, /) -> str | None: ...

    def all(self) -> list[tuple[str, str]]: ...


class _Log(Protocol):
    """The part of the log capability's state that is used here."""

    def write(self, level: str, message: str, fields: Iterable[Any] = (), /) -> None: ...


@dataclass(frozen=True, slots=True)
class _Field:
    key: str
    value: str


def config_interfaces(config: _Config | None, ledger: Ledger) -> list[Interface]:
    """`wasi:config/store`; `config` is None where it is not granted."""

    def get(key: str) -> str | Err[Variant] | None:
        return refused("get") if config is None else config.get(key)

    def get_all() -> list[tuple[str, str]] | Err[Variant]:
        return refused("get-all") if config is None else config.all()

    def refused(function: str) -> Err[Variant]:
        ledger.note(f"wasi:config/store.{function}", "not-granted", table="config")
        return Err(Variant("upstream", "denied"))

    signatures = {
        "get": f"func(key: string) -> result<option<string>, {_ERROR}>",
        "get-all": f"func() -> result<list<tuple<string, string>>, {_ERROR}>",
    }
    return [Interface(CONFIG, {"get": get, "get-all": get_all}, {}, signatures)]


def logging_interfaces(log: _Log | None, ledger: Ledger) -> list[Interface]:
    """`wasi:logging/logging`; `log` is None where it is not granted: then it is dropped."""

    def write(level: str, context: str, message: str) -> None:
        if log is None:
            ledger.note("wasi:logging/logging.log", "not-granted", table="log")
        else:
            fields = [_Field("context", context)] if context else []
            log.write(_LEVELS.get(level, level), message, fields)

    levels = "enum{trace, debug, info, warn, error, critical}"
    signatures = {"log": f"func(level: {levels}, context: string, message: string) -> _"}
    return [Interface(name, {"log": write}, {}, signatures) for name in LOGGING]
