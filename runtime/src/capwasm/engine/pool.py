"""Room for instances, set aside in advance: the engine's pooling allocator, where the machine can.

An instance that starts in a pool takes a slot: its memory is mapped already, and a slot that the same
component had before keeps that component's initial image.  That saves system calls that stop every
thread of the process.  What a guest left is wiped by the engine when the slot is given back: the
first bytes by hand, the rest by giving the pages back to the system.

A slot is a piece of address space as large as any plugin's limits may be, so whatever may run fits.
Address space is not memory, but it is not endless either: containers, `ulimit -v` and processors with
39-bit addresses have too little.  The engine *aborts the process* when it can't have a pool, so it is
tried here first.  Without a pool, memory is mapped when an instance starts; all else is the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wasmtime
from wasmtime import _bindings as ffi

from capwasm.limits import CEILING

from .config import make_config
from .lane.wire import ADDED_INSTANCES, ADDED_MEMORIES

__all__ = ["Capacity", "Made", "make_engine"]

KIB, GIB = 1024, 1024 * 1024 * 1024

MOST_INSTANCES, MOST_READY = 10_000, 16
"""What one runtime can be told to hold at most, and to keep ready for each plugin."""

# For each instance, where there is room for all, and at least.  Of memories, one is the plugin's own;
# the runtime may put others around it.
MEMORIES_EACH, FEWEST_MEMORIES = 1 + ADDED_MEMORIES, 8
TABLES_EACH, FEWEST_TABLES = 4, 64
# The kernel bounds the mappings of a process (65,530 by default), and a memory takes up to four.  At
# most so much of them: the host needs some for its threads and its own memory.
_MAPPINGS_EACH = 4
_MAPPINGS_SHARE = 0.75

# A slot must hold what a 32-bit address can reach, and a guard: the code has no checks of its own.
_MEMORY_BYTES = CEILING.memory
_MEMORY_SLOT = 4 * GIB + 64 * 1024 * KIB
_TABLE_SLOT = CEILING.table_elements * 8
# What is wiped by hand, and so stays resident in a free slot.  Most plugins of a few kB touch no more,
# and wiping costs less than giving pages back and faulting them in again.
_WIPED_MEMORY = 16 * KIB
_WIPED_TABLE = 4 * KIB
# Checked by the engine and not set aside; a context is as large as a component's code makes it.
_CONTEXT_BYTES = GIB

_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)
_MADV_NOHUGEPAGE = 15
# Two that make a pool at once would both find room where there is room for one.
_MAKING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many instances a runtime holds at a time, and how.

    Attributes:
        instances: at most, over all plugins, from 1 to 10,000.  Where they are pooled, each takes
            4 GiB of address space for each memory; of the machine's own, what it touches.
        pooled: whether room is set aside in advance; if the machine can't, it isn't.
        ready: how many started instances are kept for a plugin that gets a fresh one for each call,
            if starting takes long; from 0 to 16.  See `ready.py`.

    Raises:
        ValueError: a number is out of range.
    """

    instances: int = 1_024
    pooled: bool = True
    ready: int = 2

    def __post_init__(self) -> None:
        """Refuse what would bound nothing."""
        if type(self.instances) is not int or not 1 <= self.instances <= MOST_INSTANCES:
            raise ValueError(f"instances must be a whole number from 1 to {MOST_INSTANCES}")
        if type(self.ready) is not int or not 0 <= self.ready <= MOST_READY:
            raise ValueError(f"ready must be a whole number from 0 to {MOST_READY}")


@dataclass(frozen=True, slots=True)
class Made:
    """An engine, and how it has room for instances.

    Attributes:
        wasm: the engine.   instances: how many it holds at a time.
        why_not: why there is no pool, or empty: there is one.
    """

    wasm: wasmtime.Engine
    instances: int
    why_not: str

    @property
    def pooled(self) -> bool:
        """Whether room was set aside."""
        return not self.why_not


def make_engine(capacity: Capacity) -> Made:
    """An engine with a pool for that many instances, or one that maps memory when it is needed."""
    instances = min(capacity.instances, _mappable())
    if not capacity.pooled:
        return Made(wasmtime.Engine(make_config()), instances, "switched off")
    if why_not := _unfit():
        return Made(wasmtime.Engine(make_config()), instances, why_not)
    with _MAKING:
        if not _has_room(*_bytes(instances)):
            why_not = f"no address space for {instances} instances of 4 GiB (Capacity.instances)"
            return Made(wasmtime.Engine(make_config()), instances, why_not)
        with _small_pages(_bytes(instances)[1]):
            return Made(wasmtime.Engine(_pooled(instances)), instances, "")


