"""How wasmtime is set up: metered, interruptible, and with every unneeded proposal off.

The compile process and the runtime must use the very same settings, so they stand in one table,
whose fingerprint is part of the compile cache's key.
"""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path

import wasmtime
from wasmtime import _bindings as ffi

from capwasm.threads import GUEST_STACK_BYTES

__all__ = ["fingerprint", "make_config", "settings", "switched_off", "wheel_version"]

# Advisories of 2026 cluster in these proposals (see security-cases.md), and no toolchain that we
# support needs them.  What is off can't be reached.
_OFF = (
    "wasm_threads",
    "shared_memory",
    "wasm_gc",
    "gc_support",
    "wasm_exceptions",
    "wasm_function_references",
    "wasm_stack_switching",
    "wasm_memory64",
    "wasm_custom_page_sizes",
    "wasm_relaxed_simd",
    "wasm_wide_arithmetic",
)
_RAW_OFF = ("wasm_component_model_async", "concurrency_support")
_ON = (
    "wasm_component_model",
    "wasm_simd",
    "wasm_bulk_memory",
    "wasm_reference_types",
    # The engine's own code between two components uses two memories: with this off, 50.0.1 aborts
    # on any component that is composed of others.  What a guest may have of them is a limit.
    "wasm_multi_memory",
)
_CRANELIFT = _SPEED = 1  # of `wasmtime_strategy_t` and `wasmtime_opt_level_t`


@cache
def wheel_version() -> str:
    """The installed wheel's version.  Asked for often, and slow: it lies in a mail header."""
    return version("wasmtime")


def settings() -> dict[str, int]:
    """What compiled code depends on, by the names of the C API: `wasmtime_config_<name>_set`.

    The wheel has no attribute for some of them.  With concurrency on, 50.0.1 traps at any host call
    that borrows two handles ("deferred host scope has no call context"): every rename and splice.
    """
    return {
        "strategy": _CRANELIFT,
        "cranelift_opt_level": _SPEED,
        "consume_fuel": 1,
        "epoch_interruption": 1,
        "max_wasm_stack": GUEST_STACK_BYTES,
        **dict.fromkeys(_ON, 1),
        **dict.fromkeys((*_OFF, *_RAW_OFF), 0),
    }


def make_config() -> wasmtime.Config:
    """The one configuration in which plugins are compiled and run."""
    config = wasmtime.Config()
    for name, value in settings().items():
        getattr(ffi, f"wasmtime_config_{name}_set")(config.ptr(), value)
    return config


def switched_off() -> frozenset[str]:
    """The proposals and features that no guest can get at, by their names in the engine's settings."""
    return frozenset((*_OFF, *_RAW_OFF))


def fingerprint() -> str:
    """What a compiled component depends on besides its code: version, settings, processor."""
    parts = [
        wheel_version(),
        platform.system(),
        platform.machine(),
        *(f"{name}={value}" for name, value in settings().items()),
        _cpu_flags(),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _cpu_flags() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
