"""Attempts on other processes, and to become another kind of process."""

from __future__ import annotations

import os
import resource
import signal
import struct
from collections.abc import Callable

from tests.escape.attempt import Attempt, becomes, ends, harms, hits, reads
from tests.escape.kernelcalls import (
    AT_FDCWD,
    LANE,
    MACHINE,
    call,
    calls,
    number,
    out,
    result,
    stored,
)
from tests.escape.prey import ENDS_WITH_42, Prey

DENIED = "errno:EPERM"
KILLED = "killed:SIGSYS"
USR1 = int(signal.SIGUSR1)
# A process in any Landlock domain may not look into one outside of it.
DOMAIN = "landlock-files+landlock-net+landlock-scope"
ROOTS_OWN = {"own-user": DENIED, "no-capabilities": DENIED}
UNSEEN = {"pid-namespace": "errno:ESRCH"}
SIGNALS = {"seccomp": DENIED, **UNSEEN, "landlock-scope": DENIED, "own-user": DENIED}
LOOKS = {"seccomp": KILLED, **UNSEEN, DOMAIN: DENIED, "own-user": DENIED}
CHANGES = {"seccomp": DENIED, **UNSEEN, "own-user": DENIED}


def _siginfo() -> bytes:
    """As from `sigqueue`: SI_QUEUE, and a sender that it isn't."""
    return struct.pack("<iii", USR1, 0, -1) + bytes(116)


def _once(name: str, *arguments: object) -> Callable[[Prey], bytes]:
    line = call(name, *arguments)  # type: ignore[arg-type]
    return lambda _: calls(line)


SENT = (
    Attempt(
        "kill", ("NAT-08", "NAT-17"), lambda p: calls(call("kill", p.victim, USR1)), SIGNALS, hits
    ),
    Attempt(
        "tgkill",
        ("NAT-08",),
        lambda p: calls(call("tgkill", p.victim, p.victim, USR1)),
        SIGNALS,
        hits,
    ),
    Attempt("tkill", ("NAT-08",), lambda p: calls(call("tkill", p.victim, USR1)), SIGNALS, hits),
    Attempt(
        "rt_sigqueueinfo",
        ("NAT-08",),
        lambda p: calls(call("rt_sigqueueinfo", p.victim, USR1, _siginfo())),
        SIGNALS,
        hits,
    ),
    Attempt(
        "rt_tgsigqueueinfo",
        ("NAT-08",),
        lambda p: calls(call("rt_tgsigqueueinfo", p.victim, p.victim, USR1, _siginfo())),
        SIGNALS,
        hits,
    ),
    Attempt(
        "pidfd_send_signal",
        ("NAT-08",),
        lambda p: calls(
            call("pidfd_open", p.victim, 0), call("pidfd_send_signal", result(0), USR1, 0, 0)
        ),
        SIGNALS,
        hits,
    ),
    Attempt(
        "a signal from a pipe that somebody else owns",
        ("NAT-08",),
        # F_SETOWN, F_SETSIG, O_ASYNC; then the kernel itself sends it.
        lambda p: calls(
            call("pipe2", out(8), 0),
            call("fcntl", stored(0), 8, p.victim),
            call("fcntl", stored(0), 10, USR1),
            call("fcntl", stored(0), 4, 0o20000),
            call("write", stored(0, 1), b"x", 1),
        ),
        {"seccomp": DENIED, **UNSEEN, "landlock-scope": "ok:1", "own-user": "ok:1"},
        hits,
    ),
    Attempt(
        # 0 sends nothing, and tells whether there is anybody.
        "kill everybody",
        ("NAT-08", "NAT-17"),
        _once("kill", -1, 0),
        {"seccomp": DENIED, **UNSEEN},
    ),
)

