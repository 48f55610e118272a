"""Files of the operator: read once and whole, written whole or not at all.

A path given to a command may name a FIFO, a device or an endless file; a write may meet a full
disk.  Both end in one of our errors, never in a hang or in half a file.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import BinaryIO, NoReturn

from .errors import CapwasmError

__all__ = ["read_file", "sync_directory", "why", "write_file", "writing"]


def read_file(
    path: str | PathLike[str],
    limit: int,
    error: type[CapwasmError],
    *,
    code: str,
    too_large: str | None = None,
    follow: bool = True,
    refuse_mode: int = 0,
    refuse_owner: bool = False,
    mode_code: str | None = None,
) -> bytes:
    """Read a regular file of at most `limit` bytes, once.

    Args:
        path: the file.
        limit: bytes.
        error: what to raise.
        code: for a file that is missing, special, or can't be read.
        too_large: for one over `limit`; `code` when None.
        follow: whether `path` may itself be a link: so it may, if an operator named it.
        refuse_mode: permission bits that must not be set (0o077: others may read it).
        refuse_owner: whether a file of another user than this one or root is refused.
        mode_code: for a file with such a bit or owner; `code` when None.

    Raises:
        error: for each of these, and for a file that grows while it is read.
    """

    def fail(message: str, which: str | None = None) -> NoReturn:
        raise error(message, code=which or code, context=ascii(str(path))[1:-1])

    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer.  It does nothing to a regular file.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        fd = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    except (OSError, ValueError) as exc:
        fail(f"can't be opened: {why(exc)}")
    try:
        info = os.fstat(fd)
        mode = stat.S_IMODE(info.st_mode)
        if not stat.S_ISREG(info.st_mode):
            fail("not a regular file")
        if mode & refuse_mode:
            fail(f"its mode is {mode:04o}; run: chmod {mode & ~refuse_mode:04o} on it", mode_code)
        if refuse_owner and info.st_uid not in {0, os.geteuid()}:
            fail(f"it belongs to another user, uid {info.st_uid}", mode_code)
        if info.st_size > limit:
            fail(f"{info.st_size} bytes, more than the limit of {limit}", too_large)
        with os.fdopen(fd, "rb", closefd=False) as file:
            data = file.read(info.st_size + 1)
    except OSError as exc:
        fail(f"can't be read: {why(exc)}")
    finally:
        os.close(fd)
    if len(data) != info.st_size:
        fail("changed its size while it was read")
    return data


def write_file(
    path: str | PathLike[str],
    data: bytes,
    error: type[CapwasmError],
    *,
    code: str,
    mode: int = 0o644,
    overwrite: bool = True,
) -> None:
    """Write a file whole, or leave things as they were; see `writing`.

    Raises:
        error: with `code`, when the name is taken or the file can't be written.
    """
    with writing(path, error, code=code, mode=mode, overwrite=overwrite) as file:
        file.write(data)


@contextlib.contextmanager
def writing(
    path: str | PathLike[str],
    error: type[CapwasmError],
    *,
    code: str,
    mode: int = 0o644,
    overwrite: bool = True,
) -> Iterator[BinaryIO]:
    """A file to write to, which is there whole once the body has ended, or not at all.

    The bytes go to a new file beside it, to the disk, and only then take the name; with
    `overwrite=False` the name is taken only if it is free, which is decided by the same step.

    Raises:
        error: with `code`, when the name is taken or the file can't be written.
    """
    target = Path(path)
    move: Callable[[Path, Path], None] = os.replace if overwrite else os.link
    try:
        temporary = target.with_name(f".{target.name[:64]}.{secrets.token_hex(8)}.tmp")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(fd, "wb") as file:
                yield file
                file.flush()
                os.fsync(fd)
            move(temporary, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
        sync_directory(target.parent)
    except FileExistsError:
        raise error("exists already", code=code, context=ascii(str(path))[1:-1]) from None
    except (OSError, ValueError) as exc:
        raise error(
            f"can't be written: {why(exc)}", code=code, context=ascii(str(path))[1:-1]
        ) from exc


def sync_directory(directory: Path) -> None:
    """Make the new name itself durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def why(exc: Exception) -> str:
    """What went wrong, without the path, which is told apart."""
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
