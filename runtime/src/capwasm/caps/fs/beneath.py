"""Opening what lies beneath a directory, and nothing else: the one place where a path is followed.

Two ways, alike in what they open and how they refuse:

* `by_openat2`: one system call; the kernel confines it (openat2(2), Linux 5.6).
* `by_walking`: one `openat` a name, none of which follows a link; for older kernels and for
  sandboxes that filter openat2.

Both take names, never a path with a slash in it, and refuse every symbolic link (ELOOP) and every
mount point (EXDEV) on the way.  There is no check that comes before the open: what is opened was
resolved from a directory that was open already, so a rename in between changes nothing (FS-18).
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import re
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from capwasm.caps._paths import host_path_fault, overlap
from capwasm.errors import CapabilityError, InternalError

from .faults import refuse
from .opening import ENTER, HOLD, LOOK

__all__ = [
    "CHECK_ESCAPES",
    "Identity",
    "Lineage",
    "Resolve",
    "best",
    "by_openat2",
    "by_walking",
    "check_inside",
    "identity",
    "lineage",
    "open_root",
    "real_path",
    "refuse_special",
]

CHECK_ESCAPES = False
"""Check the check: tests turn it on, and each opened file is then compared with its root."""

Identity = tuple[int, int]
"""Device and inode: what a directory is, whatever it is called."""

# The number is the same on every architecture that Python runs on (openat2(2), syscalls(2)).
_SYS_OPENAT2: Final = 437
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x01, 0x02, 0x04, 0x08
_TRIES: Final = 64  # the kernel says EAGAIN when a rename anywhere made it unsure

# linux/magic.h: file systems that are windows on the kernel, wherever they are mounted (FS-10).
_KERNEL_FILE_SYSTEMS: Final = {
    0x9FA0: "proc",
    0x62656572: "sysfs",
    0x1CD1: "devpts",
    0x64626720: "debugfs",
    0x74726163: "tracefs",
    0x73636673: "securityfs",
    0x27E0EB: "cgroup",
    0x63677270: "cgroup2",
    0xCAFE4A11: "bpf",
    0xF97CFF8C: "selinuxfs",
    0x62656570: "configfs",
    0x6165676C: "pstore",
    0xDE5E81E4: "efivarfs",
    0x42494E4D: "binfmt_misc",
    0x6E736673: "nsfs",
    0x19800202: "mqueue",
}


class Resolve(Protocol):
    """A way to open beneath."""

    def __call__(
        self,
        root: int,
        names: Sequence[bytes],
        flags: int,
        mode: int = 0,
        *,
        cross: bool = False,
    ) -> int:
        """Open `names` below the directory `root`; no names is the directory itself.

        Args:
            root: descriptor of a directory.
            names: components, none of them `.`, `..` or with a slash.
            flags: of open(2).  With both O_PATH and O_NOFOLLOW a last link is opened itself.
            mode: for O_CREAT.
            cross: let mount points be crossed; only for finding a root.

        Raises:
            OSError: as open(2); ELOOP for a link, EXDEV for a mount point.
        """


class _How(ctypes.Structure):
    """`struct open_how` of openat2(2)."""

    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    libc.fstatfs.argtypes = [ctypes.c_int, ctypes.c_void_p]
    return libc


def by_openat2(
    root: int, names: Sequence[bytes], flags: int, mode: int = 0, *, cross: bool = False
) -> int:
    """`Resolve` by one call, which the kernel confines."""
    rules = _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS | (0 if cross else _NO_XDEV)
    how = _How(flags | os.O_CLOEXEC, mode, rules)
    path = b"/".join(names) or b"."
    number = errno.EAGAIN
    for _ in range(_TRIES):
        fd = _libc().syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_int(root),
            ctypes.c_char_p(path),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if fd >= 0:
            return int(fd)
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(number, os.strerror(number))


def by_walking(
    root: int, names: Sequence[bytes], flags: int, mode: int = 0, *, cross: bool = False
) -> int:
    """`Resolve` by one call a name; each looks in a directory that is open, and follows no link."""
    mount = None if cross else _mount_id(root)
    here = root
    try:
        for name in names[:-1]:
            there = _step(here, name, HOLD | os.O_NOFOLLOW | os.O_CLOEXEC)
            if here != root:
                os.close(here)
            here = there
            _check_mount(here, mount)
        fd = _step(here, names[-1] if names else b".", flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    finally:
        if here != root:
            os.close(here)
    try:
        _check_mount(fd, mount)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _step(here: int, name: bytes, flags: int, mode: int = 0) -> int:
    try:
        return os.open(name, flags, mode, dir_fd=here)
    except NotADirectoryError:
        # With O_DIRECTORY the kernel calls a link "not a directory": say which it was.
        found = os.stat(name, dir_fd=here, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
        raise


def _check_mount(fd: int, mount: int | None) -> None:
    # A bind mount has the device number of its source, so only the mount's own id tells it apart.
    if mount is not None and _mount_id(fd) != mount:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


def _mount_id(fd: int) -> int:
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:  # noqa: PTH123  a descriptor, not a path
        found = re.search(rb"^mnt_id:\s*(\d+)$", file.read(4096), re.MULTILINE)
    if found is None:
        raise OSError(errno.ENOSYS, "the kernel does not tell which mount a file is on")
    return int(found[1])


@functools.cache
def best() -> Resolve:
    """The best way that this machine has.

    Raises:
        CapabilityError: it has none (`grant.platform`).
    """
    if not sys.platform.startswith("linux"):
        raise CapabilityError(
            f"files can't be confined on {sys.platform}; only Linux is supported",
            code="grant.platform",
        )
    root = os.open("/", HOLD | os.O_CLOEXEC)
    try:
        for way in (by_openat2, by_walking):
            try:
                os.close(way(root, (), HOLD))
            except OSError:
                continue
            return way
    finally:
        os.close(root)
    raise CapabilityError(
        "files can't be confined: openat2 is refused here, and /proc/self/fdinfo can't be read",
        code="grant.platform",
    )


def open_root(path: str, resolve: Resolve) -> tuple[int, str]:
    """Open the directory that a grant names, with the power of this process; and its real path.

    The operator's own links are followed, once; what they lead to is judged and then opened
    without following any, so both are the same directory.

    Raises:
        OSError, ValueError: it can't be opened; the text is fit for an operator.
    """
    real = os.path.realpath(path, strict=True)
    fault = host_path_fault(real)
    if fault is not None:
        raise ValueError(f"{real} {fault}")
    top = os.open("/", HOLD | os.O_CLOEXEC)
    try:
        names = os.fsencode(real).split(b"/")[1:]
        fd = resolve(top, names, ENTER, cross=True)
    finally:
        os.close(top)
    kernel = _KERNEL_FILE_SYSTEMS.get(_magic(fd))
    if kernel is not None:
        os.close(fd)
        raise ValueError(f"{real} lies in a {kernel} file system, which holds no files")
    return fd, real


def _magic(fd: int) -> int:
    """`f_type` of fstatfs(2): the first word of the struct, on every architecture."""
    buffer = (ctypes.c_ulong * 64)()
    if _libc().fstatfs(fd, buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(buffer[0]) & 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a directory is, told so that no other name of it hides an overlap (FS-17, FS-21).

    Attributes:
        above: what it and each directory above it are, itself first; None for what isn't there.
            True under any spelling or letter case.
        device, place: its file system, and the path in there.  True also where a part of the
            file system is mounted a second time: what stands above a mount is then another.
    """

    above: tuple[Identity | None, ...]
    device: bytes
    place: str

    def overlaps(self, other: Lineage) -> bool:
        """Whether one is the other or holds it."""
        mine, theirs = self.above[0], other.above[0]
        return (
            (mine is not None and mine in other.above)
            or (theirs is not None and theirs in self.above)
            or (self.device == other.device and overlap(self.place, other.place))
        )