MEMORY = (
    Attempt(
        "ptrace: seize",
        ("NAT-08",),
        lambda p: calls(call("ptrace", 0x4206, p.victim, 0, 0)),
        LOOKS,
    ),
    Attempt(
        "ptrace before anybody called",
        ("NAT-20",),
        lambda p: calls(call("ptrace", 0x4206, p.victim, 0, 0)),
        LOOKS,
        early=True,
    ),
    Attempt("ptrace: be traced", ("NAT-08",), _once("ptrace", 0, 0, 0, 0), {"seccomp": KILLED}),
    Attempt(
        "process_vm_readv",
        ("NAT-08", "NAT-02"),
        lambda p: calls(
            call("process_vm_readv", p.victim, (out(16), 16), 1, (p.address, 16), 1, 0)
        ),
        LOOKS,
        reads,
    ),
    Attempt(
        "process_vm_writev",
        ("NAT-08",),
        lambda p: calls(
            call("process_vm_writev", p.victim, (bytes(16), 16), 1, (p.address, 16), 1, 0)
        ),
        LOOKS,
        harms,
    ),
    Attempt(
        "pidfd_getfd",
        ("NAT-08",),
        lambda p: calls(
            call("pidfd_open", p.victim, 0),
            call("pidfd_getfd", result(0), p.victim_fd, 0),
            call("pread64", result(1), out(16), 16, 0),
        ),
        {**LOOKS, "seccomp": DENIED},
        reads,
    ),
    Attempt(
        "kcmp",
        ("NAT-08",),
        lambda p: calls(call("kcmp", p.victim, p.victim, 0, 0, 0)),
        LOOKS,
    ),
    Attempt(
        "process_madvise",
        ("NAT-08",),
        lambda p: calls(
            call("pidfd_open", p.victim, 0),
            call("process_madvise", result(0), (p.address & ~4095, 4096), 1, 20, 0),
        ),
        {
            "seccomp": DENIED,
            **UNSEEN,
            "own-user": "errno:EACCES",
            "no-capabilities": "errno:EACCES|errno:EPERM",
        },
    ),
    Attempt(
        "get_robust_list",
        ("NAT-08",),
        lambda p: calls(call("get_robust_list", p.victim, out(8), out(8))),
        {**UNSEEN, DOMAIN: DENIED, "own-user": DENIED},
    ),
)


def _limits(prey: Prey, _: object) -> bool:
    return resource.prlimit(prey.victim, resource.RLIMIT_CORE) != prey.core_limit


def _nice(prey: Prey, _: object) -> bool:
    return os.getpriority(os.PRIO_PROCESS, prey.victim) != prey.nice


OTHERS = (
    Attempt(
        "another's limits",
        ("NAT-08",),
        lambda p: calls(call("prlimit64", p.victim, 4, struct.pack("<QQ", 1, 1), 0)),
        CHANGES,
        _limits,
    ),
    Attempt(
        "another's priority",
        ("NAT-08",),
        lambda p: calls(call("setpriority", 0, p.victim, 10)),
        CHANGES,
        _nice,
    ),
    Attempt(
        "another's processors",
        ("NAT-08",),
        lambda p: calls(call("sched_setaffinity", p.victim, 8, struct.pack("<Q", p.processors))),
        CHANGES,
    ),
)

SELF = (
    Attempt(
        "be dumpable",
        ("NAT-11",),
        _once("prctl", 4, 1, 0, 0, 0),
        {"seccomp": DENIED},
        becomes("owner"),
    ),
    Attempt(
        "survive the host", ("NAT-11", "NAT-18"), _once("prctl", 1, 0, 0, 0, 0), {"seccomp": DENIED}
    ),
    Attempt("adopt orphans", ("NAT-17",), _once("prctl", 36, 1, 0, 0, 0), {"seccomp": DENIED}),
    Attempt(
        "let anybody trace it",
        ("NAT-11",),
        _once("prctl", 0x59616D61, -1, 0, 0, 0),
        {"seccomp": DENIED},
        free="errno:EINVAL",
    ),
    Attempt(
        "calls that go to itself",
        ("NAT-11",),
        _once("prctl", 59, 0, 0, 0, 0),
        {"seccomp": DENIED},
    ),
    Attempt(
        "a filter of its own, by prctl",
        ("NAT-11",),
        _once("prctl", 22, 2, 0, 0, 0),
        {"seccomp": DENIED},
        free="errno:EFAULT",
    ),
    Attempt(
        "a filter of its own, with a listener",
        ("NAT-11",),
        _once("seccomp", 1, 8, 0),
        {"seccomp": DENIED},
        free="errno:EFAULT",
    ),
    Attempt(
        "capabilities kept over a change of user",
        ("NAT-11",),
        _once("prctl", 8, 1, 0, 0, 0),
        {"seccomp": DENIED, "no-capabilities": DENIED},
    ),
    Attempt(
        "another personality",
        ("NAT-24",),
        _once("personality", 0x0040000 | 0x0400000),
        {"seccomp": DENIED},
    ),
    Attempt(
        "all three user ids",
        ("NAT-24",),
        _once("setresuid", 12345, 12345, 12345),
        {"seccomp": DENIED, **ROOTS_OWN},
        becomes("Uid"),
    ),
    Attempt(
        "the user id",
        ("NAT-24",),
        _once("setuid", 12345),
        {"seccomp": DENIED, **ROOTS_OWN},
        becomes("Uid"),
    ),
    Attempt(
        "the group id",
        ("NAT-24",),
        _once("setgid", 12345),
        {"seccomp": DENIED, **ROOTS_OWN},
        becomes("Gid"),
    ),
    Attempt(
        "other groups",
        ("NAT-24",),
        _once("setgroups", 1, struct.pack("<I", 12345)),
        {"seccomp": DENIED, **ROOTS_OWN},
        becomes("Groups"),
    ),
    Attempt(
        "a capability",
        ("NAT-24",),
        _once(
            "capset",
            struct.pack("<Ii", 0x20080522, 0),
            struct.pack("<6I", 1 << 18, 1 << 18, 0, 0, 0, 0),  # CAP_SYS_CHROOT
        ),
        {"seccomp": DENIED, **ROOTS_OWN},
        becomes("CapEff"),
    ),
)

