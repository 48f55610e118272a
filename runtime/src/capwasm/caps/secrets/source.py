"""What the secrets capability needs of a vault, and the simplest thing that has it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Protocol

from capwasm.errors import CapabilityError

from .sealed import SecretBytes

__all__ = ["MemoryVault", "SecretSource"]


class SecretSource(Protocol):
    """Where the secrets capability gets its values.  Safe to use from any thread."""

    def names(self) -> list[str]:
        """The names of all secrets that can be had, sorted.

        Raises:
            CapabilityError: `capability.vault`.
        """

    def get(self, name: str) -> SecretBytes:
        """The value, as it is now; never from a cache.

        Raises:
            CapabilityError: `capability.no-secret`, `capability.secret-revoked`, or another when
                the vault can't be used.
        """

    def revoke(self, name: str, reason: str) -> None:
        """Destroy the value, and remember why, until a new one is set.

        Raises:
            CapabilityError: `capability.no-secret`, or another when the vault can't be written.
        """


class MemoryVault:
    """A vault that lasts as long as the process: for tests, and for embedders with a store."""

    def __init__(self, values: Mapping[str, bytes] | None = None) -> None:
        """Begin with these."""
        self._values = {name: SecretBytes(value) for name, value in (values or {}).items()}
        self._revoked: dict[str, str] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"MemoryVault({self.names()})"

    def names(self) -> list[str]:
        """The names, sorted."""
        with self._lock:
            return sorted(self._values)

    def get(self, name: str) -> SecretBytes:
        """The value.

        Raises:
            CapabilityError: `capability.no-secret` or `capability.secret-revoked`.
        """
        with self._lock:
            if name in self._revoked:
                raise CapabilityError(
                    f"{name} was revoked: {self._revoked[name]}", code="capability.secret-revoked"
                )
            value = self._values.get(name)
            if value is None:
                raise CapabilityError(f"no secret {name!a}", code="capability.no-secret")
            return SecretBytes(value.expose())

    def set(self, name: str, value: bytes) -> None:
        """Store a value, in place of an older or revoked one."""
        with self._lock:
            self._values[name] = SecretBytes(value)
            self._revoked.pop(name, None)

    def revoke(self, name: str, reason: str) -> None:
        """Destroy a value and remember why.

        Raises:
            CapabilityError: `capability.no-secret`.
        """
        with self._lock:
            if name not in self._values and name not in self._revoked:
                raise CapabilityError(f"no secret {name!a}", code="capability.no-secret")
            self._values.pop(name, None)
            self._revoked[name] = reason
