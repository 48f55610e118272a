"""Signed capsules for tests: honest ones, and ones that a trusted but hostile signer made."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from capwasm.capsule.artifact import read_artifact
from capwasm.capsule.attest import Statement
from capwasm.capsule.container import join
from capwasm.capsule.envelope import PAYLOAD_TYPE, Envelope, Signature, pae
from capwasm.capsule.identity import Identity
from capwasm.capsule.keys import PrivateKey
from capwasm.capsule.pack import pack, sign_capsule
from capwasm.capsule.trust import Role, TrustedKey, TrustStore

WEATHER = Identity("acme.weather", "1.2.0", "component")
MANIFEST = b"""schema = 1
[plugin]
id = "acme.weather"
version = "1.2.0"
kind = "component"
"""
FILES: Mapping[str, bytes] = {
    "plugin.toml": MANIFEST,
    "plugin.wasm": b"\0asm\x0d\0\x01\0",
    "README.md": b"# Weather\n",
    "assets/icon.svg": b"<svg/>",
}
KEY = PrivateKey.generate()


def trusted(key: PrivateKey, *roles: Role, name: str = "acme", **words: Any) -> TrustedKey:
    words.setdefault("ids", ("acme.*",))
    return TrustedKey(name, key.public, frozenset(roles or ("publisher",)), **words)


STORE = TrustStore((trusted(KEY),))


def signed(*keys: PrivateKey, members: Mapping[str, bytes] = FILES) -> bytes:
    """An honest capsule, signed by each key in turn (by `KEY` if none is given)."""
    capsule = pack(members)
    for key in keys or (KEY,):
        capsule = sign_capsule(read_artifact(capsule), key)
    return capsule


def forged(
    archive: bytes,
    members: Mapping[str, bytes] = FILES,
    *,
    identity: Identity = WEATHER,
    edit: Callable[[dict[str, Any]], object] | None = None,
    payload: bytes | None = None,
    payload_type: str = PAYLOAD_TYPE,
    key: PrivateKey = KEY,
) -> bytes:
    """A truly signed capsule whose signer checks nothing: any archive, any statement."""
    if payload is None:
        doc = json.loads(Statement.describe(identity, archive, members))
        if edit is not None:
            edit(doc)
        payload = json.dumps(doc).encode()
    signature = Signature(key.public.key_id, key.sign(pae(payload_type, payload)))
    return join(Envelope(payload, payload_type, (signature,)).encode(), archive)
