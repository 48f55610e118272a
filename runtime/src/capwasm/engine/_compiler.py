"""The compile process: a component on standard input, its compiled form on standard output.

It exits with 1 and a message when the component is invalid; with anything else when it ran out of
time or memory.  It holds no descriptor and no variable of its parent but these streams.
"""

from __future__ import annotations

import resource
import sys


def main(seconds: int, memory: int) -> None:
    """Compile under the given limits of processor seconds and bytes of address space."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (memory, memory))

    import wasmtime
    import wasmtime.component

    from .config import make_config

    code = sys.stdin.buffer.read()
    engine = wasmtime.Engine(make_config())
    try:
        component = wasmtime.component.Component(engine, code)
    except wasmtime.WasmtimeError as exc:
        sys.stderr.write(str(exc))
        sys.exit(1)
    except MemoryError:
        sys.exit(3)
    sys.stdout.buffer.write(component.serialize())
    sys.stdout.buffer.flush()
