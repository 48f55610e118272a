"""Handles to secrets: `[[secret]]` in plugin.toml.  Holding one is not knowing the secret.

with secrets.get("acme-token") as token:
    fetch.get("https://api.acme.com/v1/now", secret=token)
"""

from __future__ import annotations

from types import TracebackType
from typing import Self, cast

from ._bindings import RevealImport, SecretResource, SecretsImport, guard, load
from .errors import from_wit

__all__ = ["Secret", "get"]

try:
    # Now or never: a component can import nothing later.
    _reveal: RevealImport | None = load("capwasm_secrets_reveal", "Secret.reveal()")
except ImportError:
    _reveal = None

_store = cast("SecretsImport", load("capwasm_secrets", "capwasm_guest.secrets"))


class Secret:
    """A secret that can be used.  A context manager that lets it go."""

    def __init__(self, resource: SecretResource) -> None:
        """Made by `get`."""
        self._resource: SecretResource | None = resource
        self.name = resource.name()

    @property
    def resource(self) -> SecretResource:
        """The handle itself, for `fetch`.

        Raises:
            ValueError: it was let go.
        """
        if self._resource is None:
            raise ValueError(f"the secret {self.name} was let go")
        return self._resource

    @property
    def lease(self) -> float:
        """Seconds until the handle runs out; 0 when it has, or when the secret was revoked."""
        return self.resource.lease_ms() / 1000

    def reveal(self) -> bytes:
        """The secret itself: needs a `[[secret]]` table with `use = "reveal"`, and is recorded.

        Raises:
            RuntimeError: plugin.toml does not ask for it.
            CapabilityError: it was not granted, revoked, or its lease ran out.
        """
        if _reveal is None:
            raise RuntimeError(
                'seeing a secret needs a [[secret]] table with use = "reveal" in plugin.toml'
            )
        with from_wit(f"reveal {self.name}"):
            return _reveal.reveal(self.resource)

    def close(self) -> None:
        """Let it go.  Called again, does nothing."""
        if self._resource is not None:
            self._resource.__exit__(None, None, None)
            self._resource = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _v: BaseException | None, _b: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Secret {self.name}>"


def get(name: str) -> Secret:
    """A handle to the secret of that name.

    Raises:
        Denied: not granted, or not there.
        CapabilityError: the vault can't be reached.
    """
    guard("secrets")
    with from_wit(f"secret {name}"):
        return Secret(_store.get(name))
