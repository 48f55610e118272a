"""The contract of a capability: pure policy on one side, power on the other.

A capability is one folder under `caps/` with the same name in `wit/`, `tests/caps/` and the guest
SDKs' examples:

* `model.py`: its `Clause`, pure.  What may be asked, what may be allowed, and the meet of the two.
* `handle.py`: the objects that hold power.  The only file that may touch `os`, `socket`, a vault.
* `host.py`: the `Capability`: WIT names to functions, errors to the guest's words.

The lifecycle, always in this order: `parse` (manifest, policy, consent) → `ClauseSet.meet` →
`open` once an instance → `imports` → calls → `close`, always called.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

from .errors import Fault
from .events import Event, Recorder
from .handles import Handle, Lease
from .lattice import Clause, ClauseSet
from .limits import Limits

__all__ = [
    "Capability",
    "Grant",
    "GrantedClause",
    "HostFunc",
    "Interface",
    "OpenContext",
    "Parsed",
    "Risk",
    "Side",
]

# A host function takes Python values (see `values`) and returns one.  To refuse, it raises
# `CapError(word)`, which becomes the `err` case of its WIT result; a `CapwasmError` ends the call.
HostFunc = Callable[..., Any]
Side = Literal["manifest", "policy", "consent"]

ClauseT = TypeVar("ClauseT", bound=Clause)
StateT = TypeVar("StateT")


class Risk(Enum):
    """What a reviewer should think of a permission."""

    LOW = "low"  # policy may consent on its own
    MEDIUM = "medium"
    HIGH = "high"  # a person decides: network, file write, exec, reveal


@dataclass(frozen=True, slots=True)
class Parsed(Generic[ClauseT]):
    """What `Capability.parse` makes of a table: clauses, or all the faults."""

    clauses: tuple[ClauseT, ...] = ()
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class GrantedClause(Generic[ClauseT]):
    """One clause in force, with the switch that ends it."""

    clause: ClauseT
    lease: Lease = field(default_factory=Lease, compare=False)


@dataclass(frozen=True, slots=True)
class Grant(Generic[ClauseT]):
    """What one plugin may do with one capability: allowed clauses, less what is denied.

    A deny beats every allow.
    """

    allow: tuple[GrantedClause[ClauseT], ...]
    deny: ClauseSet[ClauseT]

    def find(self, allows: Callable[[ClauseT], bool]) -> GrantedClause[ClauseT] | None:
        """The clause in force that allows an operation, or None.

        `allows` asks one clause about the operation.  A clause whose lease was revoked allows
        nothing; a denied clause beats all.
        """
        if self.deny.any(allows) is not None:
            return None
        return next((g for g in self.allow if g.lease.alive and allows(g.clause)), None)


@dataclass(frozen=True, slots=True)
class Interface:
    """One WIT interface as served to one instance.

    Attributes:
        name: `capwasm:fs/files@0.1.0`.
        functions: WIT function name (`open`, `[method]file.read`, `[static]x.y`) to function.  A
            method's first argument is the handle object.
        resources: WIT resource name to the `Handle` subclass that stands for it.  An interface
            that only `use`s another's resource does not list it.
        signatures: for an interface of the embedder's own, each function's signature in the
            canonical spelling of `engine.abi`; ours are in the ABI table.
    """

    name: str
    functions: Mapping[str, HostFunc]
    resources: Mapping[str, type[Handle]] = field(default_factory=dict)
    signatures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class OpenContext:
    """What a capability is given when an instance opens: names, budgets and a recorder; no power.

    Attributes:
        plugin: `id@version`.   plugin_id: the id alone.
        instance: a number unique within the process.
        data_dir: the plugin's own directory of the runtime (made, 0700), for stores.
        opened: states of the capabilities that opened before this one, by name.
    """

    plugin: str
    plugin_id: str
    instance: int
    limits: Limits
    recorder: Recorder
    data_dir: Path
    opened: Mapping[str, Any]

    def record(self, kind: str, verdict: str, **fields: Any) -> None:
        """Record an event of this plugin; see `events.Event`."""
        self.recorder.record(Event(kind=kind, verdict=verdict, plugin=self.plugin, **fields))


class Capability(ABC, Generic[ClauseT, StateT]):
    """One kind of power, from its words in a manifest to its functions in a component."""

    name: ClassVar[str]
    """The table in plugin.toml and policy.toml: `fs`."""

    title: ClassVar[str]
    """For people: "Files"."""

    repeated: ClassVar[bool]
    """Whether its tables are an array (`[[fs]]`) or one table (`[clock]`)."""

    interfaces: ClassVar[tuple[str, ...]]
    """The WIT interfaces it serves, with versions; a component that imports one must declare it."""

    uses: ClassVar[tuple[str, ...]] = ()
    """Interfaces of other capabilities whose types its own use.  Where those were not asked for,
    they are served with nothing granted: importing them is then no wish of the plugin's."""

    clause: ClassVar[type[Clause]]
    """Its clause type."""

    @abstractmethod
    def schema(self, side: Side) -> dict[str, Any]:
        """JSON Schema of one of its tables on that side."""

    @abstractmethod
    def parse(self, tables: Sequence[Mapping[str, Any]], side: Side) -> Parsed[ClauseT]:
        """Clauses from the tables of a manifest, a policy or a consent record; pure.

        Paths in faults are relative to the capability's table: `[2].allow`.  `consent` tables are
        what `Clause.to_toml` wrote.
        """

    @abstractmethod
    def risk(self, clause: ClauseT) -> tuple[Risk, str]:
        """How grave the permission is, and why, in one short sentence."""

    def policy_table(self, clause: ClauseT) -> dict[str, Any]:
        """The table of policy.toml that would allow `clause`, for a denial's fix.

        A capability whose policy must say what a manifest can't (a directory) adds it here.
        """
        return clause.to_toml()

    @abstractmethod
    def open(self, grant: Grant[ClauseT], ctx: OpenContext) -> StateT:
        """Take the power that `grant` gives, for one instance.

        Raises:
            CapabilityError: the host's side of it can't be used (a path is gone).
        """

    @abstractmethod
    def serve(self, state: StateT) -> Sequence[Interface]:
        """The interfaces of `interfaces`, bound to that state."""

    def close(self, state: StateT) -> None:
        """Let go of all power.  Called once, also after a trap."""