_NAMESPACES = {
    "user": 0x10000000,
    "mnt": 0x00020000,
    "pid": 0x20000000,
    "net": 0x40000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "cgroup": 0x02000000,
    "time": 0x00000080,
}

NAMESPACES = (
    *(
        Attempt(
            f"unshare: {name}",
            ("NAT-09",),
            _once("unshare", flag),
            {"seccomp": KILLED, **({} if name == "user" else ROOTS_OWN)},
            becomes("ns"),
        )
        for name, flag in _NAMESPACES.items()
    ),
    Attempt(
        "clone into a user namespace",
        ("NAT-09",),
        _once("clone", 0x10000000 | 17, 0, 0, 0, 0),
        {"seccomp": DENIED, "rlimits": "errno:EAGAIN", "cgroup-pids": "errno:EAGAIN"},
    ),
    Attempt(
        "clone3, whose flags no filter sees",
        ("NAT-09",),
        _once("clone3", struct.pack("<8Q", 0x10000000, 0, 0, 0, 17, 0, 0, 0), 64),
        {"seccomp": "errno:ENOSYS", "rlimits": "errno:EAGAIN", "cgroup-pids": "errno:EAGAIN"},
    ),
    Attempt(
        "setns into another process's",
        ("NAT-09",),
        lambda p: calls(call("pidfd_open", p.victim, 0), call("setns", result(0), 0x04000000)),
        {"seccomp": DENIED, **UNSEEN, DOMAIN: DENIED, **ROOTS_OWN},
        becomes("ns"),
    ),
)


PROGRAMS = (
    Attempt(
        "execute a program of the host",
        ("NAT-10",),
        _once("execve", "/bin/false", 0, 0),
        {"seccomp": DENIED, "mount-namespace": "errno:ENOENT", "landlock-files": "errno:EACCES"},
        ends("exited:1"),
    ),
    Attempt(
        "execute a setuid program",
        ("NAT-11", "NAT-24"),
        lambda p: calls(call("execve", str(p.setuid), 0, 0)),
        {
            "seccomp": DENIED,
            "mount-namespace": "errno:ENOENT",
            "landlock-files": "errno:EACCES",
            "no-new-privs": "exited:1",
        },
        ends("exited:0"),
        needs=lambda _: MACHINE == "x86_64" and os.geteuid() == 0,
    ),
    Attempt(
        "execute a program of its own from memory",
        ("NAT-10",),
        lambda _: calls(
            call("memfd_create", "program", 0),
            call("write", result(0), ENDS_WITH_42, len(ENDS_WITH_42)),
            call("execveat", result(0), "", 0, 0, 0x1000),
        ),
        {"seccomp": DENIED, "rlimits": "killed:SIGXFSZ|errno:EFBIG"},
        ends("exited:42"),
        needs=lambda _: MACHINE == "x86_64",
    ),
    Attempt(
        "execute its own file",
        ("NAT-10",),
        _once("execveat", AT_FDCWD, "/plugin.so", 0, 0, 0),
        {"seccomp": DENIED},
        never="the file has no right to be executed, in any layer's eyes",
    ),
    Attempt(
        "leave its session",
        ("NAT-17",),
        _once("setpgid", 0, 0),
        {"seccomp": DENIED},
        free="errno:EPERM",
    ),
)

ENTRIES = (
    Attempt(
        "x32 numbers",
        ("NAT-05",),
        lambda _: calls(call(0x40000000 | number("getpid"))),
        {"seccomp": KILLED},
        needs=lambda _: MACHINE == "x86_64",
    ),
    Attempt(
        "int 0x80",
        ("NAT-05",),
        lambda _: b"20",
        {"seccomp": KILLED},
        topic="int80",
        needs=lambda _: MACHINE == "x86_64",
    ),
    Attempt(
        "typing into a terminal, with a bit that the kernel ignores",
        ("NAT-06",),
        _once("ioctl", LANE, 0x5412 | 0x123 << 32, "x"),
        {"seccomp": DENIED},
        free="errno:ENOTTY",
    ),
    Attempt(
        "typing into a console",
        ("NAT-06",),
        _once("ioctl", LANE, 0x541C, "\3"),
        {"seccomp": DENIED},
        free="errno:ENOTTY",
    ),
)

ATTEMPTS: tuple[Attempt, ...] = SENT + MEMORY + OTHERS + SELF + NAMESPACES + PROGRAMS + ENTRIES
