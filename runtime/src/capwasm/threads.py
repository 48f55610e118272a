"""The threads that guests run on, and how much of its stack each has left for them.

A guest runs on the native stack of the thread that calls it, up to `GUEST_STACK_BYTES` of it, and the
engine doesn't ask how much there is: past the end the process dies.  A thread of the embedder's may
be small, and plugins that call plugins take one guest's share each; so calls are counted here
(RES-12), and what has no room goes to a thread of our own.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

__all__ = ["GUEST_STACK_BYTES", "WORKER_STACK_BYTES", "Workers", "guests_that_fit", "is_worker"]

P = ParamSpec("P")
T = TypeVar("T")

MIB = 1024 * 1024
GUEST_STACK_BYTES = MIB
# What the host functions of each call may use, and what stood on the stack before the first.
_HOST_STACK_BYTES = MIB // 2
_BASE_BYTES = MIB
# Room for `limits.depth` at its ceiling.  Only what is touched becomes memory.
WORKER_STACK_BYTES = 64 * MIB


class _Local(threading.local):
    guests: int | None = None
    worker = False


_LOCAL = _Local()
_STARTING = threading.Lock()


def is_worker() -> bool:
    """Whether this thread is one of `Workers`."""
    return _LOCAL.worker


def guests_that_fit() -> int:
    """How many calls into guests may be under way on this thread, one within the other."""
    if _LOCAL.guests is None:
        # A worker's is asked for too: another thread may set the size in the moment that it starts.
        size = _stack_bytes() or (WORKER_STACK_BYTES if _LOCAL.worker else 0)
        share = GUEST_STACK_BYTES + _HOST_STACK_BYTES
        _LOCAL.guests = max(0, (size - _BASE_BYTES) // share)
    return _LOCAL.guests


def _stack_bytes() -> int:
    """The size of this thread's stack; 0 where the system can't tell."""
    libc = _libc()
    if libc is None:
        return 0
    # Larger than the structure of any C library.
    attributes, start, size = (ctypes.c_char * 512)(), ctypes.c_void_p(), ctypes.c_size_t()
    if libc.pthread_getattr_np(ctypes.c_void_p(threading.get_ident()), attributes):
        return 0
    try:
        failed = libc.pthread_attr_getstack(attributes, ctypes.byref(start), ctypes.byref(size))
        return 0 if failed else size.value
    finally:
        libc.pthread_attr_destroy(attributes)


@functools.cache
def _libc() -> Any:
    try:
        libc = ctypes.CDLL(None)
        return libc if hasattr(libc, "pthread_getattr_np") else None
    except (OSError, TypeError):
        return None


def _mark() -> None:
    _LOCAL.worker = True


class Workers(ThreadPoolExecutor):
    """Threads with a large stack, started when all others are busy."""

    def __init__(self, count: int) -> None:
        """At most `count` threads; none yet."""
        super().__init__(count, thread_name_prefix="capwasm-call", initializer=_mark)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As any executor."""
        # The size is a setting of the whole process, so another thread that is started in this
        # moment gets a large stack too, which costs it nothing.
        with _STARTING:
            before = threading.stack_size(WORKER_STACK_BYTES)
            try:
                return super().submit(fn, *args, **kwargs)
            finally:
                now = threading.stack_size(before)
                if now != WORKER_STACK_BYTES:
                    threading.stack_size(now)  # another thread has set its own meanwhile

    def close(self) -> None:
        """Let every thread end, and wait for them; but not for oneself."""
        self.shutdown(wait=not is_worker())
