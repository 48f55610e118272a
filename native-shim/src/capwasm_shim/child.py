"""What a forked child does: its sandbox first, a report of it, then the code that it was made for."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import msgpack

from . import execute, sandbox
from .frames import DownReader, Lane, UpWriter
from .layers import LayerError, Spec
from .native import Native
from .sandbox.kernel import prctl

__all__ = ["BROKEN", "Given", "plain", "prepare", "run"]

BROKEN: Final = 70
"""The exit status where our own code failed (`EX_SOFTWARE`)."""

_CHUNK: Final = 1 << 20
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class Given:
    """What a process was given to do its work.

    Attributes:
        spec: of the sandbox that holds it.
        load: as given to the host's `ShimServer.start`.
        lanes: in their order.
        fds: all other descriptors, by name.
    """

    spec: Spec
    load: dict[str, Any]
    lanes: list[Lane]
    fds: dict[str, list[int]]


_native: Native | None = None


def prepare() -> None:
    """In the server, once: make what every native plugin's process is to have a copy of."""
    global _native  # noqa: PLW0603  forks must find it
    # Where memory that can be executed is no copy in a fork, each process says for itself why not.
    with contextlib.suppress(OSError):
        _native = Native()


def run(server: int, body: int, names: Sequence[str], fds: Sequence[int], pipe: int) -> NoReturn:
    """Be the child, to the end.

    Args:
        server: the server's socket, of which this process has a copy.
        body: a memory file with the spec and what is to be loaded.
        names: of what it got, in the order of `fds`.
        fds: what it got.
        pipe: for the report.
    """
    status = BROKEN
    # What is raised must not reach the server's own code, of which this is a copy.
    try:
        # From the first moment on, and not only when the sandbox is there: the end of the server is
        # seen by the host, and is the end of this process.
        os.close(server)
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        work = _confine(body, names, fds, pipe)
        if work is not None:
            status = work()
    finally:
        os._exit(status)


def _confine(
    body: int, names: Sequence[str], fds: Sequence[int], pipe: int
) -> Callable[[], int] | None:
    """Build the sandbox, and tell the server how that went; the work, or None if there is no sandbox."""
    work = None
    try:
        given, files = _take(body, names, fds)
        work = _work(given)
        kept = [lane.sock.fileno() for lane in given.lanes]
        kept += [fd for each in given.fds.values() for fd in each]
        report = sandbox.enter(given.spec, files, [*kept, pipe])
        answer: list[Any] = [True, report.to_map()]
    except LayerError as exc:
        answer = [False, str(exc.layer), errno.errorcode.get(exc.errno, ""), plain(exc.text)]
    except BaseException as exc:  # noqa: BLE001  whatever it is, nothing may be loaded
        answer = [False, "", "", plain(f"{type(exc).__name__}: {exc}")]
    os.write(pipe, msgpack.packb(answer))
    os.close(pipe)
    return work if answer[0] else None


def _take(body: int, names: Sequence[str], fds: Sequence[int]) -> tuple[Given, list[int]]:
    """What the host has sent, and the files of the private root."""
    size, data = os.fstat(body).st_size, b""
    while len(data) < size:
        data += os.pread(body, min(_CHUNK, size - len(data)), len(data))
    os.close(body)
    spec, load = msgpack.unpackb(data)
    named: dict[str, list[int]] = {}
    for name, fd in zip(names, fds, strict=True):
        named.setdefault(name, []).append(fd)
    files = named.pop("file", [])
    return Given(Spec.from_map(spec), load, _lanes(named), named), files


def _lanes(named: dict[str, list[int]]) -> list[Lane]:
    """The lanes, with their windows mapped: what these take is not of the limit on memory."""
    lanes, ups, downs = (named.pop(name, []) for name in ("lane", "up", "down"))
    made = []
    for lane, up, down in zip(lanes, ups, downs, strict=True):
        out = UpWriter(up, os.fstat(up).st_size)
        into = DownReader(down, os.fstat(down).st_size)
        os.close(up)
        os.close(down)
        made.append(Lane(socket.socket(fileno=lane), out, into, descriptors=True))
    return made


def _work(given: Given) -> Callable[[], int]:
    """What it is here for, as far as it must be made before the sandbox; nothing of it runs yet."""
    spec, load, lanes, fds = given.spec, given.load, given.lanes, given.fds
    if spec.kind == "native":
        native = _native or Native()
        return lambda: native.run(lanes[0], sandbox.path_of(spec.files[0].name), load["limit"])
    if spec.kind == "component":
        # Imported by the server, since there is no other package's name in this one.
        component = sys.modules["capwasm.isolation.inside"].before(load, fds)
        side = socket.socket(fileno=fds["side"][0])
        return lambda: int(component.run(lanes, side))
    return lambda: execute.run(given)


def plain(text: str) -> str:
    """A message of bounded length that can be sent."""
    return text[:500].encode("utf-8", "replace").decode()
