"""`wasi:filesystem`, on the directories of the fs capability and nothing else.

What may be opened, read or changed is decided in `caps.fs.handle`, for this door and `capwasm:fs`
alike; here WASI's words are put to its methods and back.  No symbolic link is followed, whatever
the path flags say, and none is made, read or given a hard link's second name.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Protocol

from capwasm.capability import HostFunc, Interface
from capwasm.caps.fs.handle import Dir, DirStream, File, Kind, Stat
from capwasm.errors import CapError
from capwasm.handles import Handle
from capwasm.values import Variant

from ._files import FAMILY, FileInput, FileOutput, Shared, answers
from ._refuse import Ledger, Refused, named
from .io import MAX_CHUNK, InputStream, IoError, OutputStream

__all__ = ["Descriptor", "DirectoryEntryStream", "interfaces"]

_KINDS = {
    Kind.FILE: "regular-file",
    Kind.DIRECTORY: "directory",
    Kind.LINK: "symbolic-link",
    Kind.OTHER: "unknown",
}

_SECOND = 1_000_000_000


class _State(Protocol):
    """The part of the fs capability's state that is used here."""

    @property
    def roots(self) -> Mapping[str, Dir]:
        """The granted directories by where the guest sees them, in the order of the manifest."""


class Descriptor(Handle):
    """An open file or directory of a granted mount."""

    __slots__ = ("_shared",)

    def __init__(self, node: Dir | File, *, kept: bool = False) -> None:
        """Own `node`, or borrow one that the capability has `kept`."""
        super().__init__(node.lease)
        self._shared = Shared(node, kept=kept)
        self._shared.hold()

    @property
    def node(self) -> Dir | File:
        """What it is open on.

        Raises:
            CapError: `closed`.
        """
        self.check()
        return self._shared.node

    def release(self) -> None:
        """Close it, unless a stream still uses it."""
        self._shared.let_go()

    def file(self) -> File:
        """The file that it must be.

        Raises:
            CapError: `is-directory`, `closed`.
        """
        if isinstance(self.node, File):
            return self.node
        raise CapError("is-directory")

    def dir(self) -> Dir:
        """The directory that it must be.

        Raises:
            CapError: `not-directory`, `closed`.
        """
        if isinstance(self.node, Dir):
            return self.node
        raise CapError("not-directory")

    # -- streams -------------------------------------------------------------------------------

    def read_via_stream(self, offset: int) -> InputStream:
        """The bytes from `offset` on."""
        if not self.file().readable:
            raise CapError("bad-descriptor", "not open for reading")
        return FileInput(self._shared, offset)

    def write_via_stream(self, offset: int) -> OutputStream:
        """Writes from `offset` on."""
        return FileOutput(self._writable(), offset)

    def append_via_stream(self) -> OutputStream:
        """Writes at the end, wherever that is by then."""
        return FileOutput(self._writable(), None)

    def _writable(self) -> Shared:
        if not self.file().writable:
            raise CapError("bad-descriptor", "not open for writing")
        return self._shared

    # -- files ---------------------------------------------------------------------------------

    def read(self, length: int, offset: int) -> tuple[bytes, bool]:
        """Up to `length` bytes, at most `MAX_CHUNK`, and whether there are no more."""
        data = self.file().read(offset, min(length, MAX_CHUNK))
        return data, length > 0 and not data

    def write(self, data: bytes, offset: int) -> int:
        """Write the first `MAX_CHUNK` bytes of `data`; how many that was."""
        chunk = data[:MAX_CHUNK]
        self.file().write(offset, chunk)
        return len(chunk)

    def set_size(self, size: int) -> None:
        """Cut or extend."""
        self.file().set_size(size)

    def advise(self, _offset: int, _length: int, _advice: str) -> None:
        """Take the advice and do nothing: the page cache is not one plugin's to steer."""
        self.file()

    # -- both ----------------------------------------------------------------------------------

    def get_flags(self) -> list[str]:
        """What may be done with it."""
        node = self.node
        if isinstance(node, Dir):
            return ["read", *(["mutate-directory"] if _mutable(node) else [])]
        return [word for word, on in (("read", node.readable), ("write", node.writable)) if on]

    def get_type(self) -> str:
        """A regular file or a directory; nothing else can be opened."""
        return "directory" if isinstance(self.node, Dir) else "regular-file"

    def stat(self) -> dict[str, object]:
        """Its attributes."""
        return _stat(self.node.stat())

    def metadata_hash(self) -> dict[str, int]:
        """A hash of what it is."""
        return _hash(self.node.stat())

    def set_times(self, accessed: Variant, modified: Variant) -> None:
        """Set its times."""
        self.node.set_times(_moment(accessed), _moment(modified))

    def sync(self) -> None:
        """Have the device write it; nothing to do for what can't be changed."""
        if _changes(self.node):
            self.node.sync()

    def sync_data(self) -> None:
        """`sync`, less what reading it back does not need."""
        if _changes(self.node):
            self.node.datasync()

    def is_same_object(self, other: Descriptor) -> bool:
        """Whether both are open on one object; no, if either can't be told any more."""
        try:
            return self.node.same_object(other.node)
        except CapError:
            return False

    # -- beneath a directory -------------------------------------------------------------------

    def open_at(
        self, _path_flags: Iterable[str], path: str, how: Iterable[str], flags: Iterable[str]
    ) -> Descriptor:
        """Open what is at `path`.

        A directory opened through another may do what the other may, as standard libraries expect;
        the requests for synchronous writes are taken as the requests that WIT says they are.
        """
        base, ways, wants = self.dir(), set(how), set(flags)
        # To ask for a directory that may be changed is refused as a write is, by the same check.
        changes = "mutate-directory" in wants and not _mutable(base)
        return Descriptor(
            base.open_at(
                path,
                read="read" in wants,
                write="write" in wants or changes,
                create="create" in ways,
                exclusive="exclusive" in ways,
                truncate="truncate" in ways,
                directory="directory" in ways,
            )
        )

    def stat_at(self, _path_flags: Iterable[str], path: str) -> dict[str, object]:
        """The attributes of what is at `path`, a link's own where it is one."""
        return _stat(self.dir().stat_at(path))

    def metadata_hash_at(self, _path_flags: Iterable[str], path: str) -> dict[str, int]:
        """A hash of what is at `path`."""
        return _hash(self.dir().stat_at(path))

    def set_times_at(
        self, _path_flags: Iterable[str], path: str, accessed: Variant, modified: Variant
    ) -> None:
        """Set the times of what is at `path`."""
        self.dir().set_times_at(path, _moment(accessed), _moment(modified))

    def read_directory(self) -> DirectoryEntryStream:
        """Its entries, from the first."""
        return DirectoryEntryStream(self.dir().entries())

    def create_directory_at(self, path: str) -> None:
        """Make a directory."""
        self.dir().mkdir(path)

    def remove_directory_at(self, path: str) -> None:
        """Remove an empty directory."""
        self.dir().remove_dir(path)

    def unlink_file_at(self, path: str) -> None:
        """Remove what is not a directory."""
        self.dir().remove_file(path)

    def rename_at(self, path: str, to: Descriptor, to_path: str) -> None:
        """Rename; both ends must be of one mount that may be changed."""
        self.dir().rename(path, to.dir(), to_path)


