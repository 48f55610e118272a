"""`wasi:cli`: the outside of a program, which a plugin has none of unless the core gives it one.

Arguments and variables are what `WasiConfig` names, never those of this process.  Standard input is
what it gives, or at its end.  Standard output and error go where it says, to the plugin's log, or
nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NoReturn, Protocol

from capwasm.call import current_call
from capwasm.capability import HostFunc, Interface
from capwasm.errors import CapError, GuestTrap
from capwasm.handles import Handle, Lease
from capwasm.values import Err, Result

from ._refuse import Ledger, named
from .io import MAX_CHUNK, InputStream, OutputStream, Pollable

__all__ = ["GuestExit", "Sink", "Source", "WasiConfig", "interfaces"]


class Sink(Protocol):
    """Where a channel's bytes go; it bounds what it keeps."""

    def write(self, data: bytes, /) -> object:
        """Take all of `data`.

        Raises:
            CapError: it can't; the program sees the stream fail.
        """


class Source(Protocol):
    """Where standard input comes from."""

    def read(self, size: int, /) -> bytes | None:
        """1 to `size` bytes; empty when none are there yet; None at the end.

        Raises:
            CapError: it can't be read.
        """

    def wait(self, seconds: float, /) -> None:
        """Let up to that much time pass, and less once there is something to read."""


@dataclass(frozen=True, slots=True)
class WasiConfig:
    """What the core hands to a program on purpose.

    Attributes:
        args: its arguments, the program's name first.   env: its variables.
        stdin: what it reads; at its end if None.
        stdout, stderr: what takes what it writes; the plugin's log if None.
    """

    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: Source | None = None
    stdout: Sink | None = None
    stderr: Sink | None = None

    def __post_init__(self) -> None:
        """Pass if every word can be an argument or variable.

        Raises:
            ValueError: a word holds a NUL or a lone surrogate, or a name is empty or holds `=`.
        """
        for word in (*self.args, *self.env, *self.env.values()):
            if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in word):
                raise ValueError(f"not fit to be an argument or a variable: {word!r}")
        for name in self.env:
            if not name or "=" in name:
                raise ValueError(f"not fit to be a variable's name: {name!r}")


class GuestExit(GuestTrap):
    """The plugin ended itself.  An error for who calls a library, the ordinary end of a command.

    Attributes:
        status: 0 for success, 1 to 255 otherwise.
    """

    default_code = "guest.exit"

    def __init__(self, status: int) -> None:
        """Keep the status."""
        self.status = status
        super().__init__(f"the plugin called exit({status})")


# How long a wait for input goes without a look at whether the call was interrupted.
_LOOK_NS: Final = 20_000_000


class _Log(Protocol):
    """The part of the log capability's state that is used here."""

    def stream(self, channel: str, /) -> Sink:
        """The channel `stdout` or `stderr`, as log lines."""


class _Nowhere:
    """Drops what it is given, and says so once."""

    def __init__(self, ledger: Ledger, channel: str) -> None:
        self._ledger = ledger
        self._channel = channel

    def write(self, _data: bytes, /) -> None:
        self._ledger.note(f"wasi:cli/{self._channel}.write", "not-granted", table="log")


class _Standard(OutputStream):
    """One channel.  However many handles of it the guest takes, they share one sink."""

    __slots__ = ("_sink",)

    def __init__(self, sink: Sink) -> None:
        super().__init__(Lease())
        self._sink = sink

    def push(self, data: bytes) -> None:
        current_call().charge_output(len(data))
        self._sink.write(data)


class _Feed:
    """Standard input of one instance, with the one chunk that was looked at ahead."""

    def __init__(self, source: Source) -> None:
        self.wait = source.wait
        self._read = source.read
        self._ahead: bytes | None = b""

    def has_some(self) -> bool:
        """Whether there are bytes, or the end."""
        if self._ahead == b"":
            try:
                self._ahead = self._read(MAX_CHUNK)
            except CapError:
                self._ahead = None
        return self._ahead != b""

    def take(self, size: int) -> bytes | None:
        """As `Source.read`."""
        if not self.has_some() or self._ahead is None:
            return self._ahead
        chunk, self._ahead = self._ahead[:size], self._ahead[size:]
        return chunk


class _Fed(Pollable):
    """Ready when standard input has bytes, or an end."""

    __slots__ = ("_feed",)

    def __init__(self, feed: _Feed) -> None:
        super().__init__(Lease())
        self._feed = feed

    def wait_ns(self) -> int:
        return 0 if self._feed.has_some() else _LOOK_NS

    def pause(self, ns: int) -> None:
        self._feed.wait(min(ns, _LOOK_NS) / 1e9)


class _StandardInput(InputStream):
    """However many handles of it the guest takes, they read one input."""

    __slots__ = ("_feed",)

    def __init__(self, feed: _Feed) -> None:
        super().__init__(Lease())
        self._feed = feed

    def pull(self, length: int) -> bytes | None:
        return self._feed.take(length)

    def subscribe(self) -> Pollable:
        return _Fed(self._feed)


class TerminalInput(Handle):
    """There is never one; the type is needed to link."""

    __slots__ = ()


class TerminalOutput(Handle):
    """There is never one; the type is needed to link."""

    __slots__ = ()


def _exit(status: Result[None, None]) -> NoReturn:
    raise GuestExit(1 if isinstance(status, Err) else 0)


def _exit_with_code(code: int) -> NoReturn:
    raise GuestExit(code)


def _nothing() -> None:
    """No terminal, no working directory."""


# What holds nothing of an instance is shared by all.
_SHARED = (
    Interface(named("cli/exit"), {"exit": _exit, "exit-with-code": _exit_with_code}),
    Interface(named("cli/terminal-input"), {}, {"terminal-input": TerminalInput}),
    Interface(named("cli/terminal-output"), {}, {"terminal-output": TerminalOutput}),
    Interface(named("cli/terminal-stdin"), {"get-terminal-stdin": _nothing}),
    Interface(named("cli/terminal-stdout"), {"get-terminal-stdout": _nothing}),
    Interface(named("cli/terminal-stderr"), {"get-terminal-stderr": _nothing}),
)
_ENVIRONMENT, _STDIN, _STDOUT, _STDERR = (
    named(f"cli/{n}") for n in ("environment", "stdin", "stdout", "stderr")
)


def interfaces(log: _Log | None, ledger: Ledger, config: WasiConfig) -> list[Interface]:
    """`wasi:cli/*`; `log` is the log capability's state, or None where it is not granted."""

    def channel(name: str, given: Sink | None) -> HostFunc:
        sink = given or (_Nowhere(ledger, name) if log is None else log.stream(name))
        return lambda: _Standard(sink)

    feed = None if config.stdin is None else _Feed(config.stdin)

    return [
        Interface(
            _ENVIRONMENT,
            {
                "get-environment": lambda: list(config.env.items()),
                "get-arguments": lambda: list(config.args),
                "initial-cwd": _nothing,
            },
        ),
        Interface(
            _STDIN,
            {"get-stdin": lambda: InputStream(Lease()) if feed is None else _StandardInput(feed)},
        ),
        Interface(_STDOUT, {"get-stdout": channel("stdout", config.stdout)}),
        Interface(_STDERR, {"get-stderr": channel("stderr", config.stderr)}),
        *_SHARED,
    ]
