"""A plugin as a program: `wasi:cli/run` with arguments, variables and streams of the core's choosing.

Everything else is a plugin's: its grants decide what it reaches, its limits how long it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from .engine.exports import Export
from .errors import LinkError
from .plugin import Plugin
from .values import Err
from .wasi import GuestExit, WasiConfig
from .wasi.cli import Sink, Source

__all__ = ["Held", "run_command", "runs_as_command"]

_INTERFACE: Final = "wasi:cli/run"


class Held:
    """Bytes as a program's standard input."""

    def __init__(self, data: bytes) -> None:
        """Hold them."""
        self._data, self._at = data, 0

    def read(self, size: int, /) -> bytes | None:
        """See `Source`."""
        chunk = self._data[self._at : self._at + size]
        self._at += len(chunk)
        return chunk or None

    def wait(self, seconds: float, /) -> None:
        """All is there."""


def runs_as_command(plugin: Plugin) -> bool:
    """Whether it is a program: it exports `wasi:cli/run`."""
    return _run_of(plugin) is not None


def run_command(
    plugin: Plugin,
    args: Sequence[str] = (),
    *,
    env: Mapping[str, str] | None = None,
    stdin: bytes | Source = b"",
    stdout: Sink | None = None,
    stderr: Sink | None = None,
) -> int:
    """Run it once, from the beginning, in an instance of its own; its exit status.

    Args:
        plugin: loaded; it exports `wasi:cli/run`.
        args: its arguments, the program's name first.
        env: its variables; it has no others.
        stdin: what it reads.
        stdout: what takes its output, such as `io.BytesIO()`; the plugin's log if None.  It counts
            towards `limits.output-bytes` all the same.
        stderr: as `stdout`.

    Returns:
        0 if it went well, 1 to 255 otherwise.

    Raises:
        LinkError: `link.export`: it is no program.
        GuestError: it trapped, broke a limit, or was interrupted.
        ValueError: an argument or a variable is not fit to be one.
        InstanceClosedError, ConcurrencyExceeded: as `Plugin.session`.
    """
    export = _run_of(plugin)
    if export is None:
        raise LinkError(
            f"it is no program: it does not export {_INTERFACE}",
            code="link.export",
            context=plugin.name,
        )
    source = Held(stdin) if isinstance(stdin, bytes) else stdin
    config = WasiConfig(tuple(args), dict(env or {}), source, stdout, stderr)
    with plugin.session(config) as session:
        try:
            return 1 if isinstance(session.call(export.whole), Err) else 0
        except GuestExit as exc:
            return exc.status


def _run_of(plugin: Plugin) -> Export | None:
    found = (e for e in plugin.functions if e.interface.startswith(f"{_INTERFACE}@"))
    return next((e for e in found if e.name == "run"), None)
