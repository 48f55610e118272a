"""What runs in the sandbox of a command: nothing, until the program takes its place.

The host has judged a file and sent it along.  What stands at the program's path in this process's own
root must be that very file; it is executed by that path, with fixed arguments, and three pipes are all
that it has in hand.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .child import Given

__all__ = ["BAD", "run"]

BAD: Final = 127
"""The exit status where the program was not executed; `status` says why."""

_CLEAR: Final = 10  # above the three that are put in their places


def run(given: Given) -> int:
    """Become the program of `given.spec.argv`.  Returns, with a status, only if there is no such.

    `given.fds` holds `stdin`, `stdout`, `stderr`; `program`, the file that was judged; and `status`, a
    pipe that closes when the program begins.  Into it goes `go` when all is well this far, and then, if
    the kernel refuses the program after all, why.  With `trial` in `given.load` the program does not
    begin.
    """
    spec, fds = given.spec, {name: numbers[0] for name, numbers in given.fds.items()}
    status = fds["status"]
    try:
        program = spec.argv[0]
        wanted, found = os.fstat(fds["program"]), os.stat(program)  # noqa: PTH116
        if not os.path.samestat(wanted, found):
            os.write(status, b"another file stands at its path")
            return BAD
        if not os.access(program, os.X_OK):
            os.write(status, b"it can't be executed by the user that it would run as")
            return BAD
        os.write(status, b"go")
        if given.load.get("trial"):
            return 0
        _put(fds["stdin"], fds["stdout"], fds["stderr"])
        os.execve(program, spec.argv, dict(spec.env))  # noqa: S606 - no shell: that is the point
    except OSError as exc:
        name = errno.errorcode.get(exc.errno or 0, "")
        os.write(status, f"it can't be executed: {exc.strerror} ({name})".encode())
    return BAD


def _put(*ends: int) -> None:
    """Have these at 0, 1 and 2, where a program looks for them.  All else closes by itself."""
    # First out of each other's way.
    clear = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _CLEAR) for fd in ends]
    for number, fd in enumerate(clear):
        os.dup2(fd, number, inheritable=True)
