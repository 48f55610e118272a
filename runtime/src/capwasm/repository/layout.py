"""How a repository is laid out: paths of targets, what is said of each, and which keys may sign.

Follows the TUF specification, 1.0.  A capsule is the target `ID/VERSION/ID-VERSION.capsule`; its
custom field says the same again, and since when it is offered.
"""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from capwasm._model import Model, validate
from capwasm.capsule.identity import PluginId, Version, check_id, check_version
from capwasm.capsule.keys import PublicKey
from capwasm.errors import PolicyError, RepositoryError

if TYPE_CHECKING:
    from tuf.api.metadata import Key, Root

__all__ = [
    "ROLES",
    "TIME_FORM",
    "Offer",
    "check_keys",
    "identity_of_path",
    "offer_of",
    "probe_path",
    "public_key_of",
    "target_path",
    "tuf_key",
]

ROLES: Final = ("root", "targets", "snapshot", "timestamp")
TIME_FORM: Final = "%Y-%m-%dT%H:%M:%SZ"
_PATH: Final = re.compile(r"([^/]+)/([^/]+)/([^/]+)\.capsule")
_ED25519_DER: Final = bytes.fromhex("302a300506032b6570032100")  # RFC 8410: what stands before y


class Offer(Model):
    """What a target's custom field says of a capsule, below the word `capwasm`."""

    id: PluginId
    version: Version
    published: str

    @property
    def since(self) -> datetime:
        """When it was first offered.

        Raises:
            ValueError: it is no time.
        """
        return datetime.strptime(self.published, TIME_FORM).replace(tzinfo=UTC)


def target_path(plugin_id: str, version: str) -> str:
    """Where a capsule is, below the targets."""
    return f"{plugin_id}/{version}/{plugin_id}-{version}.capsule"


def probe_path(plugin_id: str) -> str:
    """A path as `target_path` makes them, which no version has: it asks who speaks of a plugin."""
    return f"{plugin_id}/-/{plugin_id}--.capsule"


def identity_of_path(path: str) -> tuple[str, str] | None:
    """Id and version of the capsule at a path, or None if no capsule is meant."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    plugin_id, version, _ = found.groups()
    try:
        check_id(plugin_id), check_version(version)
    except ValueError:
        return None
    return (plugin_id, version) if path == target_path(plugin_id, version) else None


def offer_of(custom: Any, plugin_id: str, version: str) -> Offer | None:
    """What the custom field says, or None if it says nothing.

    Raises:
        RepositoryError: `repository.metadata`: it is malformed, or speaks of another capsule.
    """
    if not isinstance(custom, dict) or "capwasm" not in custom:
        return None
    try:
        offer = validate(Offer, custom["capwasm"], RepositoryError)
        _ = offer.since
    except (RepositoryError, ValueError) as exc:
        raise RepositoryError(
            f"what it says of {plugin_id}@{version} is malformed", code="repository.metadata"
        ) from exc
    if (offer.id, offer.version) != (plugin_id, version):
        raise RepositoryError(
            f"the target of {plugin_id}@{version} is said to be {offer.id}@{offer.version}",
            code="repository.metadata",
        )
    return offer


def tuf_key(public: PublicKey) -> Key:
    """A public key as TUF's metadata hold it; its id is our own, the digest of its DER."""
    from securesystemslib.signer import SSlibKey

    if public.algorithm == "ed25519":
        return SSlibKey(public.key_id, "ed25519", "ed25519", {"public": public.der[-32:].hex()})
    pem = public.pem().decode()
    return SSlibKey(public.key_id, "ecdsa", "ecdsa-sha2-nistp256", {"public": pem})


def public_key_of(key: Key) -> PublicKey:
    """The key in our own form, which no weak key has (SIG-11, SIG-13).

    Raises:
        RepositoryError: `repository.key`: another algorithm or curve, or a malformed key.
    """
    value = key.keyval.get("public")
    try:
        if not isinstance(value, str):
            raise ValueError("no public key")  # noqa: TRY004  told as all others below
        if (key.keytype, key.scheme) == ("ed25519", "ed25519"):
            public = PublicKey.parse(base64.b64encode(_ED25519_DER + bytes.fromhex(value)))
        elif key.keytype in {"ecdsa", key.scheme} and key.scheme == "ecdsa-sha2-nistp256":
            public = PublicKey.parse(value)
        else:
            raise ValueError(f"{key.keytype} with {key.scheme}")
    except (PolicyError, ValueError) as exc:
        raise RepositoryError(
            f"key {key.keyid[:16]!a} is none that counts: {exc}; keys are Ed25519 or ECDSA"
            " over P-256",
            code="repository.key",
        ) from None
    return public


def check_keys(root: Root) -> None:
    """Pass if every key of the root is strong, and no key stands there twice under two ids.

    A key that counted twice would meet a threshold alone (SIG-12).

    Raises:
        RepositoryError: `repository.key`.
    """
    seen: set[PublicKey] = set()
    for key in root.keys.values():
        public = public_key_of(key)
        if public in seen:
            raise RepositoryError(
                f"key {public.key_id[:16]} stands in the root under two ids", code="repository.key"
            )
        seen.add(public)
