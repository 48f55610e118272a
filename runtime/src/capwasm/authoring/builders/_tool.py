"""One run of a tool: bounded in time, and over when the build is."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from capwasm.errors import BuildError

__all__ = ["Said", "run"]


@dataclass(frozen=True, slots=True)
class Said:
    """How a tool ended.

    Attributes:
        code: its exit code.   output: what it wrote.
        errors: what it wrote to its standard error; empty where that is in `output`.
    """

    code: int
    output: str
    errors: str


def run(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    seconds: float,
    name: str,
    apart: bool = False,
) -> Said:
    """Run a tool to its end.

    Args:
        argv: the program and its arguments; there is no shell.
        cwd: where it runs.
        env: its whole environment.
        seconds: after which it is stopped.
        name: what messages call it.
        apart: keep its standard error apart from its output.

    Raises:
        BuildError: it took longer.
    """
    process = subprocess.Popen(  # noqa: S603 - no shell
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if apart else subprocess.STDOUT,
        cwd=cwd,
        env=dict(env),
    )
    try:
        output, errors = process.communicate(timeout=seconds)
    except BaseException as exc:
        process.kill()
        process.communicate()
        if isinstance(exc, subprocess.TimeoutExpired):
            raise BuildError(f"{name} was stopped after {seconds} s") from None
        raise
    texts = [part.decode("utf-8", "replace") for part in (output, errors or b"")]
    return Said(process.returncode, *texts)
