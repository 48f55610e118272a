"""A publisher, another one, and a home that trusts both: what the registry's tests stand on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from capwasm.capsule.artifact import read_artifact
from capwasm.capsule.keys import PrivateKey
from capwasm.capsule.pack import pack, sign_capsule
from capwasm.capsule.trust import TrustedKey, TrustStore
from capwasm.events import NullRecorder, Recorder
from capwasm.grants.policy import Policy
from capwasm.registry.model import PluginRecord
from capwasm.registry.registry import Registry

ID = "acme.weather"
SHM = "/dev/shm" if Path("/dev/shm").is_dir() else None  # where a sync costs nothing
NOW = datetime(2027, 1, 31, 12, tzinfo=UTC)
KEYS = "CAPWASM_TEST_KEYS"


def _key(name: str) -> PrivateKey:
    """A new key, or that of the process which started this one."""
    folder = os.environ.get(KEYS)
    return PrivateKey.load(Path(folder) / name) if folder else PrivateKey.generate()


ACME, GLOBEX = _key("acme.key"), _key("globex.key")
CODE = b"\0asm\x0d\0\x01\0"
MANIFEST = """schema = 1
[plugin]
id = "{id}"
name = "A test"
version = "{version}"
requires-core = ">=0"
kind = "component"
"""


def trust_of(*keys: PrivateKey) -> TrustStore:
    """A store that trusts these keys for everything."""
    return TrustStore(
        tuple(
            TrustedKey(f"key{n}", key.public, frozenset({"publisher"}), ("*",))
            for n, key in enumerate(keys)
        )
    )


TRUST = trust_of(ACME, GLOBEX)


def capsule(
    version: str = "1.0.0",
    *,
    id: str = ID,  # noqa: A002
    keys: Sequence[PrivateKey] = (ACME,),
    more: bytes = b"",
    asks: str = "",
) -> bytes:
    """A signed capsule; the registry never looks into the code."""
    members = {
        "plugin.toml": (MANIFEST.format(id=id, version=version) + asks).encode(),
        "plugin.wasm": CODE + more,
    }
    data = pack(members)
    for key in keys:
        data = sign_capsule(read_artifact(data), key)
    return data


@dataclass
class Shop:
    """One home directory, and registries on it."""

    home: Path
    recorder: Recorder = field(default_factory=NullRecorder)
    made: list[Registry] = field(default_factory=list)

    def registry(self, **words: Any) -> Registry:
        """A registry of its own, as another process would have."""
        words.setdefault("trust", TRUST)
        words.setdefault("recorder", self.recorder)
        words.setdefault("now", lambda: NOW)
        words.setdefault("own_key", lambda: ACME)
        words.setdefault("own", lambda: ACME.public)
        self.home.mkdir(mode=0o700, exist_ok=True)
        self.made.append(Registry(self.home, policy=Policy.nothing(), capabilities=(), **words))
        return self.made[-1]

    def close(self) -> None:
        """Close all that were made."""
        for registry in self.made:
            registry.close()

    def files(self) -> set[str]:
        """What there is below the home."""
        return {
            os.path.relpath(Path(folder) / name, self.home)
            for folder, _, names in os.walk(self.home)
            for name in names
        }


def state_of(plugin: PluginRecord | None) -> Any:
    """What decides of a plugin: to tell the old state from the new."""
    if plugin is None:
        return None
    return (
        plugin.serving,
        plugin.state,
        plugin.highest,
        plugin.waiting,
        plugin.pinned,
        plugin.removed is not None,
        tuple((v.version, str(v.state), v.bundle) for v in plugin.versions),
        tuple((str(p.kind), p.subject) for p in plugin.permits),
        tuple((r.number, str(r.kind), r.version) for r in plugin.reviews),
    )
