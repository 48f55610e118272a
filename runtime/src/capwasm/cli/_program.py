"""A program on the terminal: its words, its streams, and what the person who runs it gives it."""

from __future__ import annotations

import os
import select
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ._output import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from capwasm.authoring.tool import Asks
    from capwasm.plugin import Plugin

__all__ = ["asks_of", "run_program"]

_KEPT: Final = frozenset("\n\t")


def run_program(plugin: Plugin, args: tuple[str, ...], env: Mapping[str, str]) -> int:
    """Run it with the streams of this process; its exit status.

    Raises:
        As `command.run_command`; `click.UsageError`: a word is not fit to be an argument.
    """
    from capwasm.command import run_command

    try:
        return run_command(
            plugin, args, env=env, stdin=_Terminal(0), stdout=_Screen(1), stderr=_Screen(2)
        )
    except ValueError as exc:
        raise click.UsageError(shown(exc)) from None


class _Terminal:
    """A descriptor to read from."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, size: int, /) -> bytes | None:
        from capwasm.errors import CapError

        try:
            if not select.select([self._fd], [], [], 0)[0]:
                return b""
            return os.read(self._fd, size) or None
        except (OSError, ValueError):  # ValueError: it is closed
            raise CapError("io") from None

    def wait(self, seconds: float, /) -> None:
        select.select([self._fd], [], [], seconds)


class _Screen:
    """A descriptor to write to.  What goes to a terminal can't command it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._plain = os.isatty(fd)
        self._rest = b""

    def write(self, data: bytes, /) -> None:
        from capwasm.errors import CapError

        if self._plain:
            data = self._spelt_out(data)
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:  # whoever read it is gone
            raise CapError("closed") from None

    def _spelt_out(self, data: bytes) -> bytes:
        """The same as text; a character cut in two waits for its other half."""
        data = self._rest + data
        whole = len(data)
        while whole > len(data) - 4 and whole and (data[whole - 1] & 0xC0) == 0x80:
            whole -= 1
        if whole and data[whole - 1] >= 0xC0 and not _is_whole(data[whole - 1 :]):
            whole -= 1
        else:
            whole = len(data)
        self._rest = data[whole:]
        text = data[:whole].decode("utf-8", "replace")
        return "".join(c if c in _KEPT else shown(c) for c in text).encode()


def _is_whole(tail: bytes) -> bool:
    first = tail[0]
    return len(tail) >= (4 if first >= 0xF0 else 3 if first >= 0xE0 else 2)


def asks_of(
    read: tuple[str, ...], write: tuple[str, ...], net: tuple[str, ...], limit: tuple[str, ...]
) -> Asks:
    """The options of a component without a manifest, as one value.

    Raises:
        click.UsageError: one of them is malformed.
    """
    from capwasm.authoring.tool import Asks
    from capwasm.limits import DEFAULTS, Limits

    limits: dict[str, int] = {}
    for text in limit:
        word, equals, value = text.partition("=")
        if not equals or not value.isdecimal():
            raise click.UsageError(f"--limit {shown(text)}: write WORD=NUMBER")
        limits[word] = int(value)
    try:
        Limits.from_table(limits, DEFAULTS)
    except ValueError as exc:
        raise click.UsageError(f"--limit: {shown(exc)}") from None
    return Asks(_directories("--read", read), _directories("--write", write), net, limits)


def _directories(option: str, words: tuple[str, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for word in words:
        left, colon, right = word.rpartition(":")
        path, mount = (left, right) if colon and right.startswith("/") else (word, "")
        place = Path(path).absolute()
        mount = mount or f"/{place.resolve().name}"
        if mount in found:
            raise click.UsageError(f"{option} {shown(word)}: {shown(mount)} is given twice")
        found[mount] = place
    return found
