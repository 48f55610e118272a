"""Attempts on the kernel: its modules, clocks and names, and the parts of it that have had holes.

Where an attempt would do harm, its arguments are such that the kernel, once it is reached, refuses
them for another reason, or does what is so already.
"""

from __future__ import annotations

import socket
import struct

from tests.escape.attempt import Attempt, becomes, reads
from tests.escape.kernelcalls import (
    MACHINE,
    Argument,
    call,
    calls,
    out,
    result,
    stored,
)

DENIED = "errno:EPERM"
KILLED = "killed:SIGSYS"
ABSENT = "errno:ENOSYS"
ROOTS_OWN = {"own-user": DENIED, "no-capabilities": DENIED}


def _row(
    name: str,
    cases: tuple[str, ...],
    said: str,
    *line: str | Argument,
    free: str = "",
    root: bool = False,
) -> Attempt:
    head, *arguments = line
    assert isinstance(head, str)
    text = calls(call(head, *arguments))
    walls = {"seccomp": said, **(ROOTS_OWN if root else {})}
    return Attempt(name, cases, lambda _: text, walls, free=free)


MACHINE_STATE = (
    _row(
        "load a module",
        ("NAT-08",),
        KILLED,
        "init_module",
        0,
        0,
        "",
        free="errno:EFAULT",
        root=True,
    ),
    _row(
        "load a module from a file",
        ("NAT-08",),
        KILLED,
        "finit_module",
        -1,
        "",
        0,
        free="errno:EBADF",
        root=True,
    ),
    _row(
        "remove a module",
        ("NAT-08",),
        KILLED,
        "delete_module",
        "no-such",
        0,
        free="errno:ENOENT",
        root=True,
    ),
    _row(
        "load another kernel",
        ("NAT-08",),
        KILLED,
        "kexec_load",
        0,
        0,
        0,
        0xFF,
        free="errno:EINVAL",
        root=True,
    ),
    _row(
        "restart the machine",
        ("NAT-08",),
        KILLED,
        "reboot",
        1,
        2,
        3,
        0,
        free="errno:EINVAL",
        root=True,
    ),
    _row("set the clock", ("NAT-08",), KILLED, "settimeofday", 0, 0, root=True),
    _row(
        "set the clock, by its number",
        ("NAT-08",),
        KILLED,
        "clock_settime",
        0,
        0,
        free="errno:EFAULT",
    ),
    _row("bend the clock", ("NAT-08",), KILLED, "adjtimex", 0, free="errno:EFAULT"),
    _row(
        "bend the clock, by its number",
        ("NAT-08",),
        KILLED,
        "clock_adjtime",
        0,
        0,
        free="errno:EFAULT",
    ),
    _row(
        "set the domain's name",
        ("NAT-08",),
        KILLED,
        "setdomainname",
        "x",
        -1,
        free="errno:EINVAL",
        root=True,
    ),
    _row("read the kernel's log", ("NAT-08",), KILLED, "syslog", 2, "", 0, root=True),
    _row("hang up the terminal", ("NAT-06",), KILLED, "vhangup", root=True),
    Attempt(
        "set the host's name",
        ("NAT-08",),
        lambda _: calls(call("sethostname", _host(), len(_host()))),
        {"seccomp": KILLED, **ROOTS_OWN},
    ),
    Attempt(
        "read the host's name",
        ("NAT-24",),
        lambda _: calls(call("uname", out(390))),
        {"seccomp": DENIED, "uts-namespace": "ok"},
        lambda p, shot: p.hostname.encode() in shot.evidence,
    ),
)


def _host() -> str:
    return socket.gethostname()


