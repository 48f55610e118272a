"""Every limit on a plugin, by name, with its unit, its default and its ceiling.

Limits form a lattice too: manifest, policy and consent may each lower one, none can raise it above
what the others say.  What a manifest leaves out is the default; what a policy leaves out is the
ceiling, so an operator who writes nothing gets the defaults and no surprise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from ._words import kebab

__all__ = ["CEILING", "DEFAULTS", "Limits"]


def _limit(default: int, ceiling: int, unit: str, doc: str) -> Any:
    return field(default=default, metadata={"ceiling": ceiling, "unit": unit, "doc": doc})


KIB, MIB = 1024, 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one plugin.  All are upper bounds; all are at least 1.

    Raises:
        ValueError: for what is no whole number or below 1, which an engine may take for no limit.
    """

    fuel: int = _limit(
        2_000_000_000,
        2**60,
        "fuel",
        "Instructions (about) that one call may run, host work included.",
    )
    memory: int = _limit(
        128 * MIB, 4096 * MIB, "bytes", "Linear memory of one instance, over all its memories."
    )
    memories: int = _limit(
        1, 64, "count", "Linear memories of one instance; each may use its equal share of `memory`."
    )
    table_elements: int = _limit(100_000, 10_000_000, "count", "Elements of each table.")
    tables: int = _limit(32, 1_000, "count", "Tables of one instance.")
    instances: int = _limit(64, 1_000, "count", "Core instances within one component instance.")
    wall_ms: int = _limit(
        10_000, 24 * 3600 * 1000, "ms", "Wall-clock time of one call, host calls included."
    )
    host_call_ms: int = _limit(
        5_000, 600_000, "ms", "Wall-clock time that one host call may block."
    )
    host_calls: int = _limit(100_000, 2**40, "count", "Host calls of one call.")
    output_bytes: int = _limit(
        1 * MIB, 1024 * MIB, "bytes", "What one call may write to the log, stdout and stderr."
    )
    net_bytes: int = _limit(
        16 * MIB,
        64 * 1024 * MIB,
        "bytes",
        "Bytes over the network in one call, both ways together.",
    )
    value_bytes: int = _limit(
        4 * MIB,
        256 * MIB,
        "bytes",
        "Size of one value that crosses the boundary, either way. Lists are moved in a memory of their"
        " own, of at most ten times that and of no more than `memory`.",
    )
    handles: int = _limit(256, 100_000, "count", "Host handles that one instance holds at a time.")
    concurrency: int = _limit(4, 1_024, "count", "Calls into the plugin at a time.")
    depth: int = _limit(8, 32, "count", "Nesting of calls between host and guests.")

    def __post_init__(self) -> None:
        """Refuse what would bound nothing."""
        for f in fields(self):
            value = getattr(self, f.name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{kebab(f.name)} must be a whole number from 1 up")

    def meet(self, other: Self) -> Self:
        """The smaller of each: commutative, associative, idempotent."""
        return replace(
            self,
            **{f.name: min(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)},
        )

    def within(self, other: Self) -> bool:
        """Whether no limit here is above the other's."""
        return all(getattr(self, f.name) <= getattr(other, f.name) for f in fields(self))

    @classmethod
    def ceiling(cls) -> Self:
        """The largest values that any file may name."""
        return cls(**{f.name: f.metadata["ceiling"] for f in fields(cls)})

    @classmethod
    def from_table(cls, table: Mapping[str, int], base: Self) -> Self:
        """`base` with the values that a file names, which must be known and within the ceiling.

        Raises:
            ValueError: one message with every fault.
        """
        known = {kebab(f.name): f for f in fields(cls)}
        faults, values = [], {}
        for word, value in table.items():
            spec = known.get(word)
            if spec is None:
                faults.append(f"unknown limit {word!r}; valid: {', '.join(sorted(known))}")
            elif isinstance(value, bool) or not isinstance(value, int):
                faults.append(f"{word} must be a whole number of {spec.metadata['unit']}")
            elif not 1 <= value <= spec.metadata["ceiling"]:
                faults.append(f"{word} must be from 1 to {spec.metadata['ceiling']}, got {value}")
            else:
                values[spec.name] = value
        if faults:
            raise ValueError("; ".join(faults))
        return replace(base, **values)

    def to_table(self) -> dict[str, int]:
        """All limits as the files spell them."""
        return {kebab(f.name): getattr(self, f.name) for f in fields(self)}


DEFAULTS = Limits()
CEILING = Limits.ceiling()
