"""The words of a policy that speak of the runtime as a whole, and of no capability."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from capwasm._model import Model

from ._document import shown_text
from .audit import AuditRule
from .governance import GovernanceRule
from .isolation import IsolationRule
from .review import ReviewRule
from .scan import ScanRule
from .strikes import StrikesRule
from .updates import UpdatesRule

__all__ = ["ConsentRule", "Head", "RevocationRule", "Tables", "TrustRule"]


def _date(text: str) -> str:
    try:
        date.fromisoformat(text)
    except ValueError:
        raise ValueError("not a date such as 2027-01-31") from None
    return text


def _url(text: str) -> str:
    if text and not text.startswith(("https://", "http://")):
        raise ValueError("not a URL that begins with https://")
    return shown_text(text)


class Head(Model):
    """The words at the top of a policy."""

    owner: Annotated[
        str,
        Field(max_length=200, description="Who answers for the policy; denials name them."),
        AfterValidator(shown_text),
    ] = ""
    review_by: Annotated[
        str | None,
        Field(description="The day by which it is to be looked at again, such as 2027-01-31."),
        AfterValidator(lambda text: text if text is None else _date(text)),
    ] = None


class TrustRule(Model):
    """The `[trust]` table: whose signature a load needs.  Thresholds stand in the trust store."""

    require: Annotated[
        tuple[Literal["official", "marketplace", "publisher"], ...],
        Field(min_length=1, description="Roles that say where a plugin comes from: one of these."),
    ] = ("marketplace", "official", "publisher")
    reviewed: Annotated[bool, Field(description="Whether reviewers must have signed as well.")] = (
        False
    )


class ConsentRule(Model):
    """The `[consent]` table: what needs no person's consent."""

    automatic: Annotated[
        tuple[str, ...],
        Field(description="Capabilities whose low and medium risks the policy consents to itself."),
    ] = ()


class RevocationRule(Model):
    """The `[revocation]` table: where the revocation feed comes from, and how old it may be."""

    max_age_hours: Annotated[
        int,
        Field(ge=1, le=8760, description="Hours since it was issued, after which it is stale."),
    ] = 24
    stale: Annotated[
        Literal["report", "refuse"],
        Field(description="Whether a stale or missing feed is only told of, or refuses each load."),
    ] = "report"
    url: Annotated[
        str,
        Field(max_length=2048, description="Where a running core fetches it; from files if empty."),
        AfterValidator(_url),
    ] = ""
    every_minutes: Annotated[
        int, Field(ge=1, le=1440, description="How often it is fetched from there.")
    ] = 15


class Tables(Model):
    """The tables that there are once, each with what it says when it is left out."""

    governance: GovernanceRule = GovernanceRule()
    trust: TrustRule = TrustRule()
    consent: ConsentRule = ConsentRule()
    updates: UpdatesRule = UpdatesRule()
    review: ReviewRule = ReviewRule()
    strikes: StrikesRule = StrikesRule()
    revocation: RevocationRule = RevocationRule()
    isolation: IsolationRule = IsolationRule()
    scan: ScanRule = ScanRule()
    audit: AuditRule = AuditRule()
