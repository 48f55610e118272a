"""Whom the operator trusts: keys with roles, scopes and validity, and how many must sign.

A trust store is a TOML file, or a directory of them.  All of them must be sound: one fault in one
file, and nothing is trusted.  `TrustStore.judge` is the one place that decides whether the keys
that signed are enough.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, Literal, Self, get_args

from pydantic import AfterValidator, Field

from capwasm._files import read_file
from capwasm._model import MAX_TEXT_BYTES, Model, parse_toml, validate
from capwasm.errors import Fault, PolicyError, VerificationError

from .identity import IdPattern, id_matches
from .keys import MAX_KEY_BYTES, PublicKey

__all__ = ["REVOKED_BY", "Requirement", "Role", "TrustStore", "TrustedKey", "parse_time"]

# official: the maker of the core.  marketplace: it scanned and accepted the plugin.  publisher: it
# wrote the plugin.  reviewer: a person who read it; says nothing of where it comes from.  revoker:
# says what may no longer run, and nothing else.
Role = Literal["official", "marketplace", "publisher", "reviewer", "revoker"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
ORIGINS: Final[frozenset[Role]] = frozenset({"official", "marketplace", "publisher"})
SCHEMA: Final = 1
MAX_KEYS: Final = 256
MAX_FILES: Final = 64

_RFC3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:Z|[+-][0-9]{2}:[0-9]{2})"
)


def parse_time(text: str) -> datetime:
    """The time that a text of RFC 3339 names, with its zone.

    Raises:
        ValueError: it is none.
    """
    if not _RFC3339.fullmatch(text):
        raise ValueError("not a time of RFC 3339, such as 2027-01-31T00:00:00Z")
    return datetime.fromisoformat(text)


def _time(text: str) -> str:
    parse_time(text)
    return text


def _public(text: str) -> str:
    try:
        PublicKey.parse(text)
    except PolicyError as exc:
        raise ValueError(exc.message) from None
    return text


_Time = Annotated[str, AfterValidator(_time)]


class _Key(Model):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}$")]
    public: Annotated[str, Field(max_length=MAX_KEY_BYTES), AfterValidator(_public)]
    roles: Annotated[tuple[Role, ...], Field(min_length=1)]
    ids: Annotated[tuple[IdPattern, ...], Field(min_length=1)]
    not_before: _Time | None = None
    not_after: _Time | None = None
    revoked: bool = False

    def trusted(self) -> TrustedKey:
        return TrustedKey(
            name=self.name,
            key=PublicKey.parse(self.public),
            roles=frozenset(self.roles),
            ids=self.ids,
            not_before=datetime.fromisoformat(self.not_before) if self.not_before else None,
            not_after=datetime.fromisoformat(self.not_after) if self.not_after else None,
            revoked=self.revoked,
        )


class _RoleRule(Model):
    name: Role
    threshold: Annotated[int, Field(ge=1, le=16)]


class _Document(Model):
    schema_number: Annotated[int, Field(alias="schema", ge=1, le=SCHEMA)]
    key: Annotated[tuple[_Key, ...], Field(max_length=MAX_KEYS)] = ()
    role: tuple[_RoleRule, ...] = ()


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A key, and what its signature is worth.

    Attributes:
        name: for people; no decision looks at it.
        key: the key itself.   roles: in which it signs.
        ids: patterns of the plugin ids that it may sign for.
        not_before, not_after: half-open validity, at the time of the load; None is open.
        revoked: its signature counts for nothing, but must still be a true one.
    """

    name: str
    key: PublicKey
    roles: frozenset[Role]
    ids: tuple[str, ...]
    not_before: datetime | None = None
    not_after: datetime | None = None
    revoked: bool = False

    def refusal(self, now: datetime, plugin_id: str | None) -> tuple[str, str] | None:
        """Why this key's signature does not count, as code and message; None if it does.

        Args:
            now: with a time zone.
            plugin_id: as signed; None while the statement has not been read.
        """
        if self.revoked:
            return "verify.key-revoked", "revoked"
        if self.not_before is not None and now < self.not_before:
            return "verify.key-expired", f"not valid before {self.not_before.isoformat()}"
        if self.not_after is not None and now >= self.not_after:
            return "verify.key-expired", f"not valid after {self.not_after.isoformat()}"
        if plugin_id is not None and not any(id_matches(p, plugin_id) for p in self.ids):
            return "verify.key-scope", f"may sign for {', '.join(self.ids)}, not {plugin_id}"
        return None


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
    """Trusted keys, and how many distinct ones each role needs.

    Attributes:
        keys: no two with the same bytes or name.
        thresholds: by role; 1 where there is none.

    Raises:
        PolicyError: `trust.invalid`, with all faults.
    """

    keys: tuple[TrustedKey, ...] = ()
    thresholds: Mapping[Role, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a store that contradicts itself."""
        faults = [*_key_faults(self.keys), *_threshold_faults(self.keys, self.thresholds)]
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
        thresholds: dict[Role, int] = {}
        faults: list[Fault] = []
        for file in _files(Path(path)):
            document = _read(file)
            keys += [key.trusted() for key in document.key]
            for rule in document.role:
                if rule.name in thresholds:
                    faults.append(Fault(f"role {rule.name}", f"a second rule, in {file.name!a}"))
                thresholds[rule.name] = rule.threshold
        if faults:
            raise PolicyError("a role has two rules", code="trust.invalid", faults=faults)
        return cls(tuple(keys), thresholds)

    def find(self, key_id: str) -> TrustedKey | None:
        """The key of that id, if it is trusted at all."""
        return next((k for k in self.keys if k.key.key_id == key_id), None)

    def judge(
        self,
        signed_by: Iterable[TrustedKey],
        requirement: Requirement,
        now: datetime,
        *,
        plugin_id: str | None = None,
        strangers: Iterable[str] = (),
    ) -> tuple[TrustedKey, ...]:
        """Decide whether these keys of the store, whose signatures are true, are enough.

        A key counts once, however often it signed (SIG-12), and only while it is valid, not
        revoked, and allowed for the plugin.

        Args:
            signed_by: keys whose signature was verified.
            requirement: whose word is needed.
            now: with a time zone.
            plugin_id: as signed; None to ask before the statement is read, whatever the scopes.
            strangers: key ids that signatures name and the store does not hold, for the message.

        Returns:
            The keys that count.

        Raises:
            VerificationError: `verify.untrusted-key`, `verify.threshold`, `verify.key-revoked`,
                `verify.key-expired`, `verify.key-scope` or `verify.key-role`, with a fault for
                each key that does not count.
        """
        counted: dict[bytes, TrustedKey] = {}
        refused: list[tuple[str, Fault]] = []
        for key in signed_by:
            reason = key.refusal(now, plugin_id)
            if reason is None:
                counted[key.key.der] = key
            else:
                refused.append((reason[0], Fault(f"key {key.name}", reason[1])))
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
        unknown = [
            Fault(
                f"signature {key_id[:16]}",
                "by a key that the trust store does not hold",
                fix="add a [[key]] with its name, public, roles and ids, if you trust its owner",
            )
            for key_id in strangers
        ]
        raise VerificationError(
            message, code=code, faults=[*(f for _, f in refused), *unknown, *missing]
        )

    def _missing(self, keys: Iterable[TrustedKey], requirement: Requirement) -> list[Fault]:
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
    try:
        return validate(_Document, doc, PolicyError, context=context)
    except PolicyError as exc:
        raise PolicyError(
            exc.message, code="trust.invalid", context=context, faults=exc.faults
        ) from None


def _key_faults(keys: Sequence[TrustedKey]) -> Iterable[Fault]:
    names: set[str] = set()
    ders: dict[bytes, str] = {}
    for key in keys:
        where = f"key {key.name}"
        if key.name in names:
            yield Fault(where, "two keys have this name")
        if key.key.der in ders:
            yield Fault(where, f"the same key as {ders[key.key.der]}: a key stands once")
        if not key.roles or not key.ids:
            yield Fault(where, "a key has one or more roles and ids")
        if "reviewer" in key.roles and len(key.roles) > 1:
            yield Fault(where, "a reviewer's key has no other role: nobody reviews his own plugin")
        if "revoker" in key.roles and (len(key.roles) > 1 or "*" not in key.ids):
            yield Fault(where, 'a revoker\'s key has no other role, and ids = ["*"]')
        times = [t for t in (key.not_before, key.not_after) if t is not None]
        if any(t.tzinfo is None for t in times):
            yield Fault(where, "a time needs a time zone")
        elif len(times) == 2 and times[0] >= times[1]:
            yield Fault(where, "not-after is not later than not-before")
        names.add(key.name)
        ders[key.key.der] = key.name


def _threshold_faults(
    keys: Sequence[TrustedKey], thresholds: Mapping[Role, int]
) -> Iterable[Fault]:
    for role, threshold in thresholds.items():
        # Revoked keys are counted: revoking one must not make the whole store unreadable.
        count = sum(role in key.roles for key in keys)
        if role not in ROLES or threshold < 1:
            yield Fault(f"role {role}", f"a threshold of 1 or more for {', '.join(ROLES)}")
        elif threshold > count:
            yield Fault(f"role {role}", f"needs {threshold} keys, and only {count} have this role")


def utc_now() -> datetime:
    """The time of the system's clock, with its zone."""
    return datetime.now(UTC)
