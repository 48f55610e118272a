"""The layer that takes the host's files out of sight."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from capwasm_shim.layers import NULL

from .kernel import call, syscall

if TYPE_CHECKING:
    from .place import Place

__all__ = ["BY_DESCRIPTOR", "keep_descriptors", "mount_namespace", "path_of"]

_CLONE_NEWNS: Final = 0x00020000
_MS_RDONLY: Final = 0x01
_MS_NOSUID: Final = 0x02
_MS_NODEV: Final = 0x04
_MS_REMOUNT: Final = 0x20
_MS_BIND: Final = 0x1000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 0x40000
_MNT_DETACH: Final = 2
_AT_FDCWD: Final = -100
_AT_RECURSIVE: Final = 0x8000
_CLOSED: Final = _MS_RDONLY | _MS_NOSUID | _MS_NODEV  # the same three bits as MOUNT_ATTR_*

_PAGE: Final = 4096
# A directory that every machine has, to stand the new root on; within the new namespace alone.
_FOOT: Final = "/proc"

BY_DESCRIPTOR: Final = "/proc/self/fd/"

_where: dict[str, str] = {}


def mount_namespace(place: Place) -> None:
    """A root of its own: a small tmpfs with the files of the spec, read-only, and nothing else.

    No /proc, no /dev, no /sys.  The old root is detached, so no path, link or `..` leads there.
    Stops: the host's files by any name (NAT-02, NAT-14, NAT-24), a library found on a search path
    (NAT-21), a disk or its inodes used up (NAT-16), path sockets of the host (NAT-04).
    Needs: root, or a user namespace; the binds of an exec need mount_setattr (Linux 5.12).
    """
    spec = place.spec
    call("unshare", _CLONE_NEWNS)
    call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    sizes = [os.fstat(fd).st_size for fd in place.files]
    pages = 1 + sum(-(-size // _PAGE) for size in sizes)  # 0 would be no limit at all
    inodes = 2 + len(sizes) + sum(path.count("/") for path in spec.binds)
    options = f"size={pages * _PAGE},nr_inodes={inodes},mode=0755"
    call("mount", b"tmpfs", _FOOT.encode(), b"tmpfs", _MS_NOSUID | _MS_NODEV, options.encode())
    mask = os.umask(0)
    for file, fd, size in zip(spec.files, place.files, sizes, strict=True):
        _copy(fd, size, f"{_FOOT}/{file.name}", file.mode)
    for path in spec.binds:
        _bind(path)
    os.umask(mask)
    os.chdir(_FOOT)
    # pivot_root(2), "pivot_root(".", ".")": the old root lies on top of the new one for a moment.
    syscall("pivot_root", b".", b".")
    call("umount2", b".", _MNT_DETACH)
    os.chdir("/")
    call("mount", None, b"/", None, _MS_REMOUNT | _MS_BIND | _CLOSED, None)
    for file, fd in zip(spec.files, place.files, strict=True):
        os.close(fd)
        _where[file.name] = f"/{file.name}"


def path_of(name: str) -> str:
    """The path by which a process that was entered opens one of its files."""
    return _where[name]


def keep_descriptors(place: Place) -> None:
    """Where there is no root of its own, the files are reached by the memfds themselves."""
    for file, fd in zip(place.spec.files, place.files, strict=True):
        _where[file.name] = f"{BY_DESCRIPTOR}{fd}"


def _copy(source: int, size: int, path: str, mode: int) -> None:
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o200)
    try:
        offset = 0
        while offset < size:
            sent = os.sendfile(target, source, offset, size - offset)
            if sent == 0:
                raise OSError(0, "a file of the private root became shorter while it was copied")
            offset += sent
        os.fchmod(target, mode)
    finally:
        os.close(target)


def _bind(path: str) -> None:
    target = _FOOT + path
    for parent in _parents(path):
        os.makedirs(_FOOT + parent, 0o755, exist_ok=True)  # noqa: PTH103  text, not paths
    if os.path.isdir(path):  # noqa: PTH112
        os.mkdir(target, 0o755)  # noqa: PTH102
    else:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    call("mount", path.encode(), target.encode(), None, _MS_BIND | _MS_REC, None)
    closed = _CLOSED & ~_MS_NODEV if path == NULL else _CLOSED
    # struct mount_attr: set, clear, propagation, user namespace.
    attributes = struct.pack("=QQQQ", closed, 0, 0, 0)
    syscall("mount_setattr", _AT_FDCWD, target.encode(), _AT_RECURSIVE, attributes, len(attributes))


def _parents(path: str) -> Iterator[str]:
    parts = path.split("/")[1:-1]
    return ("/" + "/".join(parts[: n + 1]) for n in range(len(parts)))