HOLES = (
    _row("a session's keys", ("NAT-08",), KILLED, "keyctl", 0, -3, 1),
    _row("add a key", ("NAT-08",), KILLED, "add_key", "user", "capwasm", "x", 1, -1),
    _row(
        "ask for a key",
        ("NAT-08",),
        KILLED,
        "request_key",
        "user",
        "no-such",
        0,
        0,
        free="errno:ENOKEY",
    ),
    Attempt(
        "a ring of requests",
        ("NAT-07",),
        lambda _: calls(call("io_uring_setup", 1, bytes(120))),
        {"seccomp": ABSENT, "rlimits": "errno:ENOMEM"},
    ),
    _row("enter a ring", ("NAT-07",), ABSENT, "io_uring_enter", -1, 0, 0, 0, 0, free="errno:EBADF"),
    _row(
        "register with a ring",
        ("NAT-07",),
        ABSENT,
        "io_uring_register",
        -1,
        0,
        0,
        0,
        free="errno:EBADF|errno:EINVAL",
    ),
    _row("faults handled by itself", ("NAT-08",), KILLED, "userfaultfd", 1),
    _row(
        "a map for programs in the kernel",
        ("NAT-08",),
        KILLED,
        "bpf",
        0,
        struct.pack("<5I", 2, 4, 4, 1, 0),
        20,
        root=True,
    ),
    _row(
        "measure performance",
        ("NAT-08",),
        KILLED,
        "perf_event_open",
        0,
        0,
        -1,
        -1,
        0,
        free="errno:EFAULT",
    ),
    _row("a secret memory file", ("NAT-16",), DENIED, "memfd_secret", 0),
    _row("its segments", ("NAT-08",), KILLED, "modify_ldt", 0, out(64), 64)
    if MACHINE == "x86_64"
    else None,
    _row("all ports", ("NAT-24",), KILLED, "iopl", 3, root=True) if MACHINE == "x86_64" else None,
    _row("one port", ("NAT-24",), KILLED, "ioperm", 0x80, 1, 1, root=True)
    if MACHINE == "x86_64"
    else None,
    _row(
        "pages into a pipe", ("NAT-08",), DENIED, "vmsplice", -1, 0, 0, 0, free="errno:EBADF|ok:0"
    ),
    _row(
        "another order of pages",
        ("NAT-08",),
        DENIED,
        "remap_file_pages",
        0,
        0,
        0,
        0,
        0,
        free="errno:EINVAL|ok:0",
    ),
    _row("move its pages", ("NAT-08",), DENIED, "move_pages", 0, 0, 0, 0, 0, 2),
    _row("memory of one node", ("NAT-08",), DENIED, "set_mempolicy", 0, 0, 0),
    _row(
        "who has which pages in the cache",
        ("NAT-08",),
        DENIED,
        "cachestat",
        -1,
        0,
        0,
        0,
        free="errno:EBADF",
    ),
    _row("a ruleset of its own", ("NAT-11",), DENIED, "landlock_create_ruleset", 0, 0, 1),
    _row(
        "reap a process's memory",
        ("NAT-08",),
        DENIED,
        "process_mrelease",
        -1,
        0,
        free="errno:EBADF",
    ),
    Attempt(
        "lock its memory",
        ("NAT-16",),
        lambda _: calls(call("mlockall", 1)),
        {"seccomp": DENIED, "rlimits": DENIED},
        free="ok|errno:ENOMEM",
    ),
)


SCHEDULING = (
    Attempt(
        "another way to be scheduled",
        ("NAT-17",),
        lambda _: calls(call("sched_setscheduler", 0, 3, struct.pack("<i", 0))),
        {"seccomp": DENIED},
        becomes("policy"),
    ),
    Attempt(
        "a larger share",
        ("NAT-17",),
        lambda _: calls(call("setpriority", 0, 0, -1)),
        {"seccomp": DENIED, "own-user": "errno:EACCES", "no-capabilities": "errno:EACCES"},
        becomes("nice"),
    ),
    Attempt(
        "raise its limits",
        ("NAT-16",),
        lambda _: calls(call("prlimit64", 0, 7, struct.pack("<QQ", 500, 500), 0)),
        {"seccomp": DENIED, "rlimits": DENIED},
        becomes("limits"),
    ),
)

SHARED = (
    Attempt(
        "the host's shared memory",
        ("NAT-16", "NAT-02"),
        lambda p: calls(
            call("shmget", p.shared_key, 0, 0),
            call("shmat", result(0), 0, 0o10000),
            call("pipe2", out(8), 0),
            call("write", stored(2, 1), result(1), 16),
            call("read", stored(2), out(16), 16),
        ),
        {"seccomp": DENIED, "ipc-namespace": "errno:ENOENT"},
        reads,
    ),
    Attempt(
        "the host's message queue",
        ("NAT-16", "NAT-02"),
        lambda p: calls(
            call("msgget", p.shared_key, 0),
            call("msgrcv", result(0), out(24), 16, 0, 0o4000),
        ),
        {"seccomp": DENIED, "ipc-namespace": "errno:ENOENT"},
        reads,
    ),
    Attempt(
        "the host's semaphores",
        ("NAT-16",),
        lambda p: calls(call("semget", p.shared_key, 0, 0)),
        {"seccomp": DENIED, "ipc-namespace": "errno:ENOENT"},
    ),
    Attempt(
        "shared memory of its own",
        ("NAT-16",),
        lambda _: calls(call("shmget", 0, 1 << 20, 0o1600)),
        {"seccomp": DENIED},
    ),
    Attempt(
        "the host's queue of messages, POSIX",
        ("NAT-16",),
        lambda p: calls(call("mq_open", p.queue, 0, 0, 0)),
        {"seccomp": DENIED, "ipc-namespace": "errno:ENOENT", "landlock-files": "errno:EACCES"},
    ),
)

ATTEMPTS: tuple[Attempt, ...] = tuple(
    a for a in MACHINE_STATE + HOLES + SCHEDULING + SHARED if a is not None
)
