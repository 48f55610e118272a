"""The host's side of the fork server: started clean at the first need, and again when it has died.

The server is executed and not forked, so its memory holds nothing of the host's.  It gets a fixed
command line, an empty environment, a session of its own and one socket; Python reads no variable, no
`.pth` file and no directory but those of the packages that it needs (NAT-01, NAT-03).  When the socket
ends, whatever ends it, the server kills all that it has started and ends too (NAT-18).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import select
import socket
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import msgpack

from capwasm.engine.sealed import Sealed
from capwasm.errors import Fault, ShimError
from capwasm_shim import control
from capwasm_shim.layers import Layer, Report, Spec
from capwasm_shim.protocol import ServerKind

from .launch import launch
from .started import Ended, Once, Started

if TYPE_CHECKING:
    import subprocess

__all__ = ["Ended", "ShimServer", "Started"]

_START_SECONDS: Final = 20.0
"""For one start.  The server itself gives up on a child earlier, and says so."""

_BYE_SECONDS: Final = 5.0
"""For the server's own end."""


class ShimServer:
    """The fork server of one runtime.  Safe from many threads; not across a fork."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._pid = os.getpid()
        # Re-entrant, for a signal's handler may make a call.
        self._lock = threading.RLock()
        self._link: _Link | None = None
        self._links: weakref.WeakSet[_Link] = weakref.WeakSet()
        self._closed = False

    def start(
        self,
        spec: Spec,
        fds: Sequence[tuple[str, int]] = (),
        load: Mapping[str, Any] | None = None,
        *,
        seconds: float = _START_SECONDS,
    ) -> Started:
        """Start a process in its sandbox; what it loads, it loads after this has returned.

        Args:
            spec: of its sandbox.
            fds: what it gets, each with a name; a name may stand there many times.  They stay the
                caller's.  `file`: the memory files that `spec.files` names, in that order.  `lane`,
                `up` and `down`: as many of each.  Others are for the kind's own loader.
            load: for that loader; plain data that msgpack has words for.
            seconds: for the start.

        Raises:
            ShimError: `shim.layer`: a layer that is required can't be had; `shim.start`: the process
                or its server can't be started, or hangs; `shim.unavailable`: not on this platform.
            RuntimeError: this was closed, or made before a fork.
        """
        link = self._connected()
        if spec.kind == "component":
            link.warm()
        return link.start(spec, fds, load or {}, min(seconds, _START_SECONDS))

    def warm(self, *, components: bool = False) -> None:
        """Start the server, if it doesn't run; and have it import what components need.

        Raises:
            ShimError, RuntimeError: as of `start`.
        """
        link = self._connected()
        if components:
            link.warm()

    @property
    def pid(self) -> int | None:
        """The server's process, if it runs."""
        link = self._link
        return link.process.pid if link is not None and link.alive else None

    def _connected(self) -> _Link:
        if os.getpid() != self._pid:
            raise RuntimeError(
                "this runtime was made before a fork; make a new one in the child "
                "(multiprocessing: use the 'spawn' start method)"
            )
        with self._lock:
            if self._closed:
                raise RuntimeError("the runtime is closed")
            link = self._link
            if link is None or not link.alive:
                link = self._link = _Link(*launch())
                self._links.add(link)
            return link

    def close(self) -> None:
        """End the server, and with it every process that it has started; wait until they are gone."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._closed = True
        for link in list(self._links):
            link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _v: BaseException | None, _b: TracebackType | None
    ) -> None:
        self.close()


class _Link:
    """One life of a server: its socket, its process, and the thread that listens."""

    def __init__(self, process: subprocess.Popen[bytes], sock: socket.socket) -> None:
        self.process = process
        self.alive = True
        self._sock = sock
        self._warm = False
        self._ids = itertools.count(1)
        # Who takes an entry out answers for it.
        self._starting: dict[int, Once[Started | ShimError]] = {}
        self._running: dict[int, Once[Ended]] = {}
        self._why = ""
        self._thread = threading.Thread(target=self._listen, name="capwasm-shim", daemon=True)
        self._thread.start()
        _LINKS.add(self)

    # -- asking ---------------------------------------------------------------------------------

    def warm(self) -> None:
        if not self._warm:
            self._send(time.monotonic() + _START_SECONDS, [ServerKind.WARM])
            self._warm = True

    def start(
        self,
        spec: Spec,
        fds: Sequence[tuple[str, int]],
        load: Mapping[str, Any],
        seconds: float,
    ) -> Started:
        until = time.monotonic() + seconds
        number, waiting = next(self._ids), Once[Started | ShimError]()
        self._starting[number] = waiting
        try:
            with _private(spec, load) as body:
                numbers = [fd for _, fd in fds]
                head, rest = numbers[: control.MAX_FDS - 1], numbers[control.MAX_FDS - 1 :]
                while rest:
                    self._send(until, [ServerKind.MORE, number], rest[: control.MAX_FDS])
                    del rest[: control.MAX_FDS]
                names = [name for name, _ in fds]
                self._send(until, [ServerKind.START, number, _public(spec), names], [body, *head])
            outcome = waiting.wait(until - time.monotonic())
            if outcome is None:
                raise ShimError("the fork server does not answer")
        except BaseException:
            if self._starting.pop(number, None) is not None:
                with contextlib.suppress(ShimError):
                    self._send(0, [ServerKind.START, number])  # drops what MORE has brought
            else:
                late = waiting.wait(_BYE_SECONDS)
                if isinstance(late, Started):
                    late.close()
            raise
        if isinstance(outcome, ShimError):
            raise _with_fix(outcome, spec)
        return outcome

    def _send(self, until: float, message: list[Any], fds: Sequence[int] = ()) -> None:
        data = control.pack(message)
        while True:
            try:
                control.send(self._sock, data, fds)
            except OSError as exc:
                # The last: more descriptors are on their way than this user may have open.
                if exc.errno not in {errno.EAGAIN, errno.ENOBUFS, errno.ETOOMANYREFS}:
                    raise ShimError(self._why or f"nothing can be sent: {exc.strerror}") from exc
                left = until - time.monotonic()
                if left <= 0:
                    raise ShimError("the fork server does not read what is sent to it") from exc
                select.select([], [], [], min(left, 0.005))
            else:
                return

    # -- listening ------------------------------------------------------------------------------

    def _listen(self) -> None:
        try:
            while True:
                message, fds = control.receive(self._sock)
                try:
                    self._take(message, fds)
                finally:
                    for fd in fds:
                        os.close(fd)
        except (EOFError, OSError, control.Malformed, ValueError, TypeError, IndexError) as exc:
            if not isinstance(exc, EOFError):
                self._why = f"the fork server was given up: {exc}"
                self.process.kill()
        finally:
            self.alive = False
            self._end()

    def _take(self, message: list[Any], fds: list[int]) -> None:
        kind, number, *rest = message
        if kind == ServerKind.STARTED:
            pid, report = rest[0], Report.from_map(rest[1])
            ended = self._running[number] = Once[Ended]()
            started = Started(pid, fds.pop(), report, ended)
            waiting = self._starting.pop(number, None)
            if waiting is None:
                started.close()
            else:
                waiting.set(started)
        elif kind == ServerKind.FAILED:
            layer, name, text = rest
            error = _refusal(layer, name, text)
            if not number:
                self._why = error.message
            elif (waiting := self._starting.pop(number, None)) is not None:
                waiting.set(error)
        elif kind == ServerKind.ENDED and (over := self._running.pop(number, None)) is not None:
            over.set(Ended(*rest))

    def _end(self) -> None:
        self._sock.close()
        self._reap()
        why = self._why or f"the fork server has ended ({_how(self.process.returncode)})"
        for number in list(self._starting):
            if (waiting := self._starting.pop(number, None)) is not None:
                waiting.set(ShimError(why))
        for number in list(self._running):
            if (over := self._running.pop(number, None)) is not None:
                over.set(Ended("lost", 0))

    def _reap(self) -> None:
        import subprocess  # it is there: the process was started with it

        try:
            self.process.wait(_BYE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    # -- ending ---------------------------------------------------------------------------------

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        if threading.current_thread() is not self._thread:
            self._thread.join(_BYE_SECONDS)
            if self._thread.is_alive():  # a server that was stopped, and hears of nothing
                self.process.kill()
                self._thread.join(_BYE_SECONDS)

    def forked(self) -> None:
        """In the child of a fork: let go of the socket, which would otherwise hold up its end."""
        self.alive = False
        self._starting.clear()
        self._running.clear()
        self.process.returncode = 0  # it is no child of this process
        self._sock.close()


def _public(spec: Spec) -> dict[str, Any]:
    """What the server may know of it, and with it every process that it forks later."""
    return replace(spec, argv=spec.argv[:1], env=()).to_map()


@contextlib.contextmanager
def _private(spec: Spec, load: Mapping[str, Any]) -> Iterator[int]:
    """A memory file with all of it, for the child alone."""
    try:
        sealed = Sealed.holding(msgpack.packb([spec.to_map(), load]))
    except OSError as exc:
        raise ShimError(f"there is no room for a start: {exc.strerror}") from exc
    with sealed:
        yield sealed.fd


def _refusal(layer: str, name: str, text: str) -> ShimError:
    why = f"{text} ({name})" if name else text
    if layer not in set(Layer):
        return ShimError(why)
    return ShimError(
        f"the sandbox's layer {layer} can't be had",
        code="shim.layer",
        faults=[Fault(layer, why)],
    )


def _with_fix(error: ShimError, spec: Spec) -> ShimError:
    """The same, with the line of the policy that would do without the layer."""
    if error.code != "shim.layer":
        return error
    [fault] = error.faults
    others = [f'"{each}"' for each in Layer if each in spec.required and each != fault.path]
    fix = f"[isolation]\nrequire = [{', '.join(others)}]"
    return ShimError(error.message, code=error.code, faults=[Fault(fault.path, fault.message, fix)])


def _how(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"signal {-status}"


_LINKS: weakref.WeakSet[_Link] = weakref.WeakSet()


def _forked() -> None:
    for link in list(_LINKS):
        link.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
