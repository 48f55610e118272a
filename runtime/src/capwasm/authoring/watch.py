"""Sees that a project changed, by its files' times and sizes."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Final

from .made import files_of

__all__ = ["Seen", "see", "wait_for_change"]

Seen = dict[Path, tuple[int, int]]

_LOOK: Final = 0.2  # seconds
# An editor writes a file in several steps, and a checkout many files.
_SETTLE: Final = 0.2


def see(project: Path) -> Seen:
    """When each file was changed, and its size."""
    seen: Seen = {}
    for path in files_of(project):
        with contextlib.suppress(OSError):
            info = path.stat()
            seen[path] = info.st_mtime_ns, info.st_size
    return seen


def wait_for_change(project: Path, before: Seen) -> list[Path]:
    """Wait until something is not as it was, and then until it stays so for a moment.

    Returns:
        What changed, came or went.
    """
    now = see(project)
    while now == before:
        time.sleep(_LOOK)
        now = see(project)
    while True:
        time.sleep(_SETTLE)
        later = see(project)
        if later == now:
            return sorted(p for p in now.keys() | before.keys() if now.get(p) != before.get(p))
        now = later
