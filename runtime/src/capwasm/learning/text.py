"""From tables to the text of a `plugin.toml`: what was asked before, then what was learned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from capwasm.capability import Capability
from capwasm.grants._document import plain_faults, toml_table
from capwasm.grants.manifest import Manifest

from .attempt import Table, one_line

__all__ = ["manifest_text", "why_not"]


def why_not(
    capability: Capability[Any, Any], words: Mapping[str, Any], manifest: Manifest | None
) -> str | None:
    """Why a table has no place in the proposal, or None."""
    bare = {word: value for word, value in words.items() if word != "optional"}
    parsed = capability.parse([bare], "manifest")
    if faults := [*plain_faults(words), *parsed.faults]:
        return "; ".join(f.message for f in faults)
    request = manifest.requests.get(capability.name) if manifest else None
    if (
        request
        and parsed.clauses
        and not request.clauses.of(parsed.clauses).missing_from(request.clauses)
    ):
        return "it asks for that already, and policy or consent do not give it"
    return None


def manifest_text(
    plugin: Mapping[str, Any],
    capabilities: Sequence[Capability[Any, Any]],
    manifest: Manifest | None,
    tables: Sequence[Table],
    notes: Sequence[str],
) -> str:
    """The whole file; its notes stand at the end, as comments."""
    parts = ["schema = 1", toml_table("[plugin]", plugin)]
    for capability in capabilities:
        learned = [t for t in tables if t.capability == capability.name]
        parts += _tables(capability, manifest, learned)
    if manifest is not None and manifest.named_limits:
        limits = manifest.limits.to_table()
        parts.append(toml_table("[limits]", {w: limits[w] for w in sorted(manifest.named_limits)}))
    if notes:
        parts.append("\n".join(f"# {note}" for note in notes))
    return "\n\n".join(parts) + "\n"


def _tables(
    capability: Capability[Any, Any], manifest: Manifest | None, learned: Sequence[Table]
) -> Iterator[str]:
    """The tables of one capability: what was asked before, then what was learned."""
    name = capability.name
    header = f"[[{name}]]" if capability.repeated else f"[{name}]"
    before: list[tuple[dict[str, Any], tuple[str, ...]]] = []
    request = manifest.requests.get(name) if manifest else None
    for asked in request.asked if request else ():
        more: dict[str, Any] = {"optional": True} if asked.optional else {}
        more |= {"why": asked.why} if asked.why else {}
        before += [(c.to_toml() | more, ()) for c in asked.clauses]
    rows = [*before, *((dict(t.words), t.notes) for t in learned)]
    if not rows:
        return
    if not capability.repeated:
        rows = [(_joined(words for words, _ in rows), sum((n for _, n in rows), ()))]
    elif name == "fs":  # a mount stands once
        rows = list({words["mount"]: (words, n) for words, n in rows}.values())
    for words, notes in rows:
        yield "\n".join([*(f"# {one_line(n)}" for n in notes), toml_table(header, words)])


def _joined(tables: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One table that asks for what all of them do."""
    joined: dict[str, Any] = {}
    for table in tables:
        for word, value in table.items():
            old = joined.get(word)
            if isinstance(old, list):
                joined[word] = [*old, *(v for v in value if v not in old)]
            else:
                joined[word] = value
    return joined
