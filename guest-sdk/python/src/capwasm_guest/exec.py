"""Commands that the operator named: `[[exec]]` in plugin.toml.  A high risk: a person decides.

thumbnail = exec.run("thumbnail", "100x100", input=photo).check().stdout

What a command is, the operator's policy says: the program, its fixed words, and what may stand in
their open places.  `run` fills those, in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, cast

from ._bindings import ExecImport, guard, load
from .errors import Unavailable, from_wit

__all__ = ["Output", "run"]

_commands = cast("ExecImport", load("capwasm_exec", "capwasm_guest.exec"))


@dataclass(frozen=True)
class Output:
    """What a command left.

    Attributes:
        command: its name.
        code: its exit code; None if a signal ended it: a crash, or one of its limits.
        stdout, stderr: what it wrote, as far as that was granted.
        truncated: whether it would have written more.
    """

    command: str
    code: int | None
    stdout: bytes
    stderr: bytes
    truncated: bool

    @property
    def ok(self) -> bool:
        """Whether it ended with 0, and all that it wrote is here."""
        return self.code == 0 and not self.truncated

    def check(self) -> Self:
        """Pass if all went well.

        Raises:
            Unavailable: it did not: another exit code, a signal, or more output than granted.
        """
        if self.ok:
            return self
        what = "was ended by a signal" if self.code is None else f"ended with {self.code}"
        if self.truncated:
            what = "wrote more than it may"
        raise Unavailable("unavailable", f"exec.run {self.command}: it {what}")

    def text(self, encoding: str = "utf-8") -> str:
        """Its standard output as text.

        Raises:
            UnicodeDecodeError: it is not in that encoding.
        """
        return self.stdout.decode(encoding)


def run(command: str, *arguments: str, input: bytes | str = b"") -> Output:  # noqa: A002
    """Run a command to its end.

    Args:
        command: its name, as in plugin.toml.
        arguments: one for each open place, in order.
        input: its standard input; text as UTF-8.

    Raises:
        Denied: the command or these arguments were not granted, or it ran too often in this call.
        Invalid: an argument holds a control character, such as a newline.
        TooLarge, Timeout, Closed, Unavailable: see `errors`.
    """
    guard("exec")
    data = input.encode() if isinstance(input, str) else bytes(input)
    with from_wit(f"exec.run {command}"):
        out = _commands.run(command, list(arguments), data)
    return Output(
        command, out.code, out.stdout, out.stderr, out.stdout_truncated or out.stderr_truncated
    )
