"""Layers that are the process's own affair: they need nothing of the machine but a Linux kernel."""

from __future__ import annotations

import os
import resource
import select
import signal
from typing import Final

from capwasm_shim.layers import Layer

from .kernel import Lacks, call, close_all_but, prctl
from .place import Place

__all__ = [
    "NO_CORE",
    "clean_start",
    "no_new_privs",
    "non_dumpable",
    "parent_death",
    "rlimits",
    "session",
]

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_SIGNALS: Final = signal.valid_signals()  # once: listing them takes longer than setting them
# A broken pipe and a file that is too large are errors for Python, which ignores these signals.
_ERRORS: Final = {signal.SIGPIPE, signal.SIGXFSZ}
# An engine makes traps of these, if it was loaded before.
_FAULTS: Final = {signal.SIGILL, signal.SIGFPE, signal.SIGSEGV, signal.SIGBUS, signal.SIGTRAP}
# One byte is too few for a file, as 0 is; and it is the one number for which the kernel also leaves a
# coredump handler alone, to whom it would hand over all memory at 0 (core(5), fs/coredump.c).
NO_CORE: Final = 1
_STACK: Final = 8 * 2**20  # the usual size; a thread's stack takes as much of the address space


def clean_start(place: Place) -> None:
    """Nothing of the server is left in hand: descriptors, environment, directory, signals.

    Stops: use of an inherited socket, log or directory (NAT-01, NAT-14), secrets and loader
    variables in the environment (NAT-03), output that lands in a socket because 1 was free.
    Needs: close_range (Linux 5.9).
    """
    os.umask(0o077)
    os.chdir("/")
    os.environ.clear()
    call("clearenv")  # what C code of the server put there itself
    signal.set_wakeup_fd(-1)
    spared = {signal.SIGKILL, signal.SIGSTOP}
    if place.spec.kind != "exec":
        spared |= _ERRORS
    if place.spec.kind == "component":
        spared |= _FAULTS
    for number in _SIGNALS - spared:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for fd in {0, 1, 2} - place.keep:
        os.dup2(place.null, fd)
    layers = place.spec.layers
    close_all_but(place.keep.union(place.files, [place.server] * (Layer.PARENT_DEATH in layers)))


def session(_: Place) -> None:
    """A session of its own, so no controlling terminal.

    Stops: typing into the operator's terminal (NAT-06), signals by process group (NAT-17).
    """
    os.setsid()


def no_new_privs(_: Place) -> None:
    """No program that it may ever execute gives it more: neither setuid bits nor capabilities.

    Stops: setuid programs (NAT-11, NAT-24).  Landlock and seccomp need it too.
    """
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def parent_death(place: Place) -> None:
    """It is killed when the server ends, however that ends.

    Comes after the change of user, which clears it.  Stops: an orphan that outlives the host
    (NAT-18).  Its parent is out of sight in a pid namespace, so a pidfd says whether it was too late.
    """
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        poll = select.poll()
        poll.register(place.server, select.POLLIN)
        if poll.poll(0):
            os._exit(1)
    finally:
        os.close(place.server)


def non_dumpable(place: Place) -> None:
    """No core file, no debugger, and its /proc entries are root's.

    Stops: secrets in a core file or in a coredump handler (NAT-19), another process of the same
    user that reads its memory (NAT-02).  Comes after the change of user and the write of uid maps,
    which needs /proc/self.
    """
    if place.spec.kind == "exec":
        raise Lacks("execve undoes it; core files are off by rlimits")
    prctl(_PR_SET_DUMPABLE, 0)


def rlimits(place: Place) -> None:
    """Limits that the kernel counts for each process or user, hard and soft alike.

    Stops: memory, thread, descriptor, disk and processor exhaustion (NAT-15, NAT-16, NAT-17), core
    files (NAT-19).  A native plugin's limit is on its address space; a component's engine reserves
    gigabytes of that, so there it is on the data.  Both come on top of what the interpreter has
    already.  Processor time ends in SIGKILL, as soft and hard limit are one.
    """
    kind, limits = place.spec.kind, place.spec.limits
    space, data = place.mapped
    infinite = resource.RLIM_INFINITY
    for which, value in {
        resource.RLIMIT_CORE: NO_CORE,
        resource.RLIMIT_CPU: limits.cpu_seconds,
        # The engine's memory images are memfds, which are files here.
        resource.RLIMIT_FSIZE: limits.file_bytes + limits.memory * (kind == "component"),
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_NICE: 0,
        resource.RLIMIT_NOFILE: limits.files,
        resource.RLIMIT_NPROC: limits.threads,
        resource.RLIMIT_RTPRIO: 0,
        resource.RLIMIT_SIGPENDING: 32,
        resource.RLIMIT_STACK: _STACK,
        resource.RLIMIT_AS: {
            "native": space + limits.memory,
            "component": infinite,
            "exec": limits.memory,
        }[kind],
        resource.RLIMIT_DATA: data + limits.memory if kind == "component" else infinite,
    }.items():
        _, hard = resource.getrlimit(which)
        least = value if hard == infinite else hard if value == infinite else min(value, hard)
        resource.setrlimit(which, (least, least))
