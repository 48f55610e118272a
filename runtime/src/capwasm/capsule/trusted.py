"""Who may be trusted: a key, or an identity that a Sigstore authority vouches for.

Both sign, in roles, for some plugins, for some time.  This is what a trust store holds and how its
file spells it; `trust` decides whether those that signed are enough.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Literal, TypeAlias, get_args

from pydantic import AfterValidator, Field

from capwasm._model import Model
from capwasm.errors import PolicyError

from .identity import IdPattern, id_matches
from .keys import MAX_KEY_BYTES, PublicKey

__all__ = [
    "ORIGINS",
    "ROLES",
    "WAIVERS",
    "IdentityEntry",
    "KeyEntry",
    "Role",
    "Trusted",
    "TrustedIdentity",
    "TrustedKey",
    "parse_time",
    "person",
]

# official: the maker of the core.  marketplace: it scanned and accepted the plugin.  publisher: it
# wrote the plugin.  reviewer: a person who read it; says nothing of where it comes from.  revoker:
# says what may no longer run, and nothing else.  security, engineering: persons who together let a
# plugin serve in spite of what was found.
Role = Literal[
    "official", "marketplace", "publisher", "reviewer", "revoker", "security", "engineering"
]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
ORIGINS: Final[frozenset[Role]] = frozenset({"official", "marketplace", "publisher"})
WAIVERS: Final[frozenset[Role]] = frozenset({"security", "engineering"})

_RFC3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:Z|[+-][0-9]{2}:[0-9]{2})"
)
# What the star of a subject stands for: the name of one tag or branch, never a path.
_ONE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")


def parse_time(text: str) -> datetime:
    """The time that a text of RFC 3339 names, with its zone.

    Raises:
        ValueError: it is none.
    """
    if not _RFC3339.fullmatch(text):
        raise ValueError("not a time of RFC 3339, such as 2027-01-31T00:00:00Z")
    return datetime.fromisoformat(text)


def person(name: str) -> str:
    """Whose key one of that name is: `Ann Lee` for `Ann Lee/laptop` and for `ann lee`.

    Two keys of one person count as one where distinct persons must agree.
    """
    return " ".join(name.partition("/")[0].split()).casefold()


class _Granted:
    """What keys and identities have in common: how far their word reaches."""

    __slots__ = ()

    roles: frozenset[Role]
    ids: tuple[str, ...]
    not_before: datetime | None
    not_after: datetime | None
    revoked: bool

    def refusal(self, now: datetime, plugin_id: str | None) -> tuple[str, str] | None:
        """Why this signer's word does not count, as code and message; None if it does.

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
class TrustedKey(_Granted):
    """A key, and what its signature is worth.

    Attributes:
        name: for people; where persons are counted, what stands before a slash is the person.
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

    @property
    def key_id(self) -> str:
        """SHA-256 of the key, in hex."""
        return self.key.key_id

    @property
    def essence(self) -> bytes:
        """What makes it this key and no other: its bytes."""
        return self.key.der

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"key {self.name}"


@dataclass(frozen=True, slots=True)
class TrustedIdentity(_Granted):
    """Somebody whom an issuer of identities names, and what a bundle by him is worth.

    Attributes:
        name: for people; no decision looks at it.
        issuer: the OIDC issuer, exactly as the certificate says it.
        subject: the one subject alternative name of the certificate: a mail address or a URI.  A
            star at the end, behind the slash of a Git reference, stands for one name of a tag or
            branch.
        roles, ids, not_before, not_after, revoked: as of a `TrustedKey`.
    """

    name: str
    issuer: str
    subject: str
    roles: frozenset[Role]
    ids: tuple[str, ...]
    not_before: datetime | None = None
    not_after: datetime | None = None
    revoked: bool = False

    @property
    def key_id(self) -> str:
        """SHA-256 of issuer and subject, in hex: the name of this signer, beside those of keys."""
        return hashlib.sha256(self.essence).hexdigest()

    @property
    def essence(self) -> bytes:
        """What makes it this identity and no other."""
        return f"sigstore\n{self.issuer}\n{self.subject}".encode()

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"identity {self.name}"

    def is_of(self, issuer: str, subject: str) -> bool:
        """Whether a certificate with this issuer and subject is one of this identity."""
        if issuer != self.issuer:
            return False
        stem, star, _ = self.subject.partition("*")
        if not star:
            return subject == self.subject
        return subject.startswith(stem) and bool(_ONE_NAME.fullmatch(subject[len(stem) :]))

    def overlaps(self, other: TrustedIdentity) -> bool:
        """Whether one certificate could be of both: it would count twice."""
        return (self.issuer, self.subject) == (other.issuer, other.subject) or (
            self.is_of(other.issuer, other.subject) or other.is_of(self.issuer, self.subject)
        )


Trusted: TypeAlias = TrustedKey | TrustedIdentity


def _time(text: str) -> str:
    parse_time(text)
    return text


def _public(text: str) -> str:
    try:
        PublicKey.parse(text)
    except PolicyError as exc:
        raise ValueError(exc.message) from None
    return text


def _subject(text: str) -> str:
    stem, star, rest = text.partition("*")
    if star and (rest or not re.search(r"@refs/(heads|tags)/$", stem)):
        raise ValueError("a star stands once, at the end, behind @refs/tags/ or @refs/heads/")
    return text


_Time = Annotated[str, AfterValidator(_time)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._@/-]{0,63}$")]


class _Entry(Model):
    name: _Name
    roles: Annotated[tuple[Role, ...], Field(min_length=1)]
    ids: Annotated[tuple[IdPattern, ...], Field(min_length=1)]
    not_before: _Time | None = None
    not_after: _Time | None = None
    revoked: bool = False

    @property
    def _from(self) -> datetime | None:
        return datetime.fromisoformat(self.not_before) if self.not_before else None

    @property
    def _until(self) -> datetime | None:
        return datetime.fromisoformat(self.not_after) if self.not_after else None


class KeyEntry(_Entry):
    """`[[key]]` of a trust store."""

    public: Annotated[str, Field(max_length=MAX_KEY_BYTES), AfterValidator(_public)]

    def trusted(self) -> TrustedKey:
        """The key."""
        return TrustedKey(
            self.name,
            PublicKey.parse(self.public),
            frozenset(self.roles),
            self.ids,
            self._from,
            self._until,
            self.revoked,
        )


class IdentityEntry(_Entry):
    """`[[identity]]` of a trust store."""

    # 127 bytes is what the short form of a DER string holds; no issuer comes near it.
    issuer: Annotated[str, Field(pattern=r"^https://[!-)+-~]{1,119}$")]
    subject: Annotated[str, Field(pattern=r"^[!-~]{3,512}$"), AfterValidator(_subject)]

    def trusted(self) -> TrustedIdentity:
        """The identity."""
        return TrustedIdentity(
            self.name,
            self.issuer,
            self.subject,
            frozenset(self.roles),
            self.ids,
            self._from,
            self._until,
            self.revoked,
        )
