"""`wasi:cli`: the outside of a program, which a plugin has none of unless the core gives it one.

Arguments and variables are what `WasiConfig` names, never those of this process.  Standard input is
at its end.  Standard output and error go to the plugin's log, or nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from capwasm.call import current_call
from capwasm.capability import HostFunc, Interface
from capwasm.errors import GuestTrap
from capwasm.handles import Handle, Lease
from capwasm.values import Err, Result

from ._refuse import Ledger, named
from .io import InputStream, OutputStream

__all__ = ["GuestExit", "Sink", "WasiConfig", "interfaces"]


@dataclass(frozen=True, slots=True)
class WasiConfig:
    """What the core hands to a program on purpose.

    Attributes:
        args: its arguments, the program's name first.   env: its variables.
    """

    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

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
    """The plugin ended itself.  A trap for a library, the ordinary end for a command.

    Attributes:
        status: 0 for success, 1 to 255 otherwise.
    """

    def __init__(self, status: int) -> None:
        """Keep the status."""
        self.status = status
        super().__init__(f"the plugin called exit({status})")


class Sink(Protocol):
    """Where a channel's bytes go; it bounds what it keeps."""

    def write(self, data: bytes, /) -> None:
        """Take all of `data`."""


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
    Interface(named("cli/stdin"), {"get-stdin": lambda: InputStream(Lease())}),
    Interface(named("cli/terminal-input"), {}, {"terminal-input": TerminalInput}),
    Interface(named("cli/terminal-output"), {}, {"terminal-output": TerminalOutput}),
    Interface(named("cli/terminal-stdin"), {"get-terminal-stdin": _nothing}),
    Interface(named("cli/terminal-stdout"), {"get-terminal-stdout": _nothing}),
    Interface(named("cli/terminal-stderr"), {"get-terminal-stderr": _nothing}),
)
_ENVIRONMENT, _STDOUT, _STDERR = (named(f"cli/{n}") for n in ("environment", "stdout", "stderr"))


def interfaces(log: _Log | None, ledger: Ledger, config: WasiConfig) -> list[Interface]:
    """`wasi:cli/*`; `log` is the log capability's state, or None where it is not granted."""

    def channel(name: str) -> HostFunc:
        sink = _Nowhere(ledger, name) if log is None else log.stream(name)
        return lambda: _Standard(sink)

    return [
        Interface(
            _ENVIRONMENT,
            {
                "get-environment": lambda: list(config.env.items()),
                "get-arguments": lambda: list(config.args),
                "initial-cwd": _nothing,
            },
        ),
        Interface(_STDOUT, {"get-stdout": channel("stdout")}),
        Interface(_STDERR, {"get-stderr": channel("stderr")}),
        *_SHARED,
    ]
