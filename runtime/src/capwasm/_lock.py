"""One process at a time in a directory: a lock that the kernel gives back when its holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .errors import CapwasmError

__all__ = ["held"]

_WAIT: Final = 30.0  # seconds for the other process


@contextlib.contextmanager
def held(directory: Path, error: type[CapwasmError], *, code: str) -> Iterator[None]:
    """Hold the directory's lock.

    Raises:
        OSError: the lock's file can't be made.
        error: with `code`: another process holds it for long.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(directory / "lock", flags, 0o600)
    try:
        until = time.monotonic() + _WAIT
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise error(
                        "another process has been using it for too long",
                        code=code,
                        context=str(directory),
                    ) from None
            time.sleep(0.02)
        yield
    finally:
        os.close(fd)
