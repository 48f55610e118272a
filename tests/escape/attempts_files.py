"""Attempts on the host's files: read, list, change, fill."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from tests.escape.attempt import Attempt, Goal, becomes, reads, touches
from tests.escape.kernelcalls import AT_FDCWD, Argument, call, calls, out, result
from tests.escape.prey import Prey
from tests.escape.shooting import Shot

READ = 0
WRITE = 1
CREATE = 0o100
DIRECTORY = 0o200000
PATH = 0o10000000
DENIED = "errno:EPERM"
KILLED = "killed:SIGSYS"
# A process in any Landlock domain may not look into one outside of it.
DOMAIN = "landlock-files+landlock-net+landlock-scope"
HIDDEN = {"mount-namespace": "errno:ENOENT", "landlock-files": "errno:EACCES"}
ROOTS_OWN = {"own-user": DENIED, "no-capabilities": DENIED}


def _read(*path: Argument) -> bytes:
    """Open that and read the token."""
    return calls(call("openat", *path), call("read", result(0), out(64), 64))


def _touch(name: str, *arguments: Argument) -> bytes:
    return calls(call(name, *arguments))


def _file(prey: Prey) -> str:
    return str(prey.secret)


def _drop(prey: Prey, name: str) -> str:
    return str(prey.dropbox / name)


def _size_seen(prey: Prey, shot: Shot) -> bool:
    return struct.pack("<q", prey.secret.stat().st_size) in shot.evidence


def _names(name: str) -> Goal:
    return lambda _, shot: name.encode() in shot.evidence


def _in_a_group(_: Prey) -> bool:
    # On version 2 the layers of the cgroup move it; below the server's own, otherwise.
    return os.geteuid() == 0


def _inherited(_: Prey, shot: Shot) -> bool:
    """It has more than nothing, three times, and its lane."""
    others = [link for link in shot.before.get("fds", {}).values() if link != "/dev/null"]
    return len(others) > 1


def _below_any(prey: Prey) -> bytes:
    """Take each number for that of a directory, and go from there."""
    path = "../" * 20 + str(prey.secret)[1:]
    pairs = (
        (
            call("openat", fd, path, READ, lenient=True),
            call("read", result(2 * n), out(64), 64, lenient=True),
        )
        for n, fd in enumerate(range(3, 24))
    )
    return calls(*(line for pair in pairs for line in pair))


READS = (
    Attempt(
        "use a descriptor that was left open",
        ("NAT-01",),
        lambda _: b"",
        {"clean-start": "ok:0=20000;1=20000;2=20000;"},
        _inherited,
        topic="descriptors",
    ),
    Attempt(
        "open below a directory that was left open",
        ("NAT-01", "NAT-14"),
        _below_any,
        {"clean-start": "ok:-1:", "landlock-files": "ok:-1:", "own-user": "ok:-1:"},
        reads,
    ),
    Attempt(
        "load a library of the host",
        ("NAT-21",),
        lambda p: str(p.library).encode(),
        {"mount-namespace": "errno:ELIBACC", "landlock-files": "errno:ELIBACC"},
        becomes("mapped"),
        topic="library",
    ),
    Attempt(
        "open a file before anybody called",
        ("NAT-20",),
        lambda p: _read(AT_FDCWD, _file(p), READ),
        HIDDEN,
        reads,
        early=True,
    ),
    Attempt(
        "ask in which group of processes it is",
        ("NAT-17",),
        lambda _: _read(AT_FDCWD, "/proc/self/cgroup", READ),
        {**HIDDEN, "cgroup-namespace": "ok:"},
        _names("capwasm-"),
        needs=_in_a_group,
    ),
    Attempt(
        "open by an absolute path",
        ("NAT-02", "NAT-14"),
        lambda p: _read(AT_FDCWD, _file(p), READ),
        HIDDEN,
        reads,
    ),
    Attempt(
        "open by a path of dots",
        ("NAT-14",),
        lambda p: _read(AT_FDCWD, "../" * 20 + _file(p)[1:], READ),
        HIDDEN,
        reads,
    ),
    Attempt(
        "open below a descriptor of the root",
        ("NAT-14",),
        lambda p: calls(
            call("openat", AT_FDCWD, "/", PATH | DIRECTORY),
            call("openat", result(0), _file(p)[1:], READ),
            call("read", result(1), out(64), 64),
        ),
        HIDDEN,
        reads,
    ),
    Attempt(
        "open through an O_PATH descriptor of the file",
        ("NAT-14",),
        lambda p: calls(
            call("openat", AT_FDCWD, _file(p), PATH),
            call("openat", AT_FDCWD, "/proc/self/fd/3", READ, lenient=True),
            call("fstat", result(0), out(144)),
        ),
        {"mount-namespace": "errno:ENOENT"},
        _size_seen,
    ),
    Attempt(
        "open with openat2",
        ("NAT-14",),
        lambda p: calls(
            call("openat2", AT_FDCWD, _file(p), struct.pack("<QQQ", 0, 0, 0), 24),
            call("read", result(0), out(64), 64),
        ),
        {"seccomp": "errno:ENOSYS", **HIDDEN},
        reads,
    ),
    Attempt(
        "open through /proc/self/root",
        ("NAT-02",),
        lambda p: _read(AT_FDCWD, "/proc/self/root" + _file(p), READ),
        HIDDEN,
        reads,
    ),
    Attempt(
        "open through another process's root",
        ("NAT-02",),
        lambda p: _read(AT_FDCWD, f"/proc/{p.victim}/root{_file(p)}", READ),
        {"mount-namespace": "errno:ENOENT", DOMAIN: "errno:EACCES", "own-user": "errno:EACCES"},
        reads,
    ),
    Attempt(
        "open another process's descriptor",
        ("NAT-02",),
        lambda p: _read(AT_FDCWD, f"/proc/{p.victim}/fd/{p.victim_fd}", READ),
        {"mount-namespace": "errno:ENOENT", DOMAIN: "errno:EACCES", "own-user": "errno:EACCES"},
        reads,
    ),
    Attempt(
        "read another process's environment",
        ("NAT-02",),
        lambda p: _read(AT_FDCWD, f"/proc/{p.victim}/environ", READ),
        {"mount-namespace": "errno:ENOENT", DOMAIN: "errno:EACCES", "own-user": "errno:EACCES"},
        reads,
    ),
    Attempt(
        "read another process's memory file",
        ("NAT-02",),
        lambda p: calls(
            call("openat", AT_FDCWD, f"/proc/{p.victim}/mem", READ),
            call("pread64", result(0), out(16), 16, p.address),
        ),
        {"mount-namespace": "errno:ENOENT", DOMAIN: "errno:EACCES", "own-user": "errno:EACCES"},
        reads,
    ),
    Attempt(
        "open by the file's handle",
        ("NAT-14",),
        lambda p: calls(
            call("open_by_handle_at", AT_FDCWD, p.handle(), READ),
            call("read", result(0), out(64), 64),
        ),
        {
            "seccomp": KILLED,
            "mount-namespace": "errno:ESTALE",
            "landlock-files": "errno:EACCES",
            **ROOTS_OWN,
        },
        reads,
    ),
    Attempt(
        "ask for the file's handle",
        ("NAT-14",),
        lambda p: calls(
            call(
                "name_to_handle_at",
                AT_FDCWD,
                _file(p),
                struct.pack("Ii", 128, 0) + bytes(128),
                out(4),
                0,
            )
        ),
        {"seccomp": KILLED, "mount-namespace": "errno:ENOENT"},
    ),
    Attempt(
        "stat by an absolute path",
        ("NAT-14",),
        lambda p: _touch("newfstatat", AT_FDCWD, _file(p), out(144), 0),
        {"mount-namespace": "errno:ENOENT"},
        _size_seen,
    ),
    Attempt(
        "statx by an absolute path",
        ("NAT-14",),
        lambda p: _touch("statx", AT_FDCWD, _file(p), 0, 0xFFF, out(256)),
        {"mount-namespace": "errno:ENOENT"},
        _size_seen,
    ),
    Attempt(
        "ask whether a file is there",
        ("NAT-14",),
        lambda p: _touch("faccessat", AT_FDCWD, _file(p), 0),
        {"mount-namespace": "errno:ENOENT"},
    ),
    Attempt(
        "list a directory",
        ("NAT-14",),
        lambda p: calls(
            call("openat", AT_FDCWD, str(p.directory), DIRECTORY),
            call("getdents64", result(0), out(256), 256),
        ),
        HIDDEN,
        _names("dropbox"),
    ),
    Attempt(
        "ask which program this is",
        ("NAT-02",),
        lambda _: _touch("readlinkat", AT_FDCWD, "/proc/self/exe", out(256), 256),
        {"mount-namespace": "errno:ENOENT"},
        _names("python"),
    ),
    Attempt(
        "ask what is mounted",
        ("NAT-24",),
        lambda _: _touch("listmount", struct.pack("<IIQQ", 24, 0, 2**64 - 1, 0), out(64), 8, 0),
        {"seccomp": DENIED},
    ),
    Attempt(
        "watch a directory",
        ("NAT-14",),
        lambda p: calls(
            call("inotify_init1", 0),
            call("inotify_add_watch", result(0), str(p.directory), 0xFFF),
        ),
        {"seccomp": DENIED, "mount-namespace": "errno:ENOENT"},
    ),
    Attempt(
        "watch all files there are",
        ("NAT-24",),
        lambda _: _touch("fanotify_init", 0x4, 0),
        {"seccomp": KILLED, **ROOTS_OWN},
    ),
)

DEVICES = tuple(
    Attempt(
        f"open {path}",
        ("NAT-24",),
        lambda _, path=path, flags=flags: _touch("openat", AT_FDCWD, path, flags),
        {
            **HIDDEN,
            **({"own-user": "errno:EACCES"} if roots_own else {}),
            **({"seccomp": DENIED} if flags == WRITE else {}),
        },
        needs=lambda _, path=path: Path(path).exists(),
    )
    for path, flags, roots_own in (
        ("/dev/zero", READ, False),
        ("/dev/ptmx", 0o400, False),
        ("/dev/mem", READ, True),
        ("/dev/kmsg", WRITE, True),
        ("/sys/devices/system/cpu/online", READ, False),
        ("/sys/kernel/mm/transparent_hugepage/enabled", WRITE, True),
        ("/proc/sys/kernel/core_pattern", WRITE, True),
        ("/proc/sysrq-trigger", WRITE, True),
    )
)

CHANGES = (
    Attempt(
        "make a file",
        ("NAT-14", "NAT-16"),
        lambda p: _touch("openat", AT_FDCWD, _drop(p, "new"), CREATE | WRITE, 0o600),
        {"seccomp": DENIED, **HIDDEN},
        touches,
    ),
    Attempt(
        "write to a file",
        ("NAT-16",),
        lambda p: calls(
            call("openat", AT_FDCWD, str(p.ours), WRITE),
            call("write", result(0), b"changed", 7),
        ),
        {"seccomp": DENIED, **HIDDEN, "rlimits": "killed:SIGXFSZ|errno:EFBIG"},
        touches,
    ),
    Attempt(
        "cut a file off by its path",
        ("NAT-13",),
        lambda p: _touch("truncate", str(p.ours), 0),
        {"seccomp": DENIED, **HIDDEN},
        touches,
    ),
    Attempt(
        "cut a file off by opening it",
        ("NAT-13",),
        lambda p: _touch("openat", AT_FDCWD, str(p.ours), WRITE | 0o1000),
        {"seccomp": DENIED, **HIDDEN},
        touches,
    ),
    Attempt(
        "make many directories",
        ("NAT-16",),
        lambda p: calls(*(call("mkdirat", AT_FDCWD, _drop(p, f"d{n}"), 0o700) for n in range(50))),
        {"seccomp": DENIED, **HIDDEN},
        touches,
    ),
    Attempt(
        "make a symbolic link",
        ("NAT-14",),
        lambda p: _touch("symlinkat", _file(p), AT_FDCWD, _drop(p, "link")),
        {"seccomp": DENIED, **HIDDEN},
        touches,
    ),
    Attempt(
        "make a hard link",
        ("NAT-14",),
        lambda p: _touch("linkat", AT_FDCWD, str(p.ours), AT_FDCWD, _drop(p, "hard"), 0),
        {"seccomp": DENIED, **HIDDEN},
        touches,
    ),
    Attempt(
        "make a device",
        ("NAT-24",),
        lambda p: _touch("mknodat", AT_FDCWD, _drop(p, "null"), 0o20666, 0x103),
        {"seccomp": DENIED, **HIDDEN, **ROOTS_OWN},
        touches,
    ),
    Attempt(
        "remove a file",
        ("NAT-14",),
        lambda p: _touch("unlinkat", AT_FDCWD, str(p.ours), 0),
        {"seccomp": DENIED, **HIDDEN},
        touches,
    ),
    Attempt(
        "rename a file",
        ("NAT-14",),
        lambda p: _touch("renameat2", AT_FDCWD, str(p.ours), AT_FDCWD, _drop(p, "moved"), 0),
        {"seccomp": DENIED, **HIDDEN},
        touches,
    ),
    Attempt(
        "change a file's mode",
        ("NAT-24",),
        lambda p: _touch("fchmodat", AT_FDCWD, str(p.ours), 0o4777),
        {"seccomp": DENIED, "mount-namespace": "errno:ENOENT", "own-user": DENIED},
        touches,
    ),
    Attempt(
        "change a file's owner",
        ("NAT-24",),
        lambda p: _touch("fchownat", AT_FDCWD, str(p.ours), 12345, 12345, 0),
        {"seccomp": DENIED, "mount-namespace": "errno:ENOENT", **ROOTS_OWN},
        touches,
    ),
    Attempt(
        "change a file's times",
        ("NAT-14",),
        lambda p: _touch("utimensat", AT_FDCWD, str(p.ours), struct.pack("<4q", 9, 0, 9, 0), 0),
        {"seccomp": DENIED, "mount-namespace": "errno:ENOENT", "own-user": DENIED},
        touches,
    ),
    Attempt(
        "fill the private root",
        ("NAT-16",),
        lambda _: _touch("openat", AT_FDCWD, "/fill", CREATE | WRITE, 0o600),
        {
            "seccomp": DENIED,
            "mount-namespace": "errno:EROFS|errno:EACCES",
            "landlock-files": "errno:EACCES",
        },
        never="without the private root this is the machine's own",
    ),
    Attempt(
        "change its own code on the disk",
        ("NAT-20",),
        lambda _: _touch("openat", AT_FDCWD, "/plugin.so", 2),
        {
            "seccomp": DENIED,
            "landlock-files": "errno:EACCES|errno:ENOENT",
            "mount-namespace": "errno:EROFS|errno:EACCES",
        },
        never="without the private root there is no such file",
    ),
)

MOUNTS = (
    Attempt(
        "mount over the root",
        ("NAT-09",),
        lambda _: _touch("mount", "none", "/", "tmpfs", 0, ""),
        {"seccomp": KILLED, "landlock-files": DENIED, **ROOTS_OWN},
    ),
    Attempt(
        "bind the root to itself",
        ("NAT-09",),
        lambda _: _touch("mount", "/", "/", 0, 0x1000, 0),
        {"seccomp": KILLED, "landlock-files": DENIED, **ROOTS_OWN},
    ),
    Attempt(
        "make the root writable again",
        ("NAT-09",),
        lambda _: _touch("mount", 0, "/", 0, 0x20 | 0x1000, 0),
        {"seccomp": KILLED, "landlock-files": DENIED, **ROOTS_OWN},
    ),
    Attempt(
        "take the root off what lies below",
        ("NAT-09",),
        lambda _: _touch("umount2", "/", 2),
        {"seccomp": KILLED, "landlock-files": DENIED, **ROOTS_OWN},
    ),
    Attempt(
        "turn to another root",
        ("NAT-09",),
        lambda _: _touch("pivot_root", "/", "/"),
        {"seccomp": KILLED, "landlock-files": DENIED, **ROOTS_OWN},
        free="errno:EBUSY",
    ),
    Attempt(
        "go below a directory for good",
        ("NAT-14",),
        lambda _: _touch("chroot", "/"),
        {"seccomp": KILLED, **ROOTS_OWN},
    ),
    Attempt(
        "open a file system",
        ("NAT-09",),
        lambda _: _touch("fsopen", "tmpfs", 0),
        {"seccomp": KILLED, **ROOTS_OWN},
    ),
    Attempt(
        "copy the tree of mounts",
        ("NAT-09",),
        lambda _: _touch("open_tree", AT_FDCWD, "/", 1),
        {"seccomp": KILLED, **ROOTS_OWN},
    ),
    Attempt(
        "move a mount",
        ("NAT-09",),
        lambda _: _touch("move_mount", AT_FDCWD, "/", AT_FDCWD, "/", 0),
        {"seccomp": KILLED, **ROOTS_OWN, "landlock-files": DENIED},
        free="errno:ELOOP|errno:EINVAL",
    ),
    Attempt(
        "change what a mount forbids",
        ("NAT-09",),
        lambda _: _touch("mount_setattr", AT_FDCWD, "/", 0, struct.pack("<QQQQ", 0, 1, 0, 0), 32),
        {"seccomp": KILLED, **ROOTS_OWN},
    ),
    Attempt(
        "swap to a file",
        ("NAT-08",),
        lambda _: _touch("swapon", "/nothing", 0),
        {"seccomp": KILLED, **ROOTS_OWN},
        free="errno:ENOENT",
    ),
    Attempt(
        "stop swapping",
        ("NAT-08",),
        lambda _: _touch("swapoff", "/nothing"),
        {"seccomp": KILLED, **ROOTS_OWN},
        free="errno:ENOENT",
    ),
    Attempt(
        "write accounts of processes",
        ("NAT-08",),
        lambda _: _touch("acct", "/nothing"),
        {"seccomp": KILLED, **ROOTS_OWN},
        free="errno:ENOENT",
    ),
    Attempt(
        "set disk quotas",
        ("NAT-08",),
        lambda _: _touch("quotactl", 0x80000100, "/nothing", 0, 0),
        {"seccomp": KILLED},
        free="errno:ENOENT",
    ),
)

ATTEMPTS = READS + DEVICES + CHANGES + MOUNTS
