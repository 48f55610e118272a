"""The fork server: one thread that starts processes, watches them, and tells the host how each ended.

It listens to the host alone.  What it forks can't speak to it, but for one report on a pipe of its
own, written before anything untrusted is there; so it never waits for a child, and a child that hangs in
its set-up is killed.  It is every orphan's parent, and kills what is not its own.

All children have the address space of the server, and so its random layout.  A plugin may thus know
where another plugin's code lies; it has no way to it.  What one plugin gave to a command of its own is in
no other's memory: it comes in a file that the child alone reads.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import os
import resource
import select
import signal
import socket
import sys
import time
from collections import deque
from typing import Any, Final, NoReturn

import msgpack

from . import child, control, sandbox
from .layers import Spec
from .protocol import ServerKind
from .sandbox import kernel
from .sandbox.process import NO_CORE

__all__ = ["SETUP_SECONDS", "main"]

SETUP_SECONDS: Final = 10.0
"""For a child's sandbox."""

_LAST_SECONDS: Final = 2.0
"""For all children to end when they were killed."""

_REPORT_BYTES: Final = 64 * 1024
_PR_SET_NAME: Final = 15
_FAULTS: Final = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}
_INSIDE: Final = "capwasm.isolation.inside"
_GONE: Final = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF})


class _HostGone(Exception):
    """The host has closed its end, or is dead."""


class _Child:
    """A process from its fork until it was reaped."""

    __slots__ = ("deadline", "failure", "id", "pid", "pipe", "said")

    def __init__(self, number: int, pid: int, pipe: int) -> None:
        self.id = number
        self.pid = pid
        self.pipe = pipe  # -1 once it has reported
        self.deadline = time.monotonic() + SETUP_SECONDS
        self.said = b""
        self.failure: list[str] | None = None


