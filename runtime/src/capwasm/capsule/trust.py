"""Whom the operator trusts: keys with roles, scopes and validity, and how many must sign.

A trust store is a TOML file, or a directory of them.  All of them must be sound: one fault in one
file, and nothing is trusted.  `TrustStore.judge` is the one place that decides whether the keys
that signed are enough.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, Self

from pydantic import Field

from capwasm._files import read_file
from capwasm._model import MAX_TEXT_BYTES, Model, parse_json, parse_toml, validate
from capwasm.errors import Fault, PolicyError, VerificationError

from .trusted import (
    ORIGINS,
    ROLES,
    WAIVERS,
    IdentityEntry,
    KeyEntry,
    Role,
    Trusted,
    TrustedIdentity,
    TrustedKey,
    parse_time,
    person,
)

__all__ = [
    "ORIGINS",
    "REVOKED_BY",
    "Requirement",
    "Role",
    "TrustStore",
    "TrustedIdentity",
    "TrustedKey",
    "parse_time",
]

SCHEMA: Final = 1
MAX_KEYS: Final = 256
MAX_FILES: Final = 64


class _RoleRule(Model):
    name: Role
    threshold: Annotated[int, Field(ge=1, le=16)]


class _Sigstore(Model):
    # A name beside the trust store, never a path: what the store trusts lies where it lies.
    trusted_root: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class _Document(Model):
    schema_number: Annotated[int, Field(alias="schema", ge=1, le=SCHEMA)]
    key: Annotated[tuple[KeyEntry, ...], Field(max_length=MAX_KEYS)] = ()
    identity: Annotated[tuple[IdentityEntry, ...], Field(max_length=MAX_KEYS)] = ()
    sigstore: _Sigstore | None = None
    role: tuple[_RoleRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Requirement:
    """Whose word is needed for a load.

    Attributes:
        any_of: roles that say where a plugin comes from; one of them, at its threshold, is needed.
            `{"revoker"}` alone is what a revocation feed needs, and no capsule can meet.
        reviewed: whether reviewers, at their threshold, must have signed as well.

    Raises:
        ValueError: for no role, or one that says nothing of the origin: an empty requirement
            would be met by anybody.
    """

    any_of: frozenset[Role] = ORIGINS
    reviewed: bool = False

    def __post_init__(self) -> None:
        """Refuse a requirement that asks for nothing."""
        if self.any_of != {"revoker"} and (not self.any_of or not self.any_of <= ORIGINS):
            raise ValueError(f"any_of needs one or more of {', '.join(sorted(ORIGINS))}")


REVOKED_BY: Final = Requirement(frozenset({"revoker"}))
"""Whose word a revocation feed needs."""


@dataclass(frozen=True, slots=True)
class TrustStore:
    """Trusted keys and identities, and how many distinct ones each role needs.

    Attributes:
        keys: no two with the same bytes or name.
        thresholds: by role; 1 where there is none.
        identities: no two with the same name, and none that shares a certificate with another.
        sigstore_root: the Sigstore trusted root (JSON) that the operator pinned, as it was in its
            file; None, and no identity can be known.

    Raises:
        PolicyError: `trust.invalid`, with all faults.
    """

    keys: tuple[TrustedKey, ...] = ()
    thresholds: Mapping[Role, int] = field(default_factory=dict)
    identities: tuple[TrustedIdentity, ...] = ()
    sigstore_root: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse a store that contradicts itself."""
        everybody: tuple[Trusted, ...] = (*self.keys, *self.identities)
        faults = [*_faults(everybody), *_threshold_faults(everybody, self.thresholds)]
        if self.identities and self.sigstore_root is None:
            faults.append(
                Fault(
                    "sigstore",
                    "an identity needs the authorities that vouch for it",
                    fix='[sigstore]\ntrusted-root = "trusted_root.json"',
                )
            )
        if faults:
            raise PolicyError(
                "the trust store contradicts itself", code="trust.invalid", faults=faults
            )
        object.__setattr__(self, "thresholds", MappingProxyType(dict(self.thresholds)))

    @classmethod
    def empty(cls) -> Self:
        """A store that trusts nobody: every verification fails with `verify.no-trust-store`."""
        return cls()

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read a file, or all `*.toml` of a directory.

        Raises:
            PolicyError: `trust.unreadable`, `trust.permissions` (anyone may write it, or another user
                owns it),
                `trust.toml`, `trust.schema`, else `trust.invalid` with all faults of the file.
        """
        keys: list[TrustedKey] = []
        identities: list[TrustedIdentity] = []
        roots: list[bytes] = []
        thresholds: dict[Role, int] = {}
        faults: list[Fault] = []
        for file in _files(Path(path)):
            document = _read(file)
            keys += [key.trusted() for key in document.key]
            identities += [identity.trusted() for identity in document.identity]
            if document.sigstore is not None:
                if roots:
                    faults.append(Fault("sigstore", f"a second root, in {file.name!a}"))
                roots.append(_read_root(file.with_name(document.sigstore.trusted_root)))
            for rule in document.role:
                if rule.name in thresholds:
                    faults.append(Fault(f"role {rule.name}", f"a second rule, in {file.name!a}"))
                thresholds[rule.name] = rule.threshold
        if faults:
            raise PolicyError("a thing is said twice", code="trust.invalid", faults=faults)
        return cls(tuple(keys), thresholds, tuple(identities), roots[0] if roots else None)

    def find(self, key_id: str) -> TrustedKey | None:
        """The key of that id, if it is trusted at all."""
        return next((k for k in self.keys if k.key.key_id == key_id), None)

    def judge(
        self,
        signed_by: Iterable[Trusted],
        requirement: Requirement,
        now: datetime,
        *,
        plugin_id: str | None = None,
        strangers: Iterable[str] = (),
        unknown: Iterable[Fault] = (),
    ) -> tuple[Trusted, ...]:
        """Decide whether these of the store, whose signatures are true, are enough.

        A key or an identity counts once, however often it signed (SIG-12), and only while it is valid, not
        revoked, and allowed for the plugin.

        Args:
            signed_by: keys and identities whose signature was verified.
            requirement: whose word is needed.
            now: with a time zone.
            plugin_id: as signed; None to ask before the statement is read, whatever the scopes.
            strangers: key ids that signatures name and the store does not hold, for the message.
            unknown: what else was there and counts for nothing, for the message.

        Returns:
            Those that count.

        Raises:
            VerificationError: `verify.untrusted-key`, `verify.threshold`, `verify.key-revoked`,
                `verify.key-expired`, `verify.key-scope` or `verify.key-role`, with a fault for
                each that does not count.
        """
        counted: dict[bytes, Trusted] = {}
        refused: list[tuple[str, Fault]] = []
        for signer in signed_by:
            reason = signer.refusal(now, plugin_id)
            if reason is None:
                counted[signer.essence] = signer
            else:
                refused.append((reason[0], Fault(signer.label, reason[1])))
        missing = self._missing(counted.values(), requirement)
        if not missing:
            return tuple(counted.values())
        asked = requirement.any_of | ({"reviewer"} if requirement.reviewed else set())
        if any(key.roles & asked for key in counted.values()):
            code, message = "verify.threshold", "too few trusted keys signed"
        elif refused:
            code, message = min((c for c, _ in refused), key=_GRAVITY.index), "no key counts"
        elif counted:
            code, message = "verify.key-role", "the keys that signed have other roles"
        else:
            code, message = "verify.untrusted-key", "no trusted key signed"
        others = [
            Fault(
                f"signature {key_id[:16]}",
                "by a key that the trust store does not hold",
                fix="add a [[key]] with its name, public, roles and ids, if you trust its owner",
            )
            for key_id in strangers
        ]
        raise VerificationError(
            message, code=code, faults=[*(f for _, f in refused), *others, *unknown, *missing]
        )

    def _missing(self, keys: Iterable[Trusted], requirement: Requirement) -> list[Fault]:
        counts = dict.fromkeys(ROLES, 0)
        for key in keys:
            for role in key.roles:
                counts[role] += 1

        def short(role: Role) -> Fault | None:
            need = self.thresholds.get(role, 1)
            if counts[role] >= need:
                return None
            return Fault(f"role {role}", f"needs {need} distinct keys, has {counts[role]}")

        origins = [short(role) for role in sorted(requirement.any_of)]
        missing = [] if None in origins else [f for f in origins if f]
        if requirement.reviewed and (review := short("reviewer")):
            missing.append(review)
        return missing


# The gravest reason is the one that an operator must hear.
_GRAVITY: Final = ("verify.key-revoked", "verify.key-expired", "verify.key-scope")


def _files(path: Path) -> Sequence[Path]:
    try:
        if not path.is_dir():
            return [path]
        info = path.stat()
        files = sorted(p for p in path.iterdir() if p.suffix == ".toml" and p.name[0] != ".")
    except OSError as exc:
        raise PolicyError(
            f"can't be read: {exc.strerror}", code="trust.unreadable", context=ascii(str(path))
        ) from exc
    if info.st_mode & 0o002 or info.st_uid not in {0, os.geteuid()}:
        raise PolicyError(
            "another user owns this directory, or anyone may write it; run: chmod o-w on it",
            code="trust.permissions",
            context=ascii(str(path)),
        )
    if len(files) > MAX_FILES:
        raise PolicyError(f"more than {MAX_FILES} files", code="trust.invalid")
    return files


def _read(file: Path) -> _Document:
    context = ascii(str(file))[1:-1]
    data = read_file(
        file,
        MAX_TEXT_BYTES,
        PolicyError,
        code="trust.unreadable",
        too_large="trust.toml",
        refuse_mode=0o002,
        refuse_owner=True,
        mode_code="trust.permissions",
    )
    doc = parse_toml(data, PolicyError, code="trust.toml", context=context)
    schema = doc.get("schema")
    if isinstance(schema, int) and SCHEMA < schema < 2**63:
        raise PolicyError(
            f"schema {schema}; this runtime knows up to {SCHEMA}",
            code="trust.schema",
            context=context,
        )
    return validate(_Document, doc, PolicyError, code="trust.invalid", context=context)


def _read_root(file: Path) -> bytes:
    """The pinned root, as bytes; what is in it, `bundle` reads."""
    data = read_file(
        file,
        MAX_TEXT_BYTES,
        PolicyError,
        code="trust.unreadable",
        refuse_mode=0o002,
        refuse_owner=True,
        mode_code="trust.permissions",
    )
    parse_json(data, PolicyError, code="trust.invalid", context=ascii(str(file))[1:-1])
    return data


def _faults(everybody: Sequence[Trusted]) -> Iterable[Fault]:
    names: set[str] = set()
    for n, signer in enumerate(everybody):
        where, kind = signer.label, signer.label.split()[0]
        a = "a key" if kind == "key" else "an identity"
        if signer.name in names:
            yield Fault(where, "two keys or identities have this name")
        twin = next((s for s in everybody[:n] if _same(s, signer)), None)
        if twin is not None:
            yield Fault(where, f"the same {kind} as {twin.name}: {a} stands once")
        if not signer.roles or not signer.ids:
            yield Fault(where, f"{a} has one or more roles and ids")
        if "reviewer" in signer.roles and len(signer.roles) > 1:
            yield Fault(where, "a reviewer has no other role: nobody reviews his own plugin")
        if signer.roles & WAIVERS and signer.roles - WAIVERS:
            yield Fault(where, "who may sign exceptions has no other role than those two")
        if signer.roles & WAIVERS and isinstance(signer, TrustedIdentity):
            yield Fault(where, "exceptions are signed by keys: no identity signs them")
        if signer.roles & {*WAIVERS, "reviewer"} and not person(signer.name):
            yield Fault(where, "a person has a name before the slash")
        if "revoker" in signer.roles:
            if isinstance(signer, TrustedIdentity):
                yield Fault(where, "a feed is signed by keys: no identity is a revoker")
            elif len(signer.roles) > 1 or "*" not in signer.ids:
                yield Fault(where, 'a revoker\'s key has no other role, and ids = ["*"]')
        times = [t for t in (signer.not_before, signer.not_after) if t is not None]
        if any(t.tzinfo is None for t in times):
            yield Fault(where, "a time needs a time zone")
        elif len(times) == 2 and times[0] >= times[1]:
            yield Fault(where, "not-after is not later than not-before")
        names.add(signer.name)


def _same(a: Trusted, b: Trusted) -> bool:
    if isinstance(a, TrustedIdentity) and isinstance(b, TrustedIdentity):
        return a.overlaps(b)
    return a.essence == b.essence


def _threshold_faults(
    everybody: Sequence[Trusted], thresholds: Mapping[Role, int]
) -> Iterable[Fault]:
    for role, threshold in thresholds.items():
        # Revoked ones are counted: revoking one must not make the whole store unreadable.
        count = sum(role in signer.roles for signer in everybody)
        if role not in ROLES or threshold < 1:
            yield Fault(f"role {role}", f"a threshold of 1 or more for {', '.join(ROLES)}")
        elif threshold > count:
            yield Fault(f"role {role}", f"needs {threshold} keys, and only {count} have this role")


def utc_now() -> datetime:
    """The time of the system's clock, with its zone."""
    return datetime.now(UTC)
