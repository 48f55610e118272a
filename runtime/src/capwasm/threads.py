"""The threads that guests run on: which call runs on each, and how much stack it has left.

A guest runs on the native stack of the thread that calls it, up to `GUEST_STACK_BYTES` of it, and the
engine doesn't ask how much there is: past the end the process dies.  A thread of the embedder's may
be small, and plugins that call plugins take one guest's share each; so calls are counted here
(RES-12), and what has no room goes to a thread of our own.  So does all from the main thread, where
signals are handled, on a Python where that is not known to be safe.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from .call import CallRecord

__all__ = [
    "GUEST_STACK_BYTES",
    "LOCAL",
    "PROVEN",
    "WORKER_STACK_BYTES",
    "Here",
    "Workers",
    "interrupt",
    "stack_for",
]

P = ParamSpec("P")
T = TypeVar("T")

MIB = 1024 * 1024
GUEST_STACK_BYTES = MIB
# What the host functions of each call may use, and what stood on the stack before the first.
_HOST_STACK_BYTES = MIB // 2
_BASE_BYTES = MIB
# Room for `limits.depth` at its ceiling.  Only what is touched becomes memory.
WORKER_STACK_BYTES = 64 * MIB
_STARTING = threading.Lock()

PROVEN = (
    sys.implementation.name == "cpython"
    and sys.version_info[:2] in {(3, 11), (3, 12), (3, 13)}
    and getattr(sys, "_is_gil_enabled", lambda: True)()
)
"""Whether this is a Python on which guests may run on the main thread; see `engine.trampoline`."""


_SHARE_BYTES = GUEST_STACK_BYTES + _HOST_STACK_BYTES


def stack_for(guests: int) -> int:
    """The stack, in bytes, of a thread on which so many guests can run, each called by the last."""
    return _BASE_BYTES + guests * _SHARE_BYTES


def interrupt(thread: threading.Thread) -> None:
    """Have `SystemExit` raised in a thread, at its next step of Python.

    What it does in native code it does to the end, and what catches everything goes on.
    """
    if thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
        )


class Here:
    """One thread, as calls see it.

    Attributes:
        call: the call that runs on it, or None.
        room: how many guests more fit on its stack.
        worker: whether it is one of `Workers`.
    """

    __slots__ = ("call", "room", "worker")

    def __init__(self, stack_bytes: int, *, worker: bool = False) -> None:
        """Nothing runs yet."""
        self.call: CallRecord | None = None
        self.room = max(0, (stack_bytes - _BASE_BYTES) // _SHARE_BYTES)
        self.worker = worker


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


class _Local(threading.local):
    def __init__(self) -> None:
        # Run by each thread at its first look.
        main = threading.current_thread() is threading.main_thread()
        self.here = Here(_stack_bytes() if PROVEN or not main else 0)


LOCAL = _Local()
"""`LOCAL.here` is the `Here` of this thread."""


def _mark() -> None:
    # Asked for as well: another thread may set the size in the moment that this one starts.
    LOCAL.here = Here(_stack_bytes() or WORKER_STACK_BYTES, worker=True)


class _Idle:
    """How many threads have nothing to do; in the place of the executor's own semaphore.

    That one is made of Python code, and its lock can stay taken for ever if a signal's handler raises
    where it is being taken: the next who submits would wait for it without end.
    """

    def __init__(self) -> None:
        self._tokens: deque[None] = deque()

    def acquire(self, timeout: float = 0) -> bool:  # noqa: ARG002 - it is never waited for
        try:
            self._tokens.pop()
        except IndexError:
            return False
        return True

    def release(self) -> None:
        self._tokens.append(None)


class Workers(ThreadPoolExecutor):
    """Threads with a large stack, started when all others are busy."""

    def __init__(self, count: int) -> None:
        """At most `count` threads; none yet."""
        super().__init__(count, thread_name_prefix="capwasm-call", initializer=_mark)
        if PROVEN:  # on which it is known to be there
            self._idle_semaphore = _Idle()  # type: ignore[assignment]

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
        self.shutdown(wait=not LOCAL.here.worker)