class _Server:
    def __init__(self, sock: socket.socket, host: int) -> None:
        """Serve that socket, whose other end is that process."""
        self._pid = os.getpid()
        self._sock = sock
        self._out: deque[tuple[bytes, int]] = deque()
        self._children: dict[int, _Child] = {}
        self._pipes: dict[int, _Child] = {}
        self._more: dict[int, list[int]] = {}
        # The host may be copied, with its end of the socket (LIFE-10): so it is watched as well.
        self._host = os.pidfd_open(host)
        self._wake, self._woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll = select.poll()
        for fd in (self._sock.fileno(), self._host, self._wake):
            self._poll.register(fd, select.POLLIN)

    def watch(self) -> None:
        """Hear of every child's end, and be the parent of every orphan."""
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> None:
        """Do as the host says, until it is gone."""
        try:
            while True:
                self._turn()
        except _HostGone:
            pass
        finally:
            self._kill_all()
            sandbox.finish()

    def _turn(self) -> None:
        waits = [c.deadline for c in self._pipes.values()]
        now = time.monotonic()
        ready = self._poll.poll(max(0, min(waits) - now) * 1000 + 1 if waits else None)
        for fd, events in ready:
            if fd in self._pipes:
                self._hear(self._pipes[fd])
            elif fd == self._wake:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake, 4096)
            elif fd == self._host:
                raise _HostGone
            elif events & ~select.POLLOUT:
                self._obey()
        self._reap()
        now = time.monotonic()
        for each in [c for c in self._pipes.values() if c.deadline <= now]:
            each.failure = ["", "", f"its set-up took longer than {SETUP_SECONDS:g} seconds"]
            self._settle(each)
        self._flush()

    # -- what the host says ---------------------------------------------------------------------

    def _obey(self) -> None:
        try:
            message, fds = control.receive(self._sock)
        except EOFError:
            raise _HostGone from None
        except BlockingIOError:
            return
        except control.Malformed as exc:
            match exc.message:
                case [_, int(number), *_]:
                    self._drop(number)
                    self._fail(number, "", "EMFILE", str(exc))
            return
        try:
            match message:
                case [ServerKind.START, int(number), spec, list(names)]:
                    fds = fds + self._more.pop(number, [])
                    self._start(number, spec, names, fds)
                case [ServerKind.START, int(number), *_]:
                    self._drop(number)
                case [ServerKind.MORE, int(number)]:
                    self._more.setdefault(number, []).extend(fds)
                    fds = []
                case [ServerKind.WARM]:
                    with contextlib.suppress(Exception):  # a START tells what is wrong
                        self._warm()
        finally:
            for fd in fds:
                os.close(fd)

    def _start(self, number: int, given: Any, names: list[Any], fds: list[int]) -> None:
        reading = writing = -1
        try:
            spec = Spec.from_map(given)
            if len(fds) != len(names) + 1 or not all(type(name) is str for name in names):
                raise ValueError(f"{len(names)} descriptors are named, and {len(fds) - 1} came")
            if spec.kind == "component":
                self._warm()
            _check_alone()
            reading, writing = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(reading, False)
            pid = sandbox.spawn(spec)
            if pid == 0:
                child.run(self._sock.fileno(), fds[0], names, fds[1:], writing)
            each = _Child(number, pid, reading)
            self._children[pid] = self._pipes[reading] = each
            self._poll.register(reading, select.POLLIN)
            reading = -1
        except OSError as exc:
            name = errno.errorcode.get(exc.errno or 0, "")
            self._fail(number, "", name, f"no process can be had: {exc.strerror}")
        except Exception as exc:  # noqa: BLE001  the server outlives every bad message
            self._fail(number, "", "", f"{type(exc).__name__}: {exc}")
        finally:
            if os.getpid() != self._pid:
                os._exit(child.BROKEN)
            for fd in (reading, writing):
                if fd >= 0:
                    os.close(fd)

    def _drop(self, number: Any) -> None:
        for fd in self._more.pop(number, []):
            os.close(fd)

    def _warm(self) -> None:
        if _INSIDE not in sys.modules:
            importlib.import_module(_INSIDE)
            _freeze()

    # -- what children say and do ---------------------------------------------------------------

    def _hear(self, each: _Child, *, last: bool = False) -> None:
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(each.pipe, _REPORT_BYTES):
                each.said += piece
            last = True
        if last:
            self._settle(each)

    def _settle(self, each: _Child) -> None:
        """It has said all that it will: pass it on, or keep why it failed until it is gone."""
        self._poll.unregister(each.pipe)
        del self._pipes[each.pipe]
        os.close(each.pipe)
        each.pipe = -1
        try:
            held, *rest = msgpack.unpackb(each.said)
            if held and each.failure is None:
                started = [ServerKind.STARTED, each.id, each.pid, *rest]
                self._tell(started, os.pidfd_open(each.pid))
                return
            each.failure = each.failure or rest
        except (ValueError, TypeError):
            each.failure = each.failure or ["", "", ""]
        except OSError as exc:
            each.failure = ["", errno.errorcode.get(exc.errno or 0, ""), "no descriptor is left"]
        self._kill(each.pid)

    def _reap(self) -> None:
        """Take note of all that have ended."""
        ended = False
        # Looked at before it is taken away: until then its number is no other's.
        while (pid := _ended()) and (ended := True):
            each = self._children.pop(pid, None)
            if each is not None and each.pipe >= 0:
                self._hear(each, last=True)
            _, status, usage = os.wait4(pid, 0)
            if each is not None:
                self._over(each, os.waitstatus_to_exitcode(status), usage)
        if ended:
            self._kill_orphans()

    def _over(self, each: _Child, code: int, usage: resource.struct_rusage) -> None:
        starved = sandbox.forget(each.pid)
        how, number = ("exited", code) if code >= 0 else ("signalled", -code)
        if each.failure is None:
            cpu = round(1000 * (usage.ru_utime + usage.ru_stime))
            self._tell([ServerKind.ENDED, each.id, how, number, cpu, usage.ru_maxrss, starved])
            return
        layer, name, text = each.failure
        self._fail(each.id, layer, name, text or f"it ended in its set-up: {how}, {number}")

    def _kill_orphans(self) -> None:
        # What has left its group and lost its parent is ours now (NAT-17).  In a pid namespace there
        # is no such thing: it ends with its first process.
        with contextlib.suppress(OSError):
            with open(f"/proc/self/task/{self._pid}/children", "rb") as file:  # noqa: PTH123
                found = {int(pid) for pid in file.read().split()}
            for pid in found - self._children.keys():
                self._kill(pid)

    @staticmethod
    def _kill(pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def _kill_all(self) -> None:
        until = time.monotonic() + _LAST_SECONDS
        with contextlib.suppress(ChildProcessError):  # there is none left
            while time.monotonic() < until:
                for pid in self._children:
                    self._kill(pid)
                self._kill_orphans()
                while pid := os.waitpid(-1, os.WNOHANG)[0]:
                    if self._children.pop(pid, None) is not None:
                        sandbox.forget(pid)
                time.sleep(0.001)

    # -- what the host is told ------------------------------------------------------------------

    def _fail(self, number: int, layer: str, name: str, text: str) -> None:
        self._tell([ServerKind.FAILED, number, layer, name, child.plain(text)])

    def _tell(self, message: list[Any], fd: int = -1) -> None:
        self._out.append((control.pack(message), fd))
        self._flush()

    def _flush(self) -> None:
        """Send what can be sent; the host may be slow, or stopped."""
        while self._out:
            data, fd = self._out[0]
            try:
                control.send(self._sock, data, [fd] if fd >= 0 else [])
            except OSError as exc:
                if exc.errno in _GONE:
                    raise _HostGone from None
                break
            self._out.popleft()
            if fd >= 0:
                os.close(fd)
        interest = select.POLLIN | (select.POLLOUT if self._out else 0)
        self._poll.modify(self._sock.fileno(), interest)


def main(fd: int, host: int) -> NoReturn:
    """Be the server, to the end.

    Args:
        fd: the socket.
        host: the process that started this one.
    """
    sock = socket.socket(fileno=fd)
    os.set_inheritable(fd, False)  # noqa: FBT003  no keyword is taken
    try:
        _settle_in()
        server = _Server(sock, host)
        server.watch()
        sandbox.prepare()
        child.prepare()
        _freeze()
        _check_alone()
    except BaseException as exc:  # noqa: BLE001  told to the host, which is all that is left to do
        text = f"{type(exc).__name__}: {exc}"[:500]
        with contextlib.suppress(OSError):
            control.send(sock, control.pack([ServerKind.FAILED, 0, "", "", text]))
        os._exit(1)
    if os.getppid() == host:
        server.serve()
    os._exit(0)


def _freeze() -> None:
    """All that is there now stays, and no child's collector writes to its pages."""
    gc.collect()
    gc.freeze()


def _check_alone() -> None:
    """There is one thread: of a second one, a child would have the locks and no more.

    Raises:
        RuntimeError: there is another.
    """
    if len(os.listdir("/proc/self/task")) != 1:  # noqa: PTH208
        raise RuntimeError("the fork server has more than one thread")


def _ended() -> int:
    """A child that has ended and was not reaped yet; 0 if there is none."""
    try:
        info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return info.si_pid if info is not None else 0


def _settle_in() -> None:
    """Leave behind what came from the host, and what a server does not need."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
        # The faults of a program can't be ignored: it would run into them again and again.
        if number not in _FAULTS:
            signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.environ.clear()
    core = NO_CORE if resource.getrlimit(resource.RLIMIT_CORE)[1] else 0  # it may be off already
    resource.setrlimit(resource.RLIMIT_CORE, (core, core))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    kernel.call("prctl", _PR_SET_NAME, b"capwasm-shim", 0, 0, 0)
