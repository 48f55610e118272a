"""What is legal in a policy and unwise: `capwasm policy lint`.  Pure.

It decides on nothing.  A policy with findings is obeyed as it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from capwasm.capability import Capability
from capwasm.grants.policy import Policy

from . import _lint_host, _lint_net, _lint_whole
from ._ground import Ground, Lint

__all__ = ["Lint", "lint"]


def lint(
    policy: Policy,
    capabilities: Sequence[Capability[Any, Any]],
    *,
    today: date,
    installed: frozenset[str] | None = None,
    memory: int | None = None,
) -> tuple[Lint, ...]:
    """All findings, the gravest first, then in the order of the file.

    Args:
        policy: as parsed with the same `capabilities`.
        capabilities: those that there are.
        today: the day in UTC, for what is due.
        installed: the ids of what is installed; None where that is not known.
        memory: bytes that this machine has; None where that is not known.
    """
    ground = Ground(policy, capabilities, today, installed, memory)
    checks = (*_lint_whole.CHECKS, *_lint_net.CHECKS, *_lint_host.CHECKS)
    # One rule may find a thing in two clauses of one table.
    unique = dict.fromkeys(finding for check in checks for finding in check(ground))
    return tuple(sorted(unique, key=lambda f: (-f.severity.rank, f.line or 0, f.path, f.rule)))
