"""The `[governance]` table: who answers for a policy, by when it is looked at again, and what if not.

This is the one place that knows what is due: `policy check` and `lint`, `doctor`, the runtime's
start, each load and the admin page ask it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Annotated, Any, Literal

from pydantic import Field

from capwasm._model import Model
from capwasm.errors import Fault, PolicyError

__all__ = ["Due", "Governance", "GovernanceRule"]

Due = Literal["ok", "soon", "overdue", "no-date"]


class GovernanceRule(Model):
    """The `[governance]` table: what happens when the policy is due to be looked at again."""

    overdue: Annotated[
        Literal["warn", "refuse"],
        Field(
            description="Whether a policy past its review-by is only told of, or ends all new loads."
        ),
    ] = "warn"
    grace_days: Annotated[
        int,
        Field(
            ge=0, le=3650, description="With refuse: days after review-by that loads still go on."
        ),
    ] = 30
    notice_days: Annotated[
        int, Field(ge=0, le=365, description="Days before review-by from which it is told of.")
    ] = 14


@dataclass(frozen=True, slots=True)
class Governance:
    """How a policy stands on one day.

    Attributes:
        owner: who answers for it; empty if nobody does.
        review_by: the last day before it is overdue, or None.
        today: the day, in UTC.
        rule: what the policy says of that.
        written: whether there is a policy at all; one that is not there needs no owner.
    """

    owner: str
    review_by: date | None
    today: date
    rule: GovernanceRule = field(default_factory=GovernanceRule)
    written: bool = True

    @property
    def days(self) -> int | None:
        """Days until `review_by`, below zero when it has passed; None without a date."""
        return None if self.review_by is None else (self.review_by - self.today).days

    @property
    def due(self) -> Due:
        """`ok`, `soon` within the notice, `overdue` from the day after, or `no-date`."""
        if self.days is None:
            return "no-date"
        if self.days < 0:
            return "overdue"
        return "soon" if self.days <= self.rule.notice_days else "ok"

    @property
    def refuses_from(self) -> date | None:
        """The first day on which nothing is loaded any more, or None if that never comes."""
        if self.rule.overdue != "refuse" or self.review_by is None:
            return None
        try:
            return self.review_by + timedelta(days=self.rule.grace_days + 1)
        except OverflowError:
            return None

    @property
    def refuses(self) -> bool:
        """Whether nothing may be loaded today."""
        return self.refuses_from is not None and self.today >= self.refuses_from

    def remarks(self) -> tuple[Fault, ...]:
        """What somebody should do, each with the line to write; empty if all is well."""
        if not self.written:
            return ()
        found = []
        if not self.owner:
            found.append(
                Fault("owner", "nobody answers for this policy", 'owner = "team@example.com"')
            )
        if (message := self.when()) is not None:
            found.append(Fault("review-by", message))
        return tuple(found)

    def when(self) -> str | None:
        """What is to be said of the date, or None if nothing is."""
        if self.due == "no-date":
            return "no day is set by which this policy is looked at again"
        if self.due == "soon":
            return f"is to be looked at again by {self.review_by}, {_in_days(self.days or 0)}"
        if self.due != "overdue":
            return None
        text = f"was to be looked at again by {self.review_by}"
        if self.refuses:
            return f"{text}; loads are refused"
        return f"{text}; loads are refused from {self.refuses_from}" if self.refuses_from else text

    def line(self) -> str | None:
        """One line for the log when it is due soon or overdue; None else."""
        if not self.written or self.due in ("ok", "no-date"):
            return None
        return f"the policy{f' of {self.owner}' if self.owner else ''} {self.when()}"

    def check(self) -> None:
        """Let a load go on.

        Raises:
            PolicyError: `policy.overdue`: it should have been looked at long ago, and says itself
                that nothing is loaded then.
        """
        if not self.refuses:
            return
        who = f"; ask {self.owner}" if self.owner else ""
        raise PolicyError(
            f"the policy was to be looked at again by {self.review_by}, and refuses loads since"
            f" {self.refuses_from}{who}",
            code="policy.overdue",
            faults=[
                Fault("review-by", "has passed", "review the policy, then set a new review-by")
            ],
        )

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data, for records and for `--json`."""
        return {
            "owner": self.owner,
            "review-by": None if self.review_by is None else self.review_by.isoformat(),
            "due": self.due,
            "days": self.days,
            "refuses": self.refuses,
        }


def _in_days(days: int) -> str:
    return "today" if days == 0 else "tomorrow" if days == 1 else f"in {days} days"
