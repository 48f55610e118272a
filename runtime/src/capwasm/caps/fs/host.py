"""The fs capability: `capwasm:fs/files`."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Final

from capwasm.call import current_call
from capwasm.capability import (
    Capability,
    Grant,
    GrantedClause,
    HostFunc,
    Interface,
    OpenContext,
    Parsed,
    Risk,
    Side,
)
from capwasm.errors import CapabilityError, CapError, Fault
from capwasm.events import DENIED

from .beneath import Resolve, best
from .faults import FsError, refuse
from .handle import PAGE, Dir, File, Kind, Stat
from .model import Access, FsClause, parse, schema
from .node import OPERATION_FUEL, shown
from .paths import absolute
from .quota import LedgerBook
from .roots import Barred, Root, Unusable, open_mount

__all__ = ["Fs", "FsState", "Info", "Mode", "MountInfo"]

INTERFACE: Final = "capwasm:fs/files@0.1.0"


class Mode(StrEnum):
    """How a guest asks for a file; see the WIT."""

    READ = "read"
    WRITE = "write"
    APPEND = "append"
    UPDATE = "update"
    CREATE = "create"


_HOW: Final[dict[Mode, dict[str, bool]]] = {
    Mode.READ: {"read": True},
    Mode.WRITE: {"write": True, "create": True, "truncate": True},
    Mode.APPEND: {"append": True, "create": True},
    Mode.UPDATE: {"read": True, "write": True},
    Mode.CREATE: {"write": True, "create": True, "exclusive": True},
}


@dataclass(frozen=True, slots=True)
class MountInfo:
    """WIT `mount`."""

    path: str
    access: Access
    quota_bytes: int | None
    used_bytes: int


@dataclass(frozen=True, slots=True)
class Info:
    """WIT `info`."""

    name: str
    kind: Kind
    size: int
    modified_ns: int

    @classmethod
    def of(cls, name: str, stat: Stat) -> Info:
        """A stat with its name."""
        return cls(name, stat.kind, stat.size, min(stat.modified_ns, 2**64 - 1))


class FsState:
    """The mounts of one instance.

    A path belongs to the mount whose own path is its longest prefix, name by name, and to no other:
    where `/data` and `/data/sub` are both mounted, `/data/sub/x` is the second's, also if that was
    revoked.  What each may do is its own clause's business, never the sum of both (FS-09).

    Attributes:
        roots: guest path to directory, in the order of the grant.  `wasi:filesystem` hands out
            `root.reopen()`, so that a guest that drops a preopen doesn't close the mount.
    """

    def __init__(self, ctx: OpenContext, roots: Mapping[str, Dir]) -> None:
        """Serve these."""
        self.roots = roots
        self._ctx = ctx
        self._by_names = {absolute(path): root for path, root in roots.items()}
        self._depth = max(map(len, self._by_names), default=0)

    def mounts(self) -> list[MountInfo]:
        """The mounts that are in force and can be read."""
        found = []
        for path, root in self.roots.items():
            try:
                used, _names = root.used()
            except CapError:  # revoked, or the device failed: this function has no error to tell
                continue
            found.append(MountInfo(path, root.access, root.mount.quota.bytes, used))
        return found

    def open(self, path: str, mode: str) -> File:
        """Open a regular file."""
        how = Mode(mode)
        root, below = self._find("open", path, mode=str(how))
        return root.open_file(below, **_HOW[how])

    def stat(self, path: str) -> Info:
        """What is known of a name."""
        root, below = self._find("stat", path)
        return Info.of(path.rpartition("/")[2], root.stat_at(below))

    def list(self, path: str, after: str | None) -> list[Info]:
        """Up to `PAGE` entries after the name `after`."""
        root, below = self._find("list", path)
        return [Info.of(name, stat) for name, stat in root.page(below, after, PAGE)]

    def make_directory(self, path: str) -> None:
        """Make a directory."""
        root, below = self._find("make-directory", path)
        root.mkdir(below)

    def remove(self, path: str) -> None:
        """Remove a file, a link or an empty directory."""
        root, below = self._find("remove", path)
        root.remove(below)

    def rename(self, old: str, new: str) -> None:
        """Rename within one mount."""
        root, below = self._find("rename", old)
        to, to_below = self._find("rename", new)
        root.rename(below, to, to_below)

    def close(self) -> None:
        """Close the roots; what was opened beneath them is the handle table's to close."""
        for root in self.roots.values():
            root.close()

    def _find(self, action: str, path: str, **details: str) -> tuple[Dir, str]:
        """The mount that a guest path belongs to, and the path below it.

        `details` are for the record of a refusal.

        Raises:
            FsError: malformed, or beneath no mount (EPERM).
        """
        current_call().charge_host_work(OPERATION_FUEL)
        try:
            names = absolute(path)
            for depth in range(min(len(names), self._depth), 0, -1):
                root = self._by_names.get(names[:depth])
                if root is not None:
                    return root, b"/".join(names[depth:]).decode() or "."
            refuse(errno.EPERM, "not-granted")
        except FsError as error:
            if error.word == "denied":
                self._ctx.record(
                    "fs",
                    DENIED,
                    action=action,
                    target=shown(path),
                    reason=error.reason,
                    details=details,
                )
            raise


