"""What the operator gives the scanners: the `[scan]` table of the policy, made a `Context`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from capwasm.grants.scan import ScanRule

from .known import read_known_bad
from .model import Context

__all__ = ["context_of"]


def context_of(
    rule: ScanRule,
    root: Path,
    *,
    known_bad: Iterable[Path] = (),
    ids: Iterable[str] = (),
    **words: Any,
) -> Context:
    """The context that a table gives, and what stands beside it.

    Args:
        rule: the table.
        root: the home's directory, from which its paths are taken.
        known_bad: more lists of digests, besides the table's.
        ids: plugins that are installed, besides those that the table names.
        words: the other fields of `Context`.

    Raises:
        PolicyError: `policy.unreadable`, `policy.invalid`: a list of digests can't be read.
    """
    files = [*([root / rule.known_bad] if rule.known_bad else []), *known_bad]
    return Context(
        rule=rule,
        known_bad={digest: what for file in files for digest, what in read_known_bad(file).items()},
        mirror=root / rule.osv if rule.osv else None,
        ids=frozenset([*ids, *rule.ids]),
        **words,
    )
