"""The one list of the capabilities, with all their modules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from capwasm.capability import Capability
from capwasm.record.redact import Redactor

from .clock import Clock
from .config import Config
from .exec import Exec, Spawner
from .fs import Fs
from .kv import Kv
from .log import Log, PluginRecord
from .net import Net
from .net.resolve import system_resolve
from .random import Random
from .secrets import Secrets, SecretSource

__all__ = ["standard_capabilities"]


def standard_capabilities(
    *,
    vault: SecretSource | None = None,
    redactor: Redactor | None = None,
    protected: Iterable[Path] = (),
    resolver: Any = None,
    tls_ca_file: str | Path | None = None,
    spawner: Spawner | None = None,
    on_log: Callable[[PluginRecord], None] | None = None,
) -> tuple[Capability[Any, Any], ...]:
    """All capabilities of this version.

    Without arguments they can only parse and narrow, which is all that a tool needs which reads
    manifests and policies.

    Args:
        vault: where secrets come from; none: no secret can be granted.
        redactor: knows the secrets that must not be recorded.
        protected: directories that no grant of files or commands may overlap (FS-21).
        resolver: resolves names in place of the system's resolver.
        tls_ca_file: certificates to trust in place of the system's.
        spawner: starts commands in sandboxes; none: no command can be granted.
        on_log: gets each record that a plugin logs, on the thread of its call; quick.
    """
    protected = tuple(protected)
    redactor = redactor or Redactor()
    return (
        Clock(),
        Random(),
        Config(),
        Log(redactor, on_log),
        Kv(),
        Fs(protected=protected),
        Secrets(vault, redactor),
        Net(resolver or system_resolve, Path(tls_ca_file) if tls_ca_file else None),
        Exec(spawner, protected),
    )