class DirectoryEntryStream(Handle):
    """The entries of a directory, one at a time, so that a huge one costs the host no memory."""

    __slots__ = ("_entries",)

    def __init__(self, entries: DirStream) -> None:
        """Own `entries`."""
        super().__init__(entries.lease)
        self._entries = entries

    def read_directory_entry(self) -> dict[str, str] | None:
        """The next one, or None after the last."""
        self.check()
        entry = self._entries.next()
        return None if entry is None else {"type": _KINDS[entry.kind], "name": entry.name}

    def release(self) -> None:
        """Close the directory."""
        self._entries.close()


def _mutable(directory: Dir) -> bool:
    return directory.access == "read-write"


def _changes(node: Dir | File) -> bool:
    return _mutable(node) if isinstance(node, Dir) else node.writable


def _datetime(ns: int) -> dict[str, int]:
    return {"seconds": ns // _SECOND, "nanoseconds": ns % _SECOND}


def _stat(stat: Stat) -> dict[str, object]:
    return {
        "type": _KINDS[stat.kind],
        "link_count": stat.links,
        "size": stat.size,
        "data_access_timestamp": _datetime(stat.accessed_ns),
        "data_modification_timestamp": _datetime(stat.modified_ns),
        "status_change_timestamp": _datetime(stat.changed_ns),
    }


def _hash(stat: Stat) -> dict[str, int]:
    lower, upper = stat.hash
    return {"lower": lower, "upper": upper}


def _moment(new: Variant) -> int | None:
    """Nanoseconds since 1970 of a `new-timestamp`, or None to leave it."""
    if new.case == "no-change":
        return None
    if new.case == "now":
        return time.time_ns()
    if new.value.nanoseconds >= _SECOND:
        raise CapError("invalid", "a second has fewer nanoseconds")
    return int(new.value.seconds) * _SECOND + int(new.value.nanoseconds)


def _error_code(error: IoError) -> str | None:
    return error.word if error.family == FAMILY else None


_METHODS = (
    *("read-via-stream", "write-via-stream", "append-via-stream", "read", "write", "set-size"),
    *("advise", "get-flags", "get-type", "stat", "metadata-hash", "set-times", "sync", "sync-data"),
    *("open-at", "stat-at", "metadata-hash-at", "set-times-at", "read-directory"),
    *("create-directory-at", "remove-directory-at", "unlink-file-at", "rename-at"),
)


# What is the same for every instance is made once: a fresh instance is to cost microseconds.
_ANSWERS: dict[str, HostFunc] = {
    **{
        f"[method]descriptor.{name}": answers(getattr(Descriptor, name.replace("-", "_")))
        for name in _METHODS
    },
    "[method]descriptor.is-same-object": Descriptor.is_same_object,
    "[method]directory-entry-stream.read-directory-entry": answers(
        DirectoryEntryStream.read_directory_entry
    ),
    "filesystem-error-code": _error_code,
}
_LINKS = tuple(f"[method]descriptor.{name}-at" for name in ("link", "readlink", "symlink"))
_RESOURCES = {"descriptor": Descriptor, "directory-entry-stream": DirectoryEntryStream}
_TYPES, _PREOPENS = named("filesystem/types"), named("filesystem/preopens")


def interfaces(state: _State | None, ledger: Ledger) -> list[Interface]:
    """`wasi:filesystem/*`; `state` is the fs capability's, or None where it is not granted."""

    def directories() -> list[tuple[Descriptor, str]]:
        # They open nothing: a list of which the handle limit lets only a part through would leave
        # the rest open for ever.
        roots = {} if state is None else state.roots
        # One whose grant was revoked is not there for a new instance: libraries ask each of these
        # what it is when they start, and take a refusal for a broken system.
        return [(Descriptor(root, kept=True), path) for path, root in roots.items() if root.alive]

    refused = {f: Refused(ledger, f"wasi:filesystem/types.{f}", "not-permitted") for f in _LINKS}
    return [
        Interface(_TYPES, _ANSWERS | refused, _RESOURCES),
        Interface(_PREOPENS, {"get-directories": directories}),
    ]
