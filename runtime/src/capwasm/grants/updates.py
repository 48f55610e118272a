"""The `[updates]` table of a policy: what a new version must bear before it serves."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from capwasm._model import Model

__all__ = ["ErrorBudget", "UpdatesRule"]


class ErrorBudget(Model):
    """How often a new version may fail before the one that served before comes back."""

    calls: Annotated[
        int, Field(ge=1, le=1_000_000, description="Of its first calls, how many are watched.")
    ] = 100
    hours: Annotated[
        int, Field(ge=1, le=8760, description="For how long at most, from when it began to serve.")
    ] = 24
    failures: Annotated[
        int,
        Field(
            ge=0,
            le=1_000_000,
            description="At so many crashes, traps and broken limits the version goes back; 0: never.",
        ),
    ] = 5


class UpdatesRule(Model):
    """The `[updates]` table: which new versions serve without a person, and how they prove good."""

    automatic: Annotated[
        bool,
        Field(description="Whether an update that asks for nothing new serves without a person."),
    ] = True
    min_age_hours: Annotated[
        int, Field(ge=0, le=8760, description="Hours since its release, before which none serves.")
    ] = 0
    error_budget: Annotated[
        ErrorBudget, Field(description="How often a new version may fail, early on.")
    ] = ErrorBudget()
