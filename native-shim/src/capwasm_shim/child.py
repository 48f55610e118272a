"""What a forked child does: its sandbox first, a report of it, then the code that it was made for."""

from __future__ import annotations

import errno
import functools
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import msgpack

from . import sandbox
from .frames import DownReader, Lane, UpWriter
from .layers import LayerError, Spec
from .native import Native

__all__ = ["BROKEN", "ORPHANED", "Given", "plain", "run"]

BROKEN: Final = 70
"""The exit status where our own code failed (`EX_SOFTWARE`)."""

ORPHANED: Final = 71
"""The exit status where the fork server was gone already."""

_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Given:
    """What a loader gets.

    Attributes:
        spec: of the sandbox that holds this process.
        load: as given to the host's `ShimServer.start`.
        lanes: in their order.
        fds: all other descriptors, by name.
    """

    spec: Spec
    load: dict[str, Any]
    lanes: list[Lane]
    fds: dict[str, list[int]]


def run(body: int, names: Sequence[str], fds: Sequence[int], pipe: int, server: int) -> NoReturn:
    """Be the child, to the end.

    Args:
        body: a memory file with the spec and what is to be loaded.
        names: of what it got, in the order of `fds`.
        fds: what it got.
        pipe: for the report.
        server: a pidfd of the fork server.
    """
    status = BROKEN
    # What is raised must not reach the server's own code, of which this is a copy.
    try:
        status = _enter(body, names, fds, pipe, server)()
    except _Ended as exc:
        status = exc.status
    finally:
        os._exit(status)


class _Ended(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def _enter(
    body: int, names: Sequence[str], fds: Sequence[int], pipe: int, server: int
) -> Callable[[], int]:
    """Confine this process, and tell the server how that went."""
    try:
        _calm()
        spec, load = _read(body)
        os.close(body)
        named: dict[str, list[int]] = {}
        for name, fd in zip(names, fds, strict=True):
            named.setdefault(name, []).append(fd)
        files = named.pop("file", [])
        loader = _loader(spec, load, named)
        keep = [fd for each in named.values() for fd in each]
        report = sandbox.enter(spec, files, [*keep, pipe, server])
        answer: list[Any] = [True, report.to_map()]
    except LayerError as exc:
        answer = [False, str(exc.layer), errno.errorcode.get(exc.errno, ""), plain(exc.text)]
    except BaseException as exc:  # noqa: BLE001  whatever it is, nothing may be loaded
        answer = [False, "", "", plain(f"{type(exc).__name__}: {exc}")]
    os.write(pipe, msgpack.packb(answer))
    os.close(pipe)
    if not answer[0]:
        raise _Ended(BROKEN)
    # Who died before the parent-death signal was asked for sends none.
    if select.select([server], [], [], 0)[0]:
        raise _Ended(ORPHANED)
    os.close(server)
    return functools.partial(loader, Given(spec, load, _lanes(named), named))


def _loader(spec: Spec, load: dict[str, Any], fds: dict[str, list[int]]) -> Callable[[Given], int]:
    """What is to run, made as far as it must be before the sandbox; takes the descriptors that it uses."""
    if spec.kind == "native":
        native, path = Native(), f"/{spec.files[0].name}"
        return lambda given: native.run(given.lanes[0], path, load["limit"])
    if spec.kind == "component":
        # Imported by the server, which alone knows where from.
        component = sys.modules["capwasm.isolation.inside"].before(load, fds)
        fds.pop("code")
        return lambda given: int(
            component.run(given.lanes, socket.socket(fileno=given.fds["side"][0]))
        )
    return _execute


def _execute(given: Given) -> int:
    return int(sys.modules["capwasm_shim.execute"].run(given))


def _calm() -> None:
    """Undo what the server has set up for itself alone."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE}:
        if signal.getsignal(number) != signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _read(body: int) -> tuple[Spec, dict[str, Any]]:
    size, data = os.fstat(body).st_size, b""
    while len(data) < size:
        data += os.pread(body, min(_CHUNK, size - len(data)), len(data))
    spec, load = msgpack.unpackb(data, strict_map_key=False)
    return Spec.from_map(spec), load


def _lanes(named: dict[str, list[int]]) -> list[Lane]:
    """The lanes with their windows, whose descriptors are not needed any more."""
    lanes, ups, downs = (named.pop(name, []) for name in ("lane", "up", "down"))
    made = []
    for lane, up, down in zip(lanes, ups, downs, strict=True):
        sizes = os.fstat(up).st_size, os.fstat(down).st_size
        out, into = UpWriter(up, sizes[0]), DownReader(down, sizes[1])
        os.close(up)
        os.close(down)
        made.append(Lane(socket.socket(fileno=lane), out, into, descriptors=True))
    return made


def plain(text: str) -> str:
    """A message of bounded length that can be sent."""
    return text[:500].encode("utf-8", "replace").decode()
