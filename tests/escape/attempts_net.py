"""Attempts to speak to anybody: sockets of every family, the host's listeners, its own lane."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from tests.escape.attempt import Attempt, heard
from tests.escape.kernelcalls import LANE, call, calls, out, result, stored
from tests.escape.prey import Prey
from tests.escape.shooting import Shot

DENIED = "errno:EPERM"
STREAM, DGRAM, RAW, SEQPACKET = 1, 2, 3, 5
ROOTS_OWN = {"own-user": DENIED, "no-capabilities": DENIED}
NO_SOCKET = {"seccomp": "errno:EPERM"}


def _inet(port: int) -> bytes:
    return struct.pack("<H", socket.AF_INET) + struct.pack(">H4B8x", port, 127, 0, 0, 1)


def _inet6(port: int) -> bytes:
    return (
        struct.pack("<H", socket.AF_INET6) + struct.pack(">HI", port, 0) + bytes(15) + b"\1\0\0\0\0"
    )


def _unix(name: bytes) -> bytes:
    return struct.pack("<H", socket.AF_UNIX) + name


def _connect(family: int, kind: int, protocol: int, address: bytes) -> bytes:
    return calls(
        call("socket", family, kind, protocol), call("connect", result(0), address, len(address))
    )


def _send(family: int, kind: int, address: bytes) -> bytes:
    return calls(
        call("socket", family, kind, 0),
        call("sendto", result(0), b"hello", 5, 0, address, len(address)),
    )


# Family, type, protocol, and what else than the filter keeps an ordinary process from it.
_FAMILIES: tuple[tuple[str, int, int, int, dict[str, str]], ...] = (
    ("unix", 1, STREAM, 0, {}),
    ("inet, tcp", 2, STREAM, 6, {}),
    ("inet, udp", 2, DGRAM, 17, {}),
    ("inet, ping", 2, RAW, 1, ROOTS_OWN),
    ("inet, sctp", 2, SEQPACKET, 132, {}),
    ("inet, mptcp", 2, STREAM, 262, {}),
    ("inet, dccp", 2, 6, 33, {}),
    ("inet6, tcp", 10, STREAM, 6, {}),
    ("inet6, udp", 10, DGRAM, 17, {}),
    ("ax25", 3, DGRAM, 0, {}),
    ("netlink, routes", 16, RAW, 0, {}),
    ("netlink, audit", 16, RAW, 9, {}),
    ("netlink, events", 16, RAW, 15, {}),
    ("key", 15, RAW, 2, ROOTS_OWN),
    ("packet", 17, RAW, 0x0300, ROOTS_OWN),
    ("rds", 21, SEQPACKET, 0, {}),
    ("can", 29, RAW, 1, {}),
    ("tipc", 30, DGRAM, 0, {}),
    ("bluetooth", 31, RAW, 1, {}),
    ("alg", 38, SEQPACKET, 0, {}),
    ("nfc", 39, SEQPACKET, 0, {}),
    ("vsock", 40, STREAM, 0, {}),
    ("kcm", 41, DGRAM, 0, {}),
    ("qipcrtr", 42, DGRAM, 0, {}),
    ("smc", 43, STREAM, 0, {}),
    ("xdp", 44, RAW, 0, ROOTS_OWN),
)

FAMILIES = tuple(
    Attempt(
        f"socket: {name}",
        ("NAT-12",),
        lambda _, f=family, k=kind, p=protocol: calls(call("socket", f, k, p)),
        NO_SOCKET | walls,
    )
    for name, family, kind, protocol, walls in _FAMILIES
)


def _bound(prey: Prey, shot: Shot) -> bool:
    # As it was seen before it ended: whoever connects afterwards may come too late.
    ours = shot.after.get("ns", {}).get("net") == str(Path("/proc/self/ns/net").readlink())
    return ours and prey.free_port in shot.after["listens"]


HOSTS = (
    Attempt(
        "connect to a port of the host",
        ("NAT-12",),
        lambda p: _connect(2, STREAM, 6, _inet(p.port)),
        {
            **NO_SOCKET,
            "net-namespace": "errno:ENETUNREACH",
            "landlock-net": "errno:EACCES",
        },
        heard("tcp"),
    ),
    Attempt(
        "connect to a port of the host, IPv6",
        ("NAT-12",),
        lambda p: _connect(10, STREAM, 6, _inet6(p.port)),
        {
            **NO_SOCKET,
            "net-namespace": "errno:ENETUNREACH|errno:EADDRNOTAVAIL",
            "landlock-net": "errno:EACCES",
        },
        heard("tcp6"),
        needs=lambda p: p.has_inet6,
    ),
    Attempt(
        "connect to a port of the host, MPTCP",
        ("NAT-12",),
        lambda p: _connect(2, STREAM, 262, _inet(p.port)),
        {**NO_SOCKET, "net-namespace": "errno:ENETUNREACH"},
        heard("tcp"),
    ),
    Attempt(
        "connect as part of sending",
        ("NAT-12",),
        lambda p: calls(
            call("socket", 2, STREAM, 6),
            # MSG_FASTOPEN, which Landlock has no hook for.
            call("sendto", result(0), b"hello", 5, 0x20000000, _inet(p.port), 16),
        ),
        {**NO_SOCKET, "net-namespace": "errno:ENETUNREACH"},
        heard("tcp"),
    ),
    Attempt(
        "send a datagram to the host",
        ("NAT-12",),
        lambda p: _send(2, DGRAM, _inet(p.port)),
        {**NO_SOCKET, "net-namespace": "errno:ENETUNREACH"},
        heard("udp"),
    ),
    Attempt(
        "listen on a port of the host",
        ("NAT-12",),
        lambda p: calls(
            call("socket", 2, STREAM, 6),
            call("bind", result(0), _inet(p.free_port), 16),
            call("listen", result(0), 5),
        ),
        {**NO_SOCKET, "net-namespace": "ok:0", "landlock-net": "errno:EACCES"},
        _bound,
    ),
    Attempt(
        "connect to an abstract socket of the host",
        ("NAT-04",),
        lambda p: _connect(1, STREAM, 0, _unix(b"\0" + p.abstract.encode())),
        {
            **NO_SOCKET,
            "net-namespace": "errno:ECONNREFUSED",
            "landlock-scope": "errno:EPERM",
        },
        heard("abstract"),
    ),
    Attempt(
        "connect to a socket of the host by its path",
        ("NAT-04",),
        lambda p: _connect(1, STREAM, 0, _unix(bytes(p.path))),
        {**NO_SOCKET, "mount-namespace": "errno:ENOENT"},
        heard("path"),
    ),
    Attempt(
        "connect to a port of the host before anybody called",
        ("NAT-20",),
        lambda p: _connect(2, STREAM, 6, _inet(p.port)),
        {
            **NO_SOCKET,
            "net-namespace": "errno:ENETUNREACH",
            "landlock-net": "errno:EACCES",
        },
        heard("tcp"),
        early=True,
    ),
    Attempt(
        "a pair of sockets of its own",
        ("NAT-16",),
        lambda _: calls(call("socketpair", 1, STREAM, 0, out(8))),
        NO_SOCKET,
    ),
    Attempt(
        "ask the lane for a handle of the host",
        ("NAT-08", "IPC-07"),
        # SO_PEERPIDFD; a signal of number 0 asks only whether one might.
        lambda _: calls(
            call("getsockopt", LANE, 1, 77, out(4), struct.pack("<I", 4)),
            call("pidfd_send_signal", stored(0), 0, 0, 0),
        ),
        {
            "seccomp": "errno:EPERM",
            "pid-namespace": "errno:EINVAL|errno:ESRCH",
            "landlock-scope": "errno:EPERM",
            "own-user": "errno:EPERM",
        },
    ),
)


ATTEMPTS = FAMILIES + HOSTS
