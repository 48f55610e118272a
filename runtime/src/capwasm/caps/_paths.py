"""Paths of the host as an operator writes them: their form, as text.  Pure."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["MAX_NAME", "MAX_PATH", "host_path_fault", "overlap"]

# Linux's own limits, in bytes (PATH_MAX counts the closing NUL).
MAX_PATH: Final = 4095
MAX_NAME: Final = 255

# Not files but windows on the kernel and on other processes (FS-10).
_KERNEL: Final = ("proc", "sys", "dev")


def host_path_fault(path: str) -> str | None:
    """What is wrong with the form of a path, or None.  What it really names is judged elsewhere."""
    if not path.startswith("/"):
        return "must be absolute"
    if path == "/":
        return "must not be /, which holds everything"
    names = path.split("/")[1:]
    if any(name in ("", ".", "..") for name in names):
        return "must be canonical: no `.`, `..`, double or trailing slash"
    if re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", path):
        return "must not hold control characters"
    if len(path.encode()) > MAX_PATH or any(len(n.encode()) > MAX_NAME for n in names):
        return f"must be at most {MAX_PATH} bytes, each name at most {MAX_NAME}"
    if names[0] in _KERNEL:
        return "must not lie in /proc, /sys or /dev: these are no files"
    return None


def overlap(a: str, b: str) -> bool:
    """Whether one canonical path is the other or holds it, name by name (FS-19)."""
    short, long = sorted((a.rstrip("/"), b.rstrip("/")), key=len)
    return long == short or long.startswith(short + "/")
