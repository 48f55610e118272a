"""Attempts to use up what all share, and to leave something behind.  Each is bounded by itself."""

from __future__ import annotations

from capwasm_shim.layers import Limits
from tests.escape.attempt import Attempt, does_all, touches
from tests.escape.kernelcalls import LANE, call, calls, out, result
from tests.escape.prey import Prey

DENIED = "errno:EPERM"
MB = 1 << 20
SMALL = Limits(memory=64 * MB, threads=4, files=16)


def _core(prey: Prey) -> bytes:
    """Allow a core file, and go where anybody may write, before it crashes."""
    unlimited = b"\xff" * 16
    return calls(
        call("prlimit64", 0, 4, unlimited, 0, lenient=True),
        call("prlimit64", 0, 1, unlimited, 0, lenient=True),
        call("prctl", 4, 1, 0, 0, 0, lenient=True),
        call("chdir", str(prey.dropbox), lenient=True),
    )


ATTEMPTS = (
    Attempt(
        "memory, from the heap",
        ("NAT-16",),
        lambda _: b"160",
        {"rlimits": "ok:", "cgroup-memory": "killed:memory"},
        does_all(160),
        topic="memory",
        limits=SMALL,
    ),
    Attempt(
        "memory, shared",
        ("NAT-16",),
        lambda _: calls(call("mmap", 0, MB, 3, 0x8021, -1, 0, times=160)),
        {"rlimits": "ok:", "cgroup-memory": "killed:memory"},
        does_all(160),
        limits=SMALL,
    ),
    Attempt(
        "memory, in a file of it",
        ("NAT-16",),
        lambda _: calls(
            call("memfd_create", "x", 0),
            call("fallocate", result(0), 0, 0, 160 * MB),
        ),
        {
            "seccomp": DENIED,
            "rlimits": "killed:SIGXFSZ|errno:EFBIG",
            "cgroup-memory": "killed:memory",
        },
        limits=SMALL,
    ),
    Attempt(
        "memory, in pipes",
        ("NAT-16",),
        lambda _: calls(call("pipe2", out(8), 0, times=100)),
        {"rlimits": "ok:"},
        does_all(100),
        limits=SMALL,
    ),
    Attempt(
        "descriptors",
        ("NAT-16",),
        lambda _: calls(call("dup", LANE, times=500)),
        {"rlimits": "ok:"},
        does_all(500),
        limits=SMALL,
    ),
    Attempt(
        "threads",
        ("NAT-15",),
        lambda _: b"30",
        {"rlimits": "ok:", "cgroup-pids": "ok:"},
        does_all(30),
        topic="threads",
        limits=SMALL,
    ),
    Attempt(
        "processes",
        ("NAT-15", "NAT-17"),
        lambda _: calls(call("clone", 17, 0, 0, 0, 0, times=10)),
        {"seccomp": DENIED, "rlimits": "ok:", "cgroup-pids": "ok:"},
        does_all(10),
        limits=SMALL,
    ),
    Attempt(
        "a process by vfork",
        ("NAT-15",),
        lambda _: b"",
        {"seccomp": DENIED, "rlimits": "errno:EAGAIN", "cgroup-pids": "errno:EAGAIN"},
        topic="virtual-fork",
        limits=Limits(threads=1),
    ),
    Attempt(
        "a core file",
        ("NAT-19",),
        _core,
        {"rlimits": "killed:SIGSEGV"},
        touches,
        topic="fault",
        limits=SMALL,
        never="the fork server has given up core files for itself, and so for all of its children",
    ),
)
