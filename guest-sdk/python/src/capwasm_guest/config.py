"""Settings that the operator gave: `[config]` in plugin.toml.  Not for secrets.

units = config.get("units", "metric")
"""

from __future__ import annotations

from typing import cast, overload

from ._bindings import ConfigImport, guard, load

__all__ = ["all", "get"]

_config = cast("ConfigImport", load("capwasm_config", "capwasm_guest.config"))


@overload
def get(key: str) -> str | None: ...
@overload
def get(key: str, default: str) -> str: ...
def get(key: str, default: str | None = None) -> str | None:
    """The value of a setting that was granted, or `default`."""
    guard("config")
    value = _config.get(key)
    return default if value is None else value


def all() -> dict[str, str]:  # noqa: A001
    """All the settings that were granted."""
    guard("config")
    return dict(_config.all())
