"""This side of the compile process: it is started under limits, listened to, and ended in time.

Compiling untrusted code can take seconds and gigabytes (RES-22, RES-23), can't be interrupted, and is
outside of the engine's own security promise; so it happens in a child process.  What the child made
is sealed before anybody looks at it, so it does not matter what else still writes there.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from wasmtime import _ffi as ffi

from capwasm.errors import ArtifactError, InternalError
from capwasm.record.redact import printable

from ._compiler import INVALID
from .config import settings
from .sealed import Sealed, memory_file

__all__ = ["CompileLimits", "compile_apart", "first_lines"]

_SCRIPT = Path(__file__).with_name("_compiler.py")
_MESSAGE_BYTES = 4000
_TICK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class CompileLimits:
    """What one compilation may use, and what is kept of all of them.

    Attributes:
        code_bytes: the largest component taken, in bytes.
        seconds: processor time, and twice that in wall-clock time.
        memory_bytes: address space of the compile process.
        output_bytes: the largest compiled component taken, in bytes.
        output_base, output_ratio: and no larger than so many bytes, and so many for each of the
            code's: what is loaded takes many times its size in this process.
        cache_bytes: of compiled code kept in the cache; what was not used for the longest time goes
            first.
    """

    code_bytes: int = 64 * 1024 * 1024
    seconds: int = 120
    memory_bytes: int = 6 * 1024 * 1024 * 1024
    output_bytes: int = 1024 * 1024 * 1024
    output_base: int = 16 * 1024 * 1024
    output_ratio: int = 32
    cache_bytes: int = 2 * 1024 * 1024 * 1024

    def output(self, code_bytes: int) -> int:
        """The largest compiled form of a component of that size."""
        return min(self.output_bytes, self.output_base + self.output_ratio * code_bytes)


def compile_apart(
    code: bytes | memoryview, limits: CompileLimits, tell: Callable[[float], None]
) -> Sealed:
    """The compiled form of a component, made in a process of its own.

    Args:
        code: a binary component.
        limits: of that process.
        tell: told ten times a second how many seconds it has taken; what it raises ends the process.

    Raises:
        ArtifactError: `artifact.compile`: the component is invalid, or no process can be started;
            `artifact.compile-limit`: it was over a limit.
        InternalError: the compile process failed by itself.
    """
    output = limits.output(len(code))
    # -I, -S: no PYTHON* variables, no site-packages, no current directory on the path.
    argv = [sys.executable, "-I", "-S", str(_SCRIPT), str(ffi.filename), str(os.getpid())]
    argv += [str(limits.seconds), str(limits.memory_bytes), str(output)]
    argv += [f"{name}={value}" for name, value in settings().items()]
    started = time.monotonic()
    try:
        out = memory_file()
        try:
            with Sealed.holding(code) as given:
                status, message = _run(argv, given.fd, out, limits.seconds * 2, tell)
        except BaseException:
            os.close(out)
            raise
        made = Sealed(out)
    except OSError as exc:
        raise ArtifactError(
            f"the compile process can't be started: {exc.strerror}", code="artifact.compile"
        ) from exc
    if status == 0 and 0 < made.size <= output:
        return made
    made.close()
    if status == INVALID:
        raise ArtifactError(
            f"not a valid component: {first_lines(message)}", code="artifact.compile"
        )
    if status == 1:  # Python's own: an exception that nobody expected
        raise InternalError(f"the compile process failed: {message.strip()[-600:]}")
    raise ArtifactError(
        f"compiling was stopped after {time.monotonic() - started:.1f} s "
        f"(at most {limits.seconds} s, {limits.memory_bytes >> 20} MiB, and "
        f"{output >> 20} MiB of compiled code)",
        code="artifact.compile-limit",
    )


def _run(
    argv: list[str], code: int, out: int, seconds: float, tell: Callable[[float], None]
) -> tuple[int, str]:
    """The exit status of the compile process, and what it said."""
    import subprocess  # who finds all in the cache never needs it

    process = subprocess.Popen(  # noqa: S603 - fixed argv, no shell
        argv, stdin=code, stdout=out, stderr=subprocess.PIPE, env={}, close_fds=True
    )
    began = time.monotonic()
    assert process.stderr is not None
    with process.stderr as said:
        try:
            message = _listen(said, began, seconds, tell)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, began + seconds - time.monotonic()))
        finally:
            process.kill()
            process.wait()
    return process.returncode, message.decode("utf-8", "replace")


def _listen(said: IO[bytes], began: float, seconds: float, tell: Callable[[float], None]) -> bytes:
    """What it says, until it closes its standard error, which it does by ending, or time is up."""
    import select

    message = b""
    poll = select.poll()
    poll.register(said, select.POLLIN)
    while (taken := time.monotonic() - began) < seconds:
        if not poll.poll(1000 * min(_TICK_SECONDS, seconds - taken)):
            tell(taken)
            continue
        piece = os.read(said.fileno(), _MESSAGE_BYTES)
        if not piece:
            break
        message = (message + piece)[:_MESSAGE_BYTES]
    return message


def first_lines(text: str, count: int = 4) -> str:
    """The first lines of an engine's message, in one that is fit to show."""
    # Names in the text are the component's own.
    lines = [printable(line.strip()) for line in text.split("\n") if line.strip()]
    return " / ".join(lines[:count])[:600]
