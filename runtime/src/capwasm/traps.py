"""What the engine says of a call that failed, as an error of ours."""

from __future__ import annotations

from .call import CallRecord
from .engine.lane.wire import MEMORY_LIMIT, VALUE_LIMIT
from .engine.lane.wire import MODULE as LANE
from .errors import (
    CallInterrupted,
    CapwasmError,
    FuelExhausted,
    GuestTrap,
    HandleLimitExceeded,
    InstancesExceeded,
    LimitExceeded,
    LinkError,
    MemoryLimitExceeded,
    StackExhausted,
    TableLimitExceeded,
    ValueLimitExceeded,
)
from .record.redact import printable

__all__ = ["classify"]

# Words of the engine's messages, and what they mean.  A message can also be empty, so this is only
# asked when the call's own record knows nothing.
_TRAPS: tuple[tuple[str, type[LimitExceeded], str], ...] = (
    ("all fuel consumed", FuelExhausted, "all fuel used (limits.fuel)"),
    ("call stack exhausted", StackExhausted, "the guest's call stack is exhausted"),
    ("memory minimum size", MemoryLimitExceeded, "needs more memory (limits.memory)"),
    ("memory count too high", MemoryLimitExceeded, "needs more memories (limits.memories)"),
    ("maximum concurrent limit", InstancesExceeded, "no room for it now (Capacity.instances)"),
    ("table minimum size", TableLimitExceeded, "needs more table elements (limits.table-elements)"),
    ("table count too high", TableLimitExceeded, "needs more tables (limits.tables)"),
    ("instance count too high", LimitExceeded, "needs more instances (limits.instances)"),
    ("resource limit exceeded", LimitExceeded, "needs more than its limits allow"),
    ("handle limit exceeded", HandleLimitExceeded, "holds too many handles (limits.handles)"),
    ("too much data is being copied", ValueLimitExceeded, "more data than may cross at once"),
)
# Functions that toolchains call when an allocation was refused; `memory.grow` itself only says -1.
_OUT_OF_MEMORY = ("alloc_error", "rust_oom", "out_of_memory", "PyErr_NoMemory", "fatal_oom")


def classify(message: str, record: CallRecord, *, starting: bool) -> CapwasmError:
    """The named error for a failed call of which the record knows nothing."""
    # The backtrace comes first, with names that the guest chose, line ends and all; what the engine
    # says itself is after the last of these words.
    backtrace, _, cause = message.rpartition("\nCaused by:\n")
    for word, error, text in _TRAPS:
        if word in cause:
            return error(text, context=record.plugin)
    if record.cancelled is not None:
        return CallInterrupted(record.cancelled, context=record.plugin)
    if f"{LANE}!{VALUE_LIMIT}" in backtrace:
        return ValueLimitExceeded(
            "more data than may cross at once (limits.value-bytes)", context=record.plugin
        )
    if f"{LANE}!{MEMORY_LIMIT}" in backtrace or any(w in backtrace for w in _OUT_OF_MEMORY):
        return MemoryLimitExceeded(
            f"out of memory at {record.limits.memory} bytes (limits.memory)", context=record.plugin
        )
    detail = _trap_text(backtrace, cause)
    if starting and not backtrace and "wasm trap" not in cause:
        return LinkError(
            f"can't be instantiated: {detail}", code="link.instantiate", context=record.plugin
        )
    return GuestTrap(detail, context=record.plugin)


def _trap_text(backtrace: str, cause: str) -> str:
    """The trap's name and the innermost guest frames, short and printable (LOG-07)."""
    text = printable(cause.replace("wasm trap:", "").strip())[:300] or "trapped"
    lines = [line.strip() for line in backtrace.split("\n")]
    frames = [line for line in lines if line[:1].isdigit() and "!" in line and LANE not in line][:5]
    return "\n".join([text, *(f"  at {printable(f[:200])}" for f in frames)])