def lineage(path: str) -> Lineage:
    """Where `path` is, behind the links in it.

    Raises:
        OSError: it can't be told.
    """
    real = here = os.path.realpath(path)
    above: list[Identity | None] = []
    found: tuple[bytes, str] | None = None
    while True:
        try:
            above.append(identity(os.stat(here)))  # noqa: PTH116  text, as realpath gave it
            found = found or _place(here, real[len(here) :])
        except (FileNotFoundError, NotADirectoryError):
            above.append(None)
        up = os.path.dirname(here)  # noqa: PTH120  text
        if up == here:
            break
        here = up
    if found is None:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    return Lineage(tuple(above), *found)


def _place(path: str, rest: str) -> tuple[bytes, str]:
    """The file system of an existing `path`, and where `path + rest` is in it.

    proc(5), `mountinfo`: what of a file system is mounted where.
    """
    fd = os.open(path, LOOK | os.O_CLOEXEC)
    try:
        mount = _mount_id(fd)
    finally:
        os.close(fd)
    with open("/proc/self/mountinfo", "rb") as file:  # noqa: PTH123  not a file
        row = re.search(rb"^%d \d+ (\S+) (\S+) (\S+) " % mount, file.read(), re.MULTILINE)
    if row is None:
        raise OSError(errno.ENOSYS, "the kernel does not tell where a mount is")
    root, point = (os.fsdecode(re.sub(rb"\\(\d{3})", _octal, text)) for text in row.group(2, 3))
    return row[1], "/".join([root.rstrip("/"), f"{path}{rest}"[len(point) :].lstrip("/")])


def _octal(found: re.Match[bytes]) -> bytes:
    return bytes([int(found[1], 8)])


def identity(info: os.stat_result) -> Identity:
    """Device and inode."""
    return info.st_dev, info.st_ino


def real_path(fd: int) -> str:
    """Where a descriptor's file is now."""
    return os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115  may end in " (deleted)"


def check_inside(fd: int, root: str) -> None:
    """Fail loudly if `fd` is not beneath `root`.  Only with `CHECK_ESCAPES`.

    Raises:
        InternalError: a sandbox escape.
    """
    if CHECK_ESCAPES:
        real = real_path(fd)
        if real != root and not real.startswith(root + "/"):
            os.close(fd)
            raise InternalError(f"sandbox escape: {real!r} is not beneath {root!r}")


def refuse_special(mode: int) -> None:
    """Let regular files pass; a FIFO, device or socket is never opened (FS-15).

    Raises:
        FsError: it is none (EPERM, ELOOP or EISDIR).
    """
    if stat.S_ISLNK(mode):
        refuse(errno.ELOOP, "link")
    if stat.S_ISDIR(mode):
        refuse(errno.EISDIR, "directory")
    if not stat.S_ISREG(mode):
        refuse(errno.EPERM, "special")
