"""What a policy says of one operation of one plugin, whatever its manifest asks.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from capwasm.capability import Capability, Grant, GrantedClause, Risk
from capwasm.grants.policy import Policy, Rule
from capwasm.lattice import Clause, ClauseSet

from .cases import Operation
from .operations import Asks, question

__all__ = ["Answer", "answer"]

_NOTHING: Final[ClauseSet[Any]] = ClauseSet.of()


@dataclass(frozen=True, slots=True)
class Answer:
    """What the policy says.

    Attributes:
        operation: what was asked.
        allowed_by: rules that allow it.   denied_by: denials that end each of them.
        person: whether a person has to agree; None where it is refused anyhow.
    """

    operation: Operation
    allowed_by: tuple[Rule, ...]
    denied_by: tuple[Rule, ...]
    person: bool | None

    @property
    def allowed(self) -> bool:
        """Whether the policy leaves it to the manifest and to consent."""
        return self.person is not None


def answer(
    policy: Policy,
    capabilities: Sequence[Capability[Any, Any]],
    plugin_id: str,
    operation: Operation,
) -> Answer:
    """What the policy says of the operation.

    Raises:
        ValueError: the operation is not of the form that its capability has, or can't be asked
            without a manifest: of files, that alone says which directory is where.
    """
    if operation.capability == "fs":
        raise ValueError(
            "which directory a path is in, only a manifest says: use capwasm policy test"
        )
    ask = question(operation.capability, operation.text)
    rules = policy.for_plugin(plugin_id)
    capability = next(c for c in capabilities if c.name == operation.capability)
    allow = rules.allow.get(capability.name, ())
    deny = rules.deny.get(capability.name, ())
    hits = [(r, c) for r in allow for c in r.clauses if _allows(ask, c, _NOTHING)]
    whole = rules.denied(capability.name)
    left = [c for _, c in hits if not _ends(ask, c, whole)]
    automatic = capability.name in policy.automatic
    risks = [capability.risk(c)[0] for c in left]
    return Answer(
        operation,
        tuple(dict.fromkeys(r for r, _ in hits)),
        tuple(d for d in deny if any(_ends(ask, c, ClauseSet.of(d.clauses)) for _, c in hits)),
        None if not left else not automatic or all(r is Risk.HIGH for r in risks),
    )


def _allows(ask: Asks, clause: Clause, deny: ClauseSet[Any]) -> bool:
    return ask(Grant((GrantedClause(clause),), deny))


def _ends(ask: Asks, clause: Clause, deny: ClauseSet[Any]) -> bool:
    """Whether denials end the clause as a whole, or this operation of it."""
    return any(clause.denied_by(d) for d in deny) or not _allows(ask, clause, deny)