class Fs(Capability[FsClause, FsState]):
    """Files beneath granted directories, of one process: the quotas of all its plugins meet here."""

    name: ClassVar = "fs"
    title: ClassVar = "Files"
    repeated: ClassVar = True
    interfaces: ClassVar = (INTERFACE,)
    clause: ClassVar = FsClause

    def __init__(self, protected: Iterable[Path] = (), resolve: Resolve | None = None) -> None:
        """Make the capability.

        Args:
            protected: the runtime's own files and directories; no grant may overlap one (FS-21).
            resolve: how to open beneath a directory; the best that this machine has when None.
        """
        self._protected = [str(path) for path in protected]
        self._resolve = resolve
        self._book = LedgerBook()

    def schema(self, side: Side) -> dict[str, Any]:
        """JSON Schema of one `[[fs]]`."""
        return schema(side)

    def parse(self, tables: Sequence[Mapping[str, Any]], side: Side) -> Parsed[FsClause]:
        """The clauses of `[[fs]]`."""
        return parse(tables, side)

    def policy_table(self, clause: FsClause) -> dict[str, Any]:
        """The table, with a directory: only the operator knows which one a name stands for."""
        table = clause.to_toml()
        if clause.path is None:
            table["path"] = f"/the/directory/of/{clause.bind or 'this-plugin'}"
        return table

    def risk(self, clause: FsClause) -> tuple[Risk, str]:
        """Reading is medium, changing is high."""
        if clause.access is Access.READ_WRITE:
            return Risk.HIGH, "It can change and remove every file that is there."
        return Risk.MEDIUM, "It can read every file that is there."

    def open(self, grant: Grant[FsClause], ctx: OpenContext) -> FsState:
        """Open each granted directory; one that a rule denies is left out, and recorded.

        Raises:
            CapabilityError: a directory can't be granted (`capability.bind`, all faults at once),
                or this platform can't confine files (`grant.platform`).
        """
        chosen, faults = _one_a_mount(grant.allow)
        roots: dict[str, Root] = {}
        try:
            for mount, granted in chosen.items():
                try:
                    roots[mount] = self._open_one(granted, grant, ctx)
                except Barred:
                    ctx.record("fs", DENIED, action="mount", target=mount, reason="denied-by-rule")
                except Unusable as exc:
                    faults.append(Fault("fs", f"{mount}: {exc}"))
            faults += _uncountable(roots)
            if faults:
                raise CapabilityError(
                    "a directory can't be granted",
                    code="capability.bind",
                    context=ctx.plugin,
                    faults=faults,
                )
        except BaseException:
            for root in roots.values():
                root.dir.close()
            raise
        return FsState(ctx, {mount: root.dir for mount, root in roots.items()})

    def serve(self, state: FsState) -> Sequence[Interface]:
        """The one interface."""
        functions: dict[str, HostFunc] = {
            "mounts": state.mounts,
            "open": state.open,
            "stat": state.stat,
            "list": state.list,
            "make-directory": state.make_directory,
            "remove": state.remove,
            "rename": state.rename,
            "[method]file.read": File.read,
            "[method]file.write": File.write,
            "[method]file.size": File.size,
            "[method]file.set-size": File.set_size,
            "[method]file.sync": File.sync,
        }
        return [Interface(INTERFACE, functions, {"file": File})]

    def close(self, state: FsState) -> None:
        """Close the mounts."""
        state.close()

    def _open_one(
        self, granted: GrantedClause[FsClause], grant: Grant[FsClause], ctx: OpenContext
    ) -> Root:
        if any(granted.clause.denied_by(rule) for rule in grant.deny):
            raise Barred

        def record(verdict: str, **fields: Any) -> None:
            ctx.record("fs", verdict, **fields)

        return open_mount(
            granted,
            record=record,
            book=self._book,
            resolve=self._resolve or best(),
            protected=[*self._protected, str(ctx.data_dir)],
            denied=[r.path for r in grant.deny if r.path is not None and granted.clause.named(r)],
        )


def _one_a_mount(
    allow: Iterable[GrantedClause[FsClause]],
) -> tuple[dict[str, GrantedClause[FsClause]], list[Fault]]:
    """For each mount the clause that gives most, and what is wrong with the rest.

    Clauses that differ in access or quota may speak of one mount; a handle has the rights of one of
    them, never of several together.
    """
    chosen: dict[str, GrantedClause[FsClause]] = {}
    faults = []
    for granted in allow:
        clause = granted.clause
        if clause.mount is None or clause.path is None:
            what = f'bind = "{clause.bind}"\n' if clause.bind else ""
            faults.append(
                Fault(
                    "fs",
                    f"{clause.mount or 'a mount'}: the policy names no directory for it",
                    fix=f'[[fs]]\n{what}path = "/…"\naccess = "{clause.access}"',
                )
            )
            continue
        other = chosen.setdefault(clause.mount, granted)
        if other.clause.path != clause.path:
            faults.append(
                Fault(
                    "fs",
                    f"{clause.mount}: the policy names two directories for it, "
                    f"{other.clause.path} and {clause.path}",
                )
            )
        elif _gives(clause) > _gives(other.clause):
            chosen[clause.mount] = granted
    return chosen, faults


def _gives(clause: FsClause) -> tuple[bool, float, float]:
    unbounded = float("inf")
    return (
        clause.access is Access.READ_WRITE,
        unbounded if clause.quota_bytes is None else clause.quota_bytes,
        unbounded if clause.quota_files is None else clause.quota_files,
    )


def _uncountable(roots: Mapping[str, Root]) -> list[Fault]:
    """Pairs of writable mounts of which one holds the other, where one has a quota.

    What goes through the outer would not be counted for the inner, nor the other way round.
    """
    writable = [(m, r) for m, r in roots.items() if r.dir.access is Access.READ_WRITE]
    return [
        Fault("fs", f"{a} and {b}: one directory holds the other, so no quota can be kept on them")
        for i, (a, x) in enumerate(writable)
        for b, y in writable[i + 1 :]
        if x.lineage.above[0] != y.lineage.above[0]
        and x.lineage.overlaps(y.lineage)
        and (x.dir.mount.quota.bounded or y.dir.mount.quota.bounded)
    ]
