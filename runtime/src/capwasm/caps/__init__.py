"""The capabilities, one folder each, and the one list of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capwasm.capability import Capability

if TYPE_CHECKING:
    from capwasm.record.redact import Redactor

    from .secrets import SecretSource

__all__ = ["NAMES", "standard_capabilities"]

NAMES = ("clock", "random", "config", "log", "kv", "fs", "secret", "net")
"""Their tables, in the order in which they open: a later one may use an earlier one's state."""


def standard_capabilities(
    *,
    vault: SecretSource | None = None,
    redactor: Redactor | None = None,
    protected: Iterable[Path] = (),
    resolver: Any = None,
    tls_ca_file: str | Path | None = None,
) -> tuple[Capability[Any, Any], ...]:
    """All capabilities of this version.

    Without arguments they can only parse and narrow, which is all that a tool needs which reads
    manifests and policies.

    Args:
        vault: where secrets come from; none: no secret can be granted.
        redactor: knows the secrets that must not be recorded.
        protected: directories that no grant of files may overlap (FS-21).
        resolver: resolves names in place of the system's resolver.
        tls_ca_file: certificates to trust in place of the system's.
    """
    from capwasm.caps.net.resolve import system_resolve
    from capwasm.record.redact import Redactor

    from .clock import Clock
    from .config import Config
    from .fs import Fs
    from .kv import Kv
    from .log import Log
    from .net import Net
    from .random import Random
    from .secrets import Secrets

    redactor = redactor or Redactor()
    return (
        Clock(),
        Random(),
        Config(),
        Log(redactor),
        Kv(),
        Fs(protected=protected),
        Secrets(vault, redactor),
        Net(resolver or system_resolve, Path(tls_ca_file) if tls_ca_file else None),
    )
