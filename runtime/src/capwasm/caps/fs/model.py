"""What a plugin may ask of files, and what an operator may allow.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final, Self, cast

from pydantic import AfterValidator, Field, model_validator

from capwasm._model import Model
from capwasm.capability import Parsed, Side
from capwasm.caps._paths import host_path_fault, overlap
from capwasm.caps._tables import Size, parse_tables, show_size
from capwasm.errors import Fault
from capwasm.lattice import (
    BOTTOM,
    Clause,
    meet_min,
    meet_same,
    within_min,
    within_same,
)

from .paths import BIND, mount_fault

__all__ = ["Access", "FsClause", "parse", "schema"]

MAX_QUOTA: Final = 2**60


class Access(StrEnum):
    """What may be done beneath a mount: a chain, `read` below `read-write`."""

    READ = "read"
    READ_WRITE = "read-write"

    def meet(self, other: Access) -> Access:
        """The lesser of the two."""
        return self if self.within(other) else other

    def within(self, other: Access) -> bool:
        """Whether `other` lets one do all that this does."""
        return self is Access.READ or other is Access.READ_WRITE


@dataclass(frozen=True, slots=True)
class FsClause(Clause):
    """One directory of the host at one place of the guest.

    Attributes:
        mount: where the guest sees it (`/data`), or None for anywhere.
        bind: the name by which manifest and policy speak of the directory, or None for any.
        path: the directory itself, or None for any; a manifest mostly leaves it to the policy.
        access: what may be done there.
        quota_bytes: bytes that the directory may hold, or None for no bound but the disk.
        quota_files: names that it may hold, or None.
    """

    mount: str | None = None
    bind: str | None = None
    path: str | None = None
    access: Access = Access.READ
    quota_bytes: int | None = None
    quota_files: int | None = None

    def meet(self, other: Self) -> Self | None:
        """The same directory at the same place, with the lesser access and quotas."""
        mount = meet_same(self.mount, other.mount)
        bind = meet_same(self.bind, other.bind)
        path = meet_same(self.path, other.path)
        if mount is BOTTOM or bind is BOTTOM or path is BOTTOM:
            return None
        return type(self)(
            cast("str | None", mount),
            cast("str | None", bind),
            cast("str | None", path),
            self.access.meet(other.access),
            meet_min(self.quota_bytes, other.quota_bytes),
            meet_min(self.quota_files, other.quota_files),
        )

    def within(self, other: Self) -> bool:
        """Whether `other` covers the place, the access and the quotas."""
        return (
            within_same(self.mount, other.mount)
            and within_same(self.bind, other.bind)
            and within_same(self.path, other.path)
            and self.access.within(other.access)
            and within_min(self.quota_bytes, other.quota_bytes)
            and within_min(self.quota_files, other.quota_files)
        )

    def satisfied_by(self, granted: Self) -> bool:
        """Whether `granted` gives the place and the access.

        A request that leaves `bind` or `path` open asks for whichever the policy chose.
        """
        return (
            within_same(self.mount, granted.mount)
            and (self.bind is None or within_same(self.bind, granted.bind))
            and (self.path is None or within_same(self.path, granted.path))
            and self.access.within(granted.access)
        )

    def denied_by(self, rule: FsClause) -> bool:
        """Whether a deny rule speaks of this directory.

        What a rule leaves open it denies everywhere.  A path is denied with all below it, and a
        directory that holds a denied one is denied too: a rename or a hard link inside it could
        bring the denied files out from under their name.  The access of a rule plays no part.
        """
        return self.named(rule) and (
            rule.path is None or (self.path is not None and overlap(rule.path, self.path))
        )

    def named(self, rule: FsClause) -> bool:
        """Whether a deny rule names this mount and bind, or leaves them open."""
        return rule.mount in (None, self.mount) and rule.bind in (None, self.bind)

    def describe(self) -> str:
        """One line for a person."""
        verb = "read" if self.access is Access.READ else "read and change"
        where = f"files under {self.mount or 'any mount'}"
        target = " = ".join(part for part in (self.bind, self.path) if part)
        limits = []
        if self.quota_bytes is not None:
            limits.append(f"at most {show_size(self.quota_bytes)}")
        if self.quota_files is not None:
            limits.append(f"at most {self.quota_files} names")
        notes = ", ".join([target, *limits] if target else limits)
        return f"{verb} {where} ({notes})" if notes else f"{verb} {where}"

    def to_toml(self) -> dict[str, Any]:
        """The table, without the fields that are open."""
        table = {
            "mount": self.mount,
            "bind": self.bind,
            "path": self.path,
            "access": self.access.value,
            "quota": self.quota_bytes,
            "files": self.quota_files,
        }
        return {key: value for key, value in table.items() if value is not None}


def _mount(text: str) -> str:
    return _formed(text, mount_fault(text))


def _path(text: str) -> str:
    return _formed(text, host_path_fault(text))


def _formed(text: str, fault: str | None) -> str:
    if fault is not None:
        raise ValueError(fault)
    return text


class FsTable(Model):
    """`[[fs]]` of a policy or a consent: what it leaves out is open, but it must name something."""

    mount: Annotated[str, AfterValidator(_mount)] | None = Field(
        default=None, description="Where the plugin sees the directory: /data."
    )
    bind: Annotated[str, Field(pattern=BIND)] | None = Field(
        default=None, description="The name by which manifest and policy speak of the directory."
    )
    path: Annotated[str, AfterValidator(_path)] | None = Field(
        default=None, description="The directory itself, absolute; mostly only a policy says it."
    )
    access: Annotated[Access, Field(description="What may be done there.")] = Access.READ
    quota: Annotated[Size, Field(ge=0, le=MAX_QUOTA)] | None = Field(
        default=None, description="Bytes that the directory may hold; no bound if no side says."
    )
    files: Annotated[int, Field(ge=0, le=MAX_QUOTA)] | None = Field(
        default=None, description="Names that the directory may hold; no bound if no side says."
    )

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if self.mount is None and self.bind is None and self.path is None:
            raise ValueError("must name a directory: write bind, path or mount")
        return self

    def clause(self) -> FsClause:
        """The clause it stands for."""
        return FsClause(self.mount, self.bind, self.path, self.access, self.quota, self.files)


class FsRequest(FsTable):
    """`[[fs]]` of a manifest: one place, and one directory by name or by path."""

    mount: Annotated[
        str,
        Field(description="Where the plugin sees the directory: /data."),
        AfterValidator(_mount),
    ]

    @model_validator(mode="after")
    def _names_one_directory(self) -> Self:
        if (self.bind is None) == (self.path is None):
            raise ValueError("must say which directory: write either bind or path")
        return self


def _table_of(side: Side) -> type[FsTable]:
    return FsRequest if side == "manifest" else FsTable


def schema(side: Side) -> dict[str, Any]:
    """JSON Schema of one `[[fs]]` table on that side."""
    return _table_of(side).model_json_schema()


def parse(tables: Sequence[Mapping[str, Any]], side: Side) -> Parsed[FsClause]:
    """The clauses of `[[fs]]`; all faults at once."""
    parsed = parse_tables(tables, _table_of(side), lambda t: [t.clause()], repeated=True)
    if side != "manifest":
        return parsed
    repeats, seen = [], set()
    for index, table in enumerate(tables):
        mount = table.get("mount")
        if isinstance(mount, str) and mount in seen:
            repeats.append(Fault(f"[{index}].mount", f"{mount} is mounted twice"))
        elif isinstance(mount, str):
            seen.add(mount)
    return Parsed((), (*parsed.faults, *repeats)) if repeats else parsed
