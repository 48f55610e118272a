"""A home for capwasm, as an operator sets it up: keys, policy, trust, vault, consents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import capwasm
from capwasm import ConsentRecord, PrivateKey, Runtime, Subject, parse_manifest
from capwasm.caps.secrets import Vault, VaultKey
from capwasm.capsule.identity import Kind
from capwasm.capsule.members import library_name
from capwasm.capsule.pack import pack
from capwasm.capsule.target import this_triple

from .subject import SETTING

__all__ = ["GRANTS", "Operator"]

_HEAD = """schema = 1
[plugin]
id = "bench.{name}"
name = "Bench"
version = "1.0.0"
requires-core = ">=0"
kind = "{kind}"
instance = "{instance}"
[limits]
concurrency = 1024
value-bytes = 268435456
memory = 1073741824
"""
GRANTS = {
    "": "",
    "random": "[random]\n",
    "clock": "[clock]\n",
    # Every capability there is.  A guest that imports two of them still pays for all.
    "all": """
[clock]
[config]
keys = ["greeting"]
[random]
[log]
[kv]
value-bytes = "128KiB"
[[fs]]
mount = "/data"
bind = "data"
access = "read-write"
quota = "1MiB"
[[net]]
allow = "https://api.example.com/v1/*"
[[secret]]
name = "token"
use = "inject"
for = ["https://api.example.com"]
header = "Authorization: Bearer {}"
[[secret]]
name = "pin"
use = "reveal"
[[exec]]
command = "none"
optional = true
""",
}
_POLICY = """schema = 1
[isolation]
native = ["bench.*"]
[plugins."bench.*".clock]
[plugins."bench.*".random]
[plugins."bench.*".log]
[plugins."bench.*".kv]
value-bytes = "128KiB"
[plugins."bench.*".config]
values = {{ greeting = {greeting} }}
[[plugins."bench.*".fs]]
bind = "data"
path = {data}
access = "read-write"
quota = "1MiB"
[[plugins."bench.*".net]]
allow = "https://api.example.com/v1/*"
[[plugins."bench.*".secret]]
name = "token"
use = "inject"
for = ["https://api.example.com"]
header = "Authorization: Bearer {{}}"
[[plugins."bench.*".secret]]
name = "pin"
use = "reveal"
"""
_TRUST = """schema = 1
[[key]]
name = "bench"
public = "{public}"
roles = ["publisher"]
ids = ["bench.*"]
"""


class Operator:
    """Owns a home, and is its one publisher too."""

    def __init__(self, root: Path) -> None:
        """Set up below `root` what is set up once.  The vault's key stands beside the home."""
        self.home, data = root / "home", root / "data"
        self.home.mkdir(mode=0o700, parents=True)
        data.mkdir()
        self._key = PrivateKey.generate()
        (self.home / "trust.toml").write_text(_TRUST.format(public=self._key.public.base64()))
        (self.home / "policy.toml").write_text(
            _POLICY.format(greeting=json.dumps(SETTING), data=json.dumps(str(data)))
        )
        vault = Vault.create(self.home / "vault", VaultKey.generate(self.home / "vault.key"))
        vault.set("token", b"nothing of worth")
        vault.set("pin", b"nothing of worth")

    @contextmanager
    def runtime(self) -> Iterator[Runtime]:
        """A runtime on the home."""
        with Runtime.open(self.home, core_version="1.0.0") as runtime:
            yield runtime

    def capsule(
        self,
        runtime: Runtime,
        name: str,
        code: bytes,
        *,
        instance: str,
        grants: str,
        kind: Kind = "component",
        tables: str = "",
    ) -> bytes:
        """A signed capsule, to all of which the operator has consented.

        Args:
            runtime: one on this home.
            name: the last word of its id.
            code: the component, or the library.
            instance: as in a manifest.
            grants: a key of `GRANTS`.
            kind: of code.
            tables: more that it asks; the policy must allow it, too.
        """
        manifest = _HEAD.format(name=name, instance=instance, kind=kind) + GRANTS[grants] + tables
        file = "plugin.wasm" if kind == "component" else library_name(this_triple())
        packed = pack({"plugin.toml": manifest.encode(), file: code})
        capsule = capwasm.sign_capsule(capwasm.read_artifact(packed), self._key)
        proven = runtime.verify(capsule)
        asked = parse_manifest(proven.manifest_bytes, runtime.capabilities)
        assert runtime.consents is not None
        runtime.consents.give(
            ConsentRecord.of(
                Subject.of(asked, proven.code_digest if kind == "component" else proven.digest),
                {name: request.clauses for name, request in asked.requests.items()},
                asked.limits,
                who="bench",
                when=datetime.now(UTC),
                reason="to measure",
            )
        )
        return capsule
