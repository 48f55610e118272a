"""The config capability: `capwasm:config/config`.  It holds text, so it needs no handle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from capwasm.call import current_call
from capwasm.capability import (
    Grant,
    GrantedClause,
    Interface,
    OpenContext,
    Risk,
)
from capwasm.caps._tables import ByTables
from capwasm.events import DENIED

from .model import AskedTable, ConfigClause, GivenTable

__all__ = ["Config", "ConfigState"]

INTERFACE = "capwasm:config/config@0.1.0"


class ConfigState:
    """The settings of one instance."""

    __slots__ = ("_ctx", "_grant")

    def __init__(self, grant: Grant[ConfigClause], ctx: OpenContext) -> None:
        """Serve what `grant` holds."""
        self._grant = grant
        self._ctx = ctx

    def get(self, key: str) -> str | None:
        """The value of a granted setting, or None; a refusal looks the same, but is recorded."""
        found = self._find(key)
        if found is None:
            # What the guest asked for is its own text; only a piece of it goes on record.
            self._ctx.record("config", DENIED, action="get", target=key[:64], reason="not granted")
            return None
        current_call().charge_host_work(len(found.clause.value or ""))
        return found.clause.value

    def all(self) -> list[tuple[str, str]]:
        """All granted settings that have a value, sorted by key."""
        found = {}
        for key in sorted({g.clause.key for g in self._grant.allow}):
            granted = self._find(key)
            if granted is not None and granted.clause.value is not None:
                found[key] = granted.clause.value
        current_call().charge_host_work(sum(len(k) + len(v) for k, v in found.items()))
        return list(found.items())

    def _find(self, key: str) -> GrantedClause[ConfigClause] | None:
        return self._grant.find(lambda c: c.key == key)


class Config(ByTables[ConfigClause, ConfigState]):
    """Settings."""

    name: ClassVar = "config"
    title: ClassVar = "Settings"
    repeated: ClassVar = False
    interfaces: ClassVar = (INTERFACE,)
    clause: ClassVar = ConfigClause
    asked: ClassVar = AskedTable
    given: ClassVar = GivenTable

    def risk(self, clause: ConfigClause) -> tuple[Risk, str]:  # noqa: ARG002  all alike
        """Low."""
        return Risk.LOW, "It reads a setting that the operator wrote for it."

    def open(self, grant: Grant[ConfigClause], ctx: OpenContext) -> ConfigState:
        """Serve the grant's settings."""
        return ConfigState(grant, ctx)

    def serve(self, state: ConfigState) -> Sequence[Interface]:
        """The one interface."""
        return [Interface(INTERFACE, {"get": state.get, "all": state.all})]
