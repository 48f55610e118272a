"""The `[strikes]` table of a policy: how much a plugin may misbehave before it is stopped."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from capwasm._model import Model

__all__ = ["Points", "StrikesRule"]

_Most = Field(ge=0, le=1_000_000)
_Word = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9.-]{0,63}$")]


class Points(Model):
    """What each thing counts; 0: nothing."""

    denial: Annotated[
        int,
        _Most,
        Field(description="A denial: of files, network, secrets, commands, stores, or by WASI."),
    ] = 1
    limit: Annotated[int, _Most, Field(description="A call that went over a limit.")] = 20
    crash: Annotated[
        int, _Most, Field(description="A trap, or the death of the plugin's process.")
    ] = 50


class StrikesRule(Model):
    """The `[strikes]` table: how much a plugin may misbehave before it is stopped."""

    suspend: Annotated[
        int,
        _Most,
        Field(description="At so many strikes within `minutes` it is suspended; 0: never."),
    ] = 1000
    minutes: Annotated[int, Field(ge=1, le=1440, description="For how long a strike counts.")] = 10
    points: Annotated[Points, Field(description="How many strikes each thing is.")] = Points()
    evict_after: Annotated[
        int,
        Field(
            ge=0,
            le=1000,
            description="At so many suspensions within `evict-days` it is evicted; 0: never.",
        ),
    ] = 0
    evict_days: Annotated[
        int, Field(ge=1, le=3650, description="For how long a suspension counts.")
    ] = 30
    grave: Annotated[
        tuple[_Word, ...],
        Field(
            max_length=64,
            description="Reasons or kinds of a denial, limit or crash that evict at once, such as"
            " `guest.protocol`.",
        ),
    ] = ()
    eviction: Annotated[
        Literal["revoke", "suspend"],
        Field(
            description="Whether an evicted version is revoked, for good, or suspended until a"
            " person says so."
        ),
    ] = "revoke"
