"""What the owner of a machine does: say whom to trust, what is allowed at most, and consent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from capwasm import ConsentRecord, PublicKey, Runtime, Subject, parse_manifest
from capwasm.caps.secrets import Vault, VaultKey
from capwasm.home import Home

__all__ = ["Permission", "allow", "asked", "consent", "keep_secret", "trust"]

_TRUST = """\
schema = 1

[[key]]
name = "demo-publisher"
public = "{public}"
roles = ["publisher"]
ids = ["demo.*"]
"""

_POLICY = """\
schema = 1
owner = "the demo"

[consent]
automatic = ["log", "kv", "config"]  # the low risks; a person decides on the rest

[[plugins."demo.weather".net]]
allow = "{origin}/v1/*"
methods = ["GET"]

[[plugins."demo.weather".secret]]
name = "weather-token"
use = "inject"
for = ["{origin}"]
header = "Authorization: Bearer {{}}"

[[plugins."demo.weather".fs]]
bind = "reports"
path = {reports}
access = "read-write"
quota = "64KiB"

[plugins."demo.weather".kv]
quota = "64KiB"

[plugins."demo.weather".log]

[plugins."demo.weather".config]
values = {{ origin = "{origin}" }}
"""


def trust(home: Home, key: PublicKey) -> None:
    """Trust this key, for plugins named `demo.…` and no others."""
    _write(home.trust_file, _TRUST.format(public=key.base64()))


def allow(home: Home, origin: str, reports: Path) -> None:
    """Allow one plugin one service, one secret there, one directory; nobody anything else."""
    _write(home.policy_file, _POLICY.format(origin=origin, reports=json.dumps(str(reports))))


def _write(path: Path, text: str) -> None:
    """A file that its owner alone may write: one that others could write would be refused."""
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def keep_secret(home: Home, name: str, value: str) -> None:
    """Put a secret into an encrypted vault, whose key lies in a file of its own."""
    Vault.create(home.vault_file, VaultKey.generate(home.vault_key)).set(name, value.encode())


@dataclass(frozen=True, slots=True)
class Permission:
    """One thing that the plugin asks for, as a person is to see it."""

    path: str
    what: str
    risk: str
    why: str


def asked(runtime: Runtime, capsule: Path) -> list[Permission]:
    """All that the plugin asks for, with the risk of each; read from proven bytes alone."""
    manifest = parse_manifest(runtime.verify(capsule).manifest_bytes, runtime.capabilities)
    risks = {capability.name: capability.risk for capability in runtime.capabilities}
    found = []
    for name, request in manifest.requests.items():
        for wish in request.asked:
            for clause in wish.clauses:
                risk, why = risks[name](clause)
                found.append(Permission(wish.path, clause.describe(), risk.value, why))
    return found


def consent(runtime: Runtime, capsule: Path, who: str) -> None:
    """Record that `who` agrees to all of it: for exactly these bytes, and for no later version."""
    assert runtime.consents is not None
    artifact = runtime.verify(capsule)
    manifest = parse_manifest(artifact.manifest_bytes, runtime.capabilities)
    runtime.consents.give(
        ConsentRecord.of(
            Subject.of(manifest, artifact.code_digest),
            {name: request.clauses for name, request in manifest.requests.items()},
            manifest.limits,
            who=who,
            when=datetime.now(UTC),
            reason="to see the demo",
        )
    )
