"""Secrets: opaque handles, used by the host on the guest's behalf; and the vault they come from."""

from .handle import Redactor, SecretHandle, SecretsState
from .host import Secrets
from .model import SecretClause
from .sealed import SecretBytes
from .source import MemoryVault, SecretSource
from .vault import Vault
from .vaultkey import VaultKey

__all__ = [
    "MemoryVault",
    "Redactor",
    "SecretBytes",
    "SecretClause",
    "SecretHandle",
    "SecretSource",
    "Secrets",
    "SecretsState",
    "Vault",
    "VaultKey",
]
