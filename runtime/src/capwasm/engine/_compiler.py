"""The compile process: a component on standard input, its compiled form on standard output.

It exits with `INVALID` and a message when the component is invalid; with anything else when it ran
out of time, memory or room.  It holds no descriptor and no variable of its parent but these streams.
"""

from __future__ import annotations

import sys

__all__ = ["INVALID", "main"]

# Not 1, which Python exits with when it failed itself.
INVALID = 65
_OVER = 3


def main(seconds: int, memory: int, output: int) -> None:
    """Compile under the given limits of processor seconds, address space and output bytes."""
    import resource

    for kind, limit in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, output),
        (resource.RLIMIT_CORE, 0),
    ):
        # Whoever started the parent may have set a lower one; it can't be raised, only kept.
        hard = resource.getrlimit(kind)[1]
        lower = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (lower, lower))
    try:
        _compile()
    except (MemoryError, OSError):
        sys.exit(_OVER)


def _compile() -> None:
    import wasmtime
    import wasmtime.component

    from .config import make_config

    code = sys.stdin.buffer.read()
    engine = wasmtime.Engine(make_config())
    try:
        component = wasmtime.component.Component(engine, code)
    except wasmtime.WasmtimeError as exc:
        sys.stderr.write(str(exc)[:4000])
        sys.exit(INVALID)
    sys.stdout.buffer.write(component.serialize())
    sys.stdout.buffer.flush()
