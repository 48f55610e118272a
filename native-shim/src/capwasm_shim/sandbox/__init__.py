"""The walls around one process, built by it before anything untrusted is in it.

`prepare` once in the fork server; then for each process `spawn`, in the child `enter`, and in the
server `forget` when it was reaped.  `finish` when the server ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from capwasm_shim.layers import LIBRARIES, Layer, LayerError, Report, Spec

from .cgroups import Groups
from .kernel import Lacks, call, prctl
from .landlock import landlock_files, landlock_net, landlock_scope
from .namespaces import (
    CLONE_NEWPID,
    cgroup_namespace,
    ipc_namespace,
    net_namespace,
    uts_namespace,
)
from .place import Place
from .process import clean_start, no_new_privs, non_dumpable, parent_death, rlimits, session
from .root import keep_descriptors, mount_namespace, path_of
from .seccomp import Filters, export_filters, seccomp
from .users import Way, choose_way, no_capabilities, own_user, user_namespace

__all__ = ["enter", "finish", "forget", "path_of", "prepare", "spawn"]

_PR_SET_CHILD_SUBREAPER: Final = 36


def _by_the_server(layer: Layer) -> Callable[[Place], None]:
    """The layer was built from outside; here it is only told how that went."""

    def told(place: Place) -> None:
        failure = place.spawned.get(layer, Lacks("the server did not build it"))
        if failure is not None:
            raise failure

    return told


# The one right order.  Groups before their namespace, which roots there.  The user namespace first,
# as it owns the others.  The root while there is power to mount.  Another user next: that clears the
# parent's signal, and makes /proc/self root's.  Limits when nothing large is left to do; Landlock
# when the root is there; seccomp last, as it refuses most of the above.
_ORDER: Final[tuple[tuple[Layer, Callable[[Place], None]], ...]] = (
    (Layer.CLEAN_START, clean_start),
    (Layer.SESSION, session),
    (Layer.CGROUP_MEMORY, _by_the_server(Layer.CGROUP_MEMORY)),
    (Layer.CGROUP_PIDS, _by_the_server(Layer.CGROUP_PIDS)),
    (Layer.CGROUP_CPU, _by_the_server(Layer.CGROUP_CPU)),
    (Layer.PID_NAMESPACE, _by_the_server(Layer.PID_NAMESPACE)),
    (Layer.USER_NAMESPACE, user_namespace),
    (Layer.CGROUP_NAMESPACE, cgroup_namespace),
    (Layer.UTS_NAMESPACE, uts_namespace),
    (Layer.IPC_NAMESPACE, ipc_namespace),
    (Layer.NET_NAMESPACE, net_namespace),
    (Layer.MOUNT_NAMESPACE, mount_namespace),
    (Layer.OWN_USER, own_user),
    (Layer.NO_CAPABILITIES, no_capabilities),
    (Layer.NO_NEW_PRIVS, no_new_privs),
    (Layer.PARENT_DEATH, parent_death),
    (Layer.NON_DUMPABLE, non_dumpable),
    (Layer.RLIMITS, rlimits),
    (Layer.LANDLOCK_FILES, landlock_files),
    (Layer.LANDLOCK_NET, landlock_net),
    (Layer.LANDLOCK_SCOPE, landlock_scope),
    (Layer.SECCOMP, seccomp),
)
_GROUPS: Final = (Layer.CGROUP_MEMORY, Layer.CGROUP_PIDS, Layer.CGROUP_CPU)
# Of an exec, execve itself undoes it; what it is there for, others hold there.
_NOT_OF_EXEC: Final = frozenset({Layer.NON_DUMPABLE})


@dataclass(slots=True)
class _Server:
    """What `prepare` found, for all processes."""

    way: Way
    filters: Filters
    groups: Groups
    pid_namespace: int
    returns: bool
    itself: int
    null: int
    libraries: list[ctypes.CDLL] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Spawned:
    """What the server did for this process: its pid there, and how its layers went."""

    pid: int
    layers: Mapping[Layer, Exception | None]


_server: _Server | None = None
_spawned: _Spawned | None = None


def prepare() -> None:
    """Do once, before any fork, what is slow or can't be done later.

    The process must have one thread.  Afterwards it may be in a user namespace of its own.  What
    can't be had is no error here: `enter` reports it.

    Raises:
        OSError: this is no Linux with /proc and /dev/null.
        RuntimeError: it was called before.
    """
    global _server  # noqa: PLW0603  one server a process, and forks must find it
    if _server is not None:
        raise RuntimeError("prepare: called twice")
    groups = Groups()  # before the user changes its name
    pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    server = _Server(
        way=choose_way(),
        filters=export_filters(),
        groups=groups,
        pid_namespace=pid_namespace,
        # Nothing changes by it: it is there already.
        returns=_try(lambda: call("setns", pid_namespace, CLONE_NEWPID)) is None,
        itself=os.pidfd_open(os.getpid()),
        null=os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC),
    )
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for name in LIBRARIES:
        with contextlib.suppress(OSError):
            server.libraries.append(ctypes.CDLL(name))
    _server = server


def spawn(spec: Spec) -> int:
    """Fork; the pid in the server, 0 in the child, which is in its pid namespace and cgroups.

    The child MUST call `enter` next and nothing else.

    Raises:
        OSError: there is no child.
    """
    server = _prepared()
    layers: dict[Layer, Exception | None] = {}
    reader, writer = os.pipe()
    try:
        pid = _fork(server, layers) if Layer.PID_NAMESPACE in spec.layers else os.fork()
    except BaseException:
        os.close(reader)
        os.close(writer)
        raise
    os.close(reader if pid else writer)
    if pid:
        _put(server, spec, pid, writer)
    else:
        _born(reader, layers)
    return pid


def enter(spec: Spec, files: Sequence[int], keep: Sequence[int]) -> Report:
    """Build all other layers, in the child; when it returns, untrusted code may run.

    Args:
        spec: as given to `spawn`.
        files: memfds, as many as `spec.files`; they are read, and closed.
        keep: the only descriptors that are open afterwards, besides 0, 1 and 2, which are
            `/dev/null` if they are not among them.

    Raises:
        LayerError: one that is required can't be had.  The process MUST end.
        ValueError: the descriptors don't fit the spec.
        RuntimeError: it has other threads, which would keep what this one gives up.
    """
    place = _place(spec, files, keep)
    required = spec.required - (_NOT_OF_EXEC if spec.kind == "exec" else frozenset())
    applied: list[Layer] = []
    missing: dict[Layer, str] = {}
    for layer, build in _ORDER:
        failure = _try(lambda: build(place)) if layer in spec.layers else Lacks("it was left out")  # noqa: B023
        if failure is None:
            applied.append(layer)
            continue
        number, text = _told(failure)
        if layer in required and layer in spec.layers:
            raise LayerError(layer, number, text) from failure
        missing[layer] = text
        if layer is Layer.MOUNT_NAMESPACE:
            keep_descriptors(place)
    return Report(tuple(applied), missing)


def forget(pid: int) -> bool:
    """Remove the cgroups of a process that was reaped; never raises.

    Returns:
        Whether it went over the memory of its cgroup, and something of it was killed for that.
    """
    return _server is not None and _server.groups.remove(pid)


def finish() -> None:
    """Remove the server's cgroups, when all its processes were reaped; never raises."""
    if _server is not None:
        _server.groups.close()