def _pooled(instances: int) -> wasmtime.Config:
    """The one configuration, with slots.  Compiled code is the same with and without them."""
    memories, tables = _slots(instances)
    most_cores = CEILING.instances + ADDED_INSTANCES
    most_memories = CEILING.memories + ADDED_MEMORIES
    pool = ffi.wasmtime_pooling_allocation_config_new()
    for name, value in {
        "total_component_instances": instances,
        "total_core_instances": min(instances * most_cores, 2**32 - 1),
        "total_memories": memories,
        "total_tables": tables,
        "total_stacks": 0,
        "total_gc_heaps": 0,
        "max_component_instance_size": _CONTEXT_BYTES,
        "max_core_instance_size": _CONTEXT_BYTES,
        "max_core_instances_per_component": most_cores,
        "max_memories_per_component": min(most_memories, memories),
        "max_tables_per_component": min(CEILING.tables, tables),
        "max_memories_per_module": min(CEILING.memories, memories),
        "max_tables_per_module": min(CEILING.tables, tables),
        "max_memory_size": _MEMORY_BYTES,
        "table_elements": CEILING.table_elements,
        "linear_memory_keep_resident": _WIPED_MEMORY,
        "table_keep_resident": _WIPED_TABLE,
    }.items():
        getattr(ffi, f"wasmtime_pooling_allocation_config_{name}_set")(pool, value)
    config = make_config()
    ffi.wasmtime_pooling_allocation_strategy_set(config.ptr(), pool)
    ffi.wasmtime_pooling_allocation_config_delete(pool)
    return config


def _slots(instances: int) -> tuple[int, int]:
    """How many memories and tables."""
    memories = max(min(instances * MEMORIES_EACH, _mappable()), FEWEST_MEMORIES)
    return memories, max(instances * TABLES_EACH, FEWEST_TABLES)


def _bytes(instances: int) -> tuple[int, int]:
    """Address space for memories, and for tables."""
    memories, tables = _slots(instances)
    return memories * _MEMORY_SLOT, tables * _TABLE_SLOT


def _mappable() -> int:
    """How many memories the kernel has mappings for."""
    words = _read("/proc/sys/vm/max_map_count").split()
    if not words or not words[0].isdecimal():
        return MOST_INSTANCES
    return max(1, int(int(words[0]) * _MAPPINGS_SHARE) // _MAPPINGS_EACH)


def _unfit() -> str:
    """Why this machine has no pools at all, or empty."""
    if not sys.platform.startswith("linux") or sys.maxsize < 2**47:
        return "only 64-bit Linux is supported"
    if _read("/proc/sys/vm/overcommit_memory").strip() == "2":
        return "vm.overcommit_memory is 2: what is set aside would count as used"
    return ""


def _has_room(memories: int, tables: int) -> bool:
    """Whether that much address space can be had, and some more."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
    more = memories + memories // 16 + GIB
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(mmap.mmap(-1, more, flags=flags, prot=0))
            # Tables are writable from the start, which counts to more limits.
            both = mmap.PROT_READ | mmap.PROT_WRITE
            held.enter_context(mmap.mmap(-1, tables + GIB, flags=flags, prot=both))
        except (OSError, OverflowError, ValueError):
            return False
    return True


@contextlib.contextmanager
def _small_pages(tables: int) -> Iterator[None]:
    """What is mapped for tables meanwhile is to be used in small pages.

    With transparent huge pages for all, the first element of each table would take 2 MiB.
    """
    if "[always]" not in _read("/sys/kernel/mm/transparent_hugepage/enabled"):
        yield
        return
    before = set(_writable())
    yield
    for begin, end in set(_writable()) - before:
        if end - begin >= tables:
            libc: Any = ctypes.CDLL(None)
            libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_NOHUGEPAGE)


def _writable() -> Iterator[tuple[int, int]]:
    """The process's writable mappings."""
    for line in _read("/proc/self/maps").splitlines():
        span, rights, *_ = line.split()
        if rights.startswith("rw"):
            begin, _, end = span.partition("-")
            yield int(begin, 16), int(end, 16)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
