"""The secrets capability: `capwasm:secrets/store` and `capwasm:secrets/reveal`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import ClassVar

from capwasm.call import current_call
from capwasm.capability import (
    Grant,
    HostFunc,
    Interface,
    OpenContext,
    Risk,
)
from capwasm.caps._tables import ByTables
from capwasm.errors import CapabilityError
from capwasm.record import redact

from .handle import Desk, Redactor, SecretHandle, SecretsState
from .model import AskedSecret, GivenSecret, SecretClause
from .source import MemoryVault, SecretSource

__all__ = ["Secrets"]

STORE = "capwasm:secrets/store@0.1.0"
REVEAL = "capwasm:secrets/reveal@0.1.0"


class Secrets(ByTables[SecretClause, SecretsState]):
    """Secrets from a vault that the host names; never from its environment (SEC-01, SEC-02)."""

    name: ClassVar = "secret"
    title: ClassVar = "Secrets"
    repeated: ClassVar = True
    interfaces: ClassVar = (STORE, REVEAL)
    clause: ClassVar = SecretClause
    asked: ClassVar = AskedSecret
    given: ClassVar = GivenSecret

    def __init__(
        self,
        vault: SecretSource | None = None,
        redactor: Redactor | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Serve from `vault`.  Without both a vault and a redactor, no secret can be granted."""
        self._desk = None if vault is None or redactor is None else Desk(vault, redactor, monotonic)

    def risk(self, clause: SecretClause) -> tuple[Risk, str]:
        """High if the plugin sees the secret; medium if the host only sends it."""
        if clause.use == "reveal":
            return Risk.HIGH, "It sees the secret, and can pass it on wherever it can write."
        return Risk.MEDIUM, "The host sends the secret on its behalf; it never sees it."

    def open(self, grant: Grant[SecretClause], ctx: OpenContext) -> SecretsState:
        """Serve the grant's secrets.

        Raises:
            CapabilityError: `capability.vault`: there is no vault, or no redactor.
        """
        desk = self._desk
        if desk is None and not grant.allow:
            # Declared as optional and not granted: there is nothing to take from a vault.
            desk = Desk(MemoryVault(), redact.Redactor(), time.monotonic)
        if desk is None:
            raise CapabilityError(
                "secrets are granted, but the runtime was given no vault; make one with: capwasm"
                " vault init",
                code="capability.vault",
                context=ctx.plugin_id,
            )
        return SecretsState(grant, ctx, desk)

    def serve(self, state: SecretsState) -> Sequence[Interface]:
        """Both interfaces; `reveal` refuses what was not granted for it."""

        def reveal(secret: SecretHandle) -> bytes:
            value = secret.reveal()
            current_call().charge_host_work(len(value))
            return value

        functions: dict[str, HostFunc] = {
            "get": state.get,
            "[method]secret.name": SecretHandle.get_name,
            "[method]secret.lease-ms": SecretHandle.lease_ms,
        }
        return [
            Interface(STORE, functions, {"secret": SecretHandle}),
            Interface(REVEAL, {"reveal": reveal}),
        ]

    def revoke(self, name: str, reason: str) -> None:
        """Revoke a secret for every plugin: no use of it begins after this returns.

        Handles die first, in this process; then the vault destroys the value, so that it can't be
        used by any other process either.  `Vault.set` and `reinstate` bring the name back.

        Args:
            name: the vault's name of it; one that the vault doesn't hold is no error.
            reason: for the audit log and the operator; visible ASCII, at most 200 characters.

        Raises:
            CapabilityError: the vault could not be written.  The handles are dead all the same.
        """
        if self._desk is None:
            return
        self._desk.lease(name).revoke(reason)
        try:
            self._desk.vault.revoke(name, reason)
        except CapabilityError as exc:
            if exc.code != "capability.no-secret":
                raise

    def reinstate(self, name: str) -> None:
        """Let plugins take handles to a revoked name again, once it has a new value.

        Handles from before stay dead (LIFE-06).
        """
        if self._desk is not None:
            self._desk.renew(name)
