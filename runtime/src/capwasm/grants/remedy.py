"""What an operator would write or run so that a denied permission is granted next time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from capwasm.capsule.identity import Identity
from capwasm.lattice import Clause

from ._document import AnyCapability, join, toml_table
from .policy import Rule

__all__ = ["consent_command", "policy_lines"]


def policy_lines(
    capability: AnyCapability, plugin_id: str, clauses: Sequence[Clause], rules: Sequence[Rule] = ()
) -> str:
    """Lines of `policy.toml` that allow these clauses to one plugin.

    Where a capability has one table and the plugin's own already stands there, the lines hold both,
    to take its place: TOML has no table twice.
    """
    path = join(join("plugins", plugin_id), capability.name)
    if capability.repeated:
        return "\n".join(toml_table(f"[[{path}]]", capability.policy_table(c)) for c in clauses)
    standing = [rule for rule in rules if rule.path == path]
    before = [clause.to_toml() for rule in standing for clause in rule.clauses]
    table = _merged([*before, *(capability.policy_table(c) for c in clauses)])
    note = f"  # in place of line {standing[0].line}" if standing and standing[0].line else ""
    return toml_table(f"[{path}]{note}", table)


def consent_command(identity: Identity) -> str:
    """The command that asks a person."""
    return f"capwasm consent give {identity.file_name}"


def _merged(tables: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One table that says what all of them say; of two single values the later stands."""
    merged: dict[str, Any] = {}
    for table in tables:
        for word, value in table.items():
            old = merged.get(word)
            if isinstance(old, list) and isinstance(value, list):
                merged[word] = [*old, *(v for v in value if v not in old)]
            elif isinstance(old, dict) and isinstance(value, dict):
                merged[word] = {**old, **value}
            else:
                merged[word] = value
    return merged
