"""The `[review]` table of a policy: whose word a plugin needs before it serves."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from capwasm._model import Model

__all__ = ["ReviewRule"]

_Severity = Literal["note", "low", "medium", "high", "critical"]


class ReviewRule(Model):
    """The `[review]` table: what must have been said of a plugin before it serves."""

    required: Annotated[
        bool,
        Field(
            description="Whether nothing serves, or is loaded, without a scan and the approvals that"
            " it needs."
        ),
    ] = False
    approvals: Annotated[
        int,
        Field(
            ge=1,
            le=16,
            description="How many reviewers must approve what asks for a high risk, or has a finding"
            " as grave as `person`; more if the trust store's threshold for reviewers is higher.",
        ),
    ] = 1
    automatic: Annotated[
        bool,
        Field(
            description="Whether all else is approved by this policy; if not, it needs them too."
        ),
    ] = True
    person: Annotated[
        _Severity, Field(description="Findings as grave as this need reviewers who saw them.")
    ] = "medium"
    block: Annotated[
        _Severity,
        Field(description="Findings as grave as this need a security exception each."),
    ] = "high"
    exception_days: Annotated[
        int,
        Field(ge=1, le=366, description="For how many days at most a security exception holds."),
    ] = 90
