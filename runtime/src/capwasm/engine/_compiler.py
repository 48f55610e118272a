"""The compile process: a component on standard input, its compiled form on standard output.

It runs as a script of its own, without this package, without the wheel's Python side and without
`site`: it needs five functions of the engine's library, and that is a matter of milliseconds.  It
holds no descriptor and no variable of its parent but these streams, and ends with it.

It exits with `INVALID` and a message when the component is invalid; with anything else when it ran
out of time, memory or room.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

__all__ = ["INVALID", "main"]

# Not 1, which Python exits with when it failed itself.
INVALID = 65
_OVER = 3
_PR_SET_PDEATHSIG = 1
_SIGKILL = 9
_P = ctypes.c_void_p


def main(library: str, parent: str, seconds: str, memory: str, output: str, *settings: str) -> None:
    """Compile under limits, and exit.

    Args:
        library: path of the engine's library.
        parent: process id of who waits for the result.
        seconds: of processor time.
        memory: bytes of address space.
        output: bytes of compiled code.
        settings: `name=value`, as in `config.settings`.
    """
    _end_with(int(parent))
    _limit(int(seconds), int(memory), int(output))
    try:
        _compile(ctypes.CDLL(library), settings)
    except (MemoryError, OSError):
        status = _OVER
    else:
        status = 0
    # Nothing is torn down: that would take as long again.
    os._exit(status)


def _end_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != parent:
        os._exit(_OVER)


def _limit(seconds: int, memory: int, output: int) -> None:
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


def _compile(library: ctypes.CDLL, settings: tuple[str, ...]) -> None:
    def function(name: str, result: Any, *args: Any) -> Any:
        return ctypes.CFUNCTYPE(result, *args)((name, library))

    config = function("wasm_config_new", _P)()
    for setting in settings:
        name, _, value = setting.partition("=")
        # Each takes a bool, a byte or a size, and the register is the same.
        function(f"wasmtime_config_{name}_set", None, _P, ctypes.c_size_t)(config, int(value))
    engine = function("wasm_engine_new_with_config", _P, _P)(config)
    code, component = sys.stdin.buffer.read(), _P()
    new = function("wasmtime_component_new", _P, _P, ctypes.c_char_p, ctypes.c_size_t, _P)
    error = new(engine, code, len(code), ctypes.addressof(component))
    vector = (ctypes.c_size_t * 2)()  # `wasm_byte_vec_t`: a size and a pointer
    if error:
        function("wasmtime_error_message", None, _P, _P)(error, vector)
        os.write(2, _bytes(vector)[:4000])
        os._exit(INVALID)
    if function("wasmtime_component_serialize", _P, _P, _P)(component, vector):
        os._exit(_OVER)
    left = _bytes(vector)
    while left:
        left = left[os.write(1, left) :]


def _bytes(vector: Any) -> memoryview:
    size, address = vector
    return memoryview((ctypes.c_char * size).from_address(address)).cast("B")


if __name__ == "__main__":
    main(*sys.argv[1:])