def _prepared() -> _Server:
    if _server is None:
        raise RuntimeError("prepare: was not called")
    return _server


def _fork(server: _Server, layers: dict[Layer, Exception | None]) -> int:
    """Fork into a new pid namespace, of which the child is the first process."""
    if not server.returns:
        return _fork_between(layers)
    failure = layers[Layer.PID_NAMESPACE] = _try(lambda: call("unshare", CLONE_NEWPID))
    pid = -1
    try:
        pid = os.fork()
    finally:
        # Who asks gets the new namespace for all further children, until it takes that back.
        if pid and failure is None:
            call("setns", server.pid_namespace, CLONE_NEWPID)
    return pid


def _fork_between(layers: dict[Layer, Exception | None]) -> int:
    """The same for ordinary users and in containers, where it can't be taken back.

    So a process in between asks for it, and ends at once.  As the server adopts orphans, it is the
    child's parent afterwards.
    """
    reader, writer = os.pipe()
    between = os.fork()
    if between == 0:
        pid = -1
        with contextlib.suppress(OSError):
            layers[Layer.PID_NAMESPACE] = _try(lambda: call("unshare", CLONE_NEWPID))
            pid = os.fork()
        if pid == 0:
            os.close(reader)
            os.close(writer)
            return 0
        os.write(writer, str(pid).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(between, 0)
    pid = int(os.read(reader, 16) or b"-1")
    os.close(reader)
    if pid < 0:
        raise OSError(errno.EAGAIN, "fork: there is no child")
    return pid


def _born(reader: int, layers: dict[Layer, Exception | None]) -> None:
    """In the child: wait until the server has put it where it belongs, and take its word."""
    global _spawned  # noqa: PLW0603  of this process alone
    pid = 0
    with open(reader, "rb") as pipe:
        for line in iter(pipe.readline, b"."):
            if not line.endswith(b"\n"):
                os._exit(1)  # the server died
            word, number, text = line.decode().rstrip("\n").split("\t", 2)
            if word == "pid":
                pid = int(number)
            else:
                layers[Layer(word)] = _failure(int(number), text)
    _spawned = _Spawned(pid, layers)


def _put(server: _Server, spec: Spec, pid: int, writer: int) -> None:
    """In the server: put the child in its groups, then let it go on."""
    lines = [f"pid\t{pid}\t"]
    # Whatever happens here: a child that hears no end of it ends itself.
    try:
        for layer in _GROUPS:
            if layer in spec.layers:
                failure = _try(lambda: server.groups.put(pid, layer, spec.limits))  # noqa: B023
                number, text = _told(failure) if failure else (0, "")
                lines.append(f"{layer}\t{number}\t{text}")
        os.write(writer, ("\n".join(lines) + "\n.").encode())
    except BrokenPipeError:
        pass  # it is dead already; whoever reaps it will know
    finally:
        os.close(writer)


def _place(spec: Spec, files: Sequence[int], keep: Sequence[int]) -> Place:
    server = _prepared()
    if _spawned is None:
        raise RuntimeError("enter: this process was not spawned")
    if len(os.listdir("/proc/self/task")) != 1:  # noqa: PTH208  names alone
        raise RuntimeError("enter: this process has more than one thread")
    if len(files) != len(spec.files) or len(set(files)) != len(files):
        raise ValueError("files: as many descriptors as the spec has files are wanted")
    if not frozenset(files).isdisjoint({0, 1, 2, *keep}):
        raise ValueError("files: a descriptor of a file is kept for something else")
    pages = Path("/proc/self/statm").read_text().split()
    size = os.sysconf("SC_PAGE_SIZE")
    return Place(
        spec=spec,
        files=tuple(files),
        keep=frozenset(keep),
        way=server.way,
        mapped=(int(pages[0]) * size, int(pages[5]) * size),
        pid=_spawned.pid,
        server=server.itself,
        null=server.null,
        filters=server.filters,
        spawned=_spawned.layers,
    )


def _try(build: Callable[[], object]) -> OSError | Lacks | None:
    try:
        build()
    except (OSError, Lacks) as exc:
        return exc
    return None


def _told(failure: Exception) -> tuple[int, str]:
    if isinstance(failure, OSError):
        return failure.errno or 0, failure.strerror or str(failure)
    return 0, str(failure)


def _failure(number: int, text: str) -> Exception | None:
    if number:
        return OSError(number, text)
    return Lacks(text) if text else None
