"""A process that dies at a step: from the n-th change to the disk on, nothing reaches it any more.

An exception alone would be kinder than a kill: `finally` would still tidy up.  Here whatever tidies
up fails as well, so what stays on the disk is what a kill would have left.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHANGES = (
    "fsync", "link", "mkdir", "open", "remove", "rename", "replace", "rmdir", "symlink", "unlink",
)  # fmt: skip


class Dead(BaseException):
    """The process is no more."""


class Life:
    """Counts changes; dies at one."""

    def __init__(self, end: int) -> None:
        self.end = end
        self.steps = 0

    @property
    def is_over(self) -> bool:
        return self.steps >= self.end


@contextmanager
def dying_at(step: int) -> Iterator[Life]:
    """Run what is within as a process that dies at that step; `Life.is_over` tells whether it did."""
    life = Life(step)

    def mortal(real: Any) -> Any:
        def call(*args: Any, **words: Any) -> Any:
            if real is os_open and not args[1] & (os.O_WRONLY | os.O_RDWR):
                return real(*args, **words)
            if life.is_over:
                raise Dead
            life.steps += 1
            if life.is_over:
                raise Dead
            return real(*args, **words)

        return call

    os_open = os.open
    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGES:
            patch.setattr(os, name, mortal(getattr(os, name)))
        try:
            yield life
        except Dead:
            assert life.is_over
