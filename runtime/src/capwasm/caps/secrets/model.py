"""Which secrets a plugin may use, how, and towards whom."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from capwasm.caps._tables import Table
from capwasm.lattice import (
    Clause,
    _Bottom,
    meet_min,
    meet_same,
    meet_set,
    within_min,
    within_same,
    within_set,
)

from .origin import canonical_origin

__all__ = [
    "DEFAULT_LEASE_MS",
    "NAME",
    "AskedSecret",
    "GivenSecret",
    "SecretClause",
    "Use",
    "canonical_header",
]

Use = Literal["inject", "reveal"]

NAME: Final = r"^[a-z][a-z0-9]*([._-][a-z0-9]+)*$"
MAX_NAME: Final = 64
MAX_ORIGINS: Final = 32
MAX_HEADER: Final = 256
DEFAULT_LEASE_MS: Final = 3_600_000
MAX_LEASE_MS: Final = 24 * 3_600_000

_HEADER: Final = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+): ([!-~](?:[ -~]*[!-~])?)", re.ASCII)
# Headers that frame a message or steer a proxy: a secret in one of them changes what is sent.
_NOT_FOR_SECRETS: Final = frozenset(
    [
        *("connection", "content-encoding", "content-length", "expect", "host", "keep-alive"),
        *("proxy-authorization", "proxy-connection", "range", "te", "trailer"),
        *("transfer-encoding", "upgrade", "via"),
    ]
)


def canonical_header(text: str) -> str:
    """The one spelling of a header template: `Authorization: Bearer {}`.

    Raises:
        ValueError: it has not the form, not exactly one `{}`, or is a header that frames messages.
    """
    found = _HEADER.fullmatch(text)
    if found is None or len(text) > MAX_HEADER:
        raise ValueError('not a header: write "Name: text {}", visible ASCII, one space after ":"')
    name, value = found[1].lower(), found[2]
    if value.count("{}") != 1 or value.count("{") != 1 or value.count("}") != 1:
        raise ValueError("exactly one {} must stand in the header's value, where the secret goes")
    if name in _NOT_FOR_SECRETS:
        raise ValueError(f"the header {name} is the host's own and can't carry a secret")
    return "-".join(part.capitalize() for part in name.split("-")) + f": {value}"


Origin = Annotated[str, AfterValidator(canonical_origin)]
Header = Annotated[str, AfterValidator(canonical_header)]


class GivenSecret(Table):
    """A `[[secret]]` table of a policy or a consent."""

    name: Annotated[
        str,
        StringConstraints(pattern=NAME, max_length=MAX_NAME),
        Field(description="The secret's name in the vault."),
    ]
    use: Annotated[
        Use | Annotated[frozenset[Use], Field(min_length=1)],
        Field(description="inject: the host sends it.  reveal: the plugin sees it, a high risk."),
    ]
    origins: Annotated[frozenset[Origin], Field(min_length=1, max_length=MAX_ORIGINS)] | None = (
        Field(default=None, alias="for", description="The origins to which it may be sent.")
    )
    header: Header | None = Field(
        default=None,
        description='In which header it is sent, as "Authorization: Bearer {}".',
    )
    lease_ms: Annotated[int, Field(ge=1, le=MAX_LEASE_MS)] | None = Field(
        default=None, description="How long one handle serves; an hour if no side says."
    )

    @property
    def uses(self) -> frozenset[Use]:
        """What it may be used for."""
        return self.use if isinstance(self.use, frozenset) else frozenset({self.use})

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if "inject" in self.uses and self.origins is None:
            raise ValueError('use = "inject" needs for = ["https://…"]: the origins it may go to')
        if "inject" not in self.uses and (self.origins or self.header):
            raise ValueError('for and header belong to use = "inject"')
        return self

    def clauses(self) -> Iterator[SecretClause]:
        """One a use: to send a secret and to see it are separate powers."""
        if "inject" in self.uses:
            yield SecretClause(self.name, "inject", self.origins, self.header, self.lease_ms)
        if "reveal" in self.uses:
            yield SecretClause(self.name, "reveal", None, None, self.lease_ms)


class AskedSecret(GivenSecret):
    """A `[[secret]]` table of a manifest: it says in which header; a policy may leave that open."""

    @model_validator(mode="after")
    def _header_is_named(self) -> Self:
        if "inject" in self.uses and self.header is None:
            raise ValueError(
                'use = "inject" needs a header, such as header = "Authorization: Bearer {}"'
            )
        return self


@dataclass(frozen=True, slots=True)
class SecretClause(Clause):
    """One use of one secret.  Neither use implies the other.

    Attributes:
        name: the vault's name of it.
        use: `inject`: the host sends it, and the guest never has it; `reveal`: the guest sees it.
        origins: where `inject` may send it; exact, canonical (see `canonical_origin`).
        header: in which header; one `{}` stands for the secret.  None leaves it open.
        lease_ms: how long one handle serves, in milliseconds.
    """

    name: str
    use: Use
    origins: frozenset[str] | None = None
    header: str | None = None
    lease_ms: int | None = None

    def meet(self, other: Self) -> Self | None:
        """The same use of the same secret: towards origins of both, for the shorter time."""
        origins = meet_set(self.origins, other.origins)
        header = meet_same(self.header, other.header)
        if (
            (self.name, self.use) != (other.name, other.use)
            or isinstance(origins, _Bottom)
            or isinstance(header, _Bottom)
        ):
            return None
        lease_ms = meet_min(self.lease_ms, other.lease_ms)
        return type(self)(self.name, self.use, origins, header, lease_ms)

    def within(self, other: Self) -> bool:
        """Whether it uses no other secret, otherwise, elsewhere or longer than `other`."""
        return self.satisfied_by(other) and within_min(self.lease_ms, other.lease_ms)

    def satisfied_by(self, granted: Self) -> bool:
        """Whether `granted` allows this use towards all these origins; its lease may be shorter."""
        return (
            (self.name, self.use) == (granted.name, granted.use)
            and within_set(self.origins, granted.origins)
            and within_same(self.header, granted.header)
        )

    def injects(self, name: str, origin: str) -> bool:
        """Whether the host may send that secret to that origin."""
        return (
            self.use == "inject"
            and self.name == name
            and (self.origins is None or origin in self.origins)
        )

    def reveals(self, name: str) -> bool:
        """Whether the guest may see that secret."""
        return self.use == "reveal" and self.name == name

    def describe(self) -> str:
        """One line for a person."""
        if self.use == "reveal":
            return f"see the secret {self.name}"
        to = ", ".join(sorted(self.origins)) if self.origins is not None else "any origin"
        return f"have the secret {self.name} sent to {to}" + (
            f' as "{self.header}"' if self.header else ""
        )

    def to_toml(self) -> dict[str, Any]:
        """The table, with what is not open."""
        table: dict[str, Any] = {"name": self.name, "use": self.use}
        if self.origins is not None:
            table["for"] = sorted(self.origins)
        if self.header is not None:
            table["header"] = self.header
        if self.lease_ms is not None:
            table["lease-ms"] = self.lease_ms
        return table
