"""Paths, as text: what is refused before the system sees any of it.  Pure.

A *guest path* is what a plugin writes; it is cut into names here, and a name can't climb (`..`) or
hide another (`/`, NUL).  It never mixes with a *host path*, which is what an operator writes: that is
judged for form by `caps._paths`, and by `beneath.open_root` for what it really names.
"""

from __future__ import annotations

import errno
import unicodedata
from dataclasses import dataclass
from typing import Final

from capwasm.caps._paths import MAX_NAME, MAX_PATH, host_path_fault

from .faults import refuse

__all__ = ["BIND", "Relative", "absolute", "mount_fault", "relative"]

BIND: Final = r"^[a-z][a-z0-9-]{0,63}$"
"""A name that the host binds to one of its directories."""


@dataclass(frozen=True, slots=True)
class Relative:
    """A guest path below some directory.

    Attributes:
        names: each one component, none of them `.`, `..` or empty; empty for the directory itself.
        directory: whether it must name a directory, because it ended in a slash or `.`.
    """

    names: tuple[bytes, ...]
    directory: bool


def relative(path: str) -> Relative:
    """Cut a relative guest path into names, as POSIX does, but with no way up.

    Raises:
        FsError: empty (ENOENT), absolute or with `..` (EPERM), with NUL (EINVAL), not Unicode
            (EILSEQ), or too long (ENAMETOOLONG).
    """
    raw = _encode(path)
    if raw.startswith(b"/"):
        refuse(errno.EPERM, "absolute")
    parts = raw.split(b"/")
    names = tuple(part for part in parts if part not in (b"", b"."))
    _check_names(names)
    return Relative(names, directory=parts[-1] in (b"", b"."))


def absolute(path: str) -> tuple[bytes, ...]:
    """Cut an absolute guest path, which must be canonical, into names.

    Raises:
        FsError: with `..` (EPERM), empty or otherwise not canonical (EINVAL), not Unicode
            (EILSEQ), or too long (ENAMETOOLONG).
    """
    if not path:
        refuse(errno.EINVAL, "empty")
    raw = _encode(path)
    names = tuple(raw.split(b"/")[1:])
    _check_names(names)
    if not raw.startswith(b"/"):
        refuse(errno.EINVAL, "relative")
    if any(name in (b"", b".") for name in names):
        refuse(errno.EINVAL, "not-canonical")
    return names


def _encode(path: str) -> bytes:
    if not path:
        refuse(errno.ENOENT, "empty")
    if len(path) > MAX_PATH:  # before anything that looks at each character
        refuse(errno.ENAMETOOLONG, "too-long")
    try:
        raw = path.encode()
    except UnicodeEncodeError:
        refuse(errno.EILSEQ, "not-unicode")
    if b"\0" in raw:
        refuse(errno.EINVAL, "nul")
    if len(raw) > MAX_PATH:
        refuse(errno.ENAMETOOLONG, "too-long")
    return raw


def _check_names(names: tuple[bytes, ...]) -> None:
    if b".." in names:
        refuse(errno.EPERM, "escape")
    if any(len(name) > MAX_NAME for name in names):
        refuse(errno.ENAMETOOLONG, "name-too-long")


def mount_fault(mount: str) -> str | None:
    """What is wrong with a mount, or None.  It is seen by the guest alone: `/data`."""
    fault = host_path_fault(mount)
    if fault is None and unicodedata.normalize("NFC", mount) != mount:
        fault = "must be in Unicode's composed form (NFC), or two spellings would look alike"
    if fault is None and "\\" in mount:
        fault = "must not hold a backslash, which some guests take for a separator"
    return fault
